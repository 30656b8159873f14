"""Whose fault it is, as a type.

`ConfigurationError` is the operator's, `Rejection` (in `rejections`) is the client's, `Unavailable` is the
infrastructure's. Anything else is a defect of ours and refuses the request too.
"""


class ConfigurationError(ValueError):
    """A setting cannot work. The message names the setting and what it must be; raised at construction."""


class Unavailable(Exception):
    """Something the decision depends on cannot answer now. The request is refused with 503 and `Retry-After`."""

    def __init__(self, reason: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailable(Unavailable):
    """The store did not answer, or refused, an operation."""


class KeySourceUnavailable(Unavailable):
    """No usable keys of an issuer: it cannot be reached and nothing fresh enough is at hand."""


class IntrospectionUnavailable(Unavailable):
    """The issuer did not say whether a token is active. `is_outage`: it could not be reached, or is failing."""

    def __init__(self, reason: str, *, is_outage: bool) -> None:
        super().__init__(reason)
        self.is_outage = is_outage


class AuditUnavailable(Unavailable):
    """An audit record could not be written."""
