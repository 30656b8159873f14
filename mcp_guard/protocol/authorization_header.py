"""The Authorization field and the challenges that answer it (RFC 9110 §11, RFC 6750 §2.1 and §3, RFC 9449 §7.1)."""

import re
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from mcp_guard.protocol import scopes as scope_rules
from mcp_guard.protocol.jose import PROOF_ALGORITHMS

BEARER: Final = "bearer"
DPOP: Final = "dpop"
MAX_FIELD_BYTES: Final = 8192 + 64
"""The longest token that is accepted (see `jose`), and room for the name of a scheme."""

# token (RFC 9110 §5.6.2), and after exactly one space token68 (RFC 9110 §11.2, RFC 6750 §2.1 b64token).
_SCHEME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TOKEN68: Final = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")

_PARAMETER: Final = re.compile(_SCHEME.pattern.decode())
_QUOTABLE: Final = re.compile(r"[ -~]*")
_DESCRIPTION: Final = re.compile(r"[ !#-\[\]-~]*")  # RFC 6750 §3: %x20-21 / %x23-5B / %x5D-7E
_ERROR_URI: Final = re.compile(r"[!#-\[\]-~]*")
_RESTRICTED: Final = {"error": _DESCRIPTION, "error_description": _DESCRIPTION, "error_uri": _ERROR_URI}


class CredentialsFault(StrEnum):
    """What is wrong with the credentials of a request."""

    MISSING = "missing"
    MALFORMED = "malformed"
    REPEATED = "repeated"
    SCHEME = "scheme"
    TOO_LONG = "too_long"


class CredentialsError(ValueError):
    """The request has no usable credentials. `reason` quotes nothing of what was sent."""

    def __init__(self, fault: CredentialsFault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault
        self.reason = reason


class Credentials(NamedTuple):
    """A token and how it was presented. `scheme` is in lower case."""

    scheme: str
    token: bytes

    def __repr__(self) -> str:
        return f"Credentials(scheme={self.scheme!r})"


_SCHEMES: Final = frozenset({BEARER})


def parse(values: Sequence[bytes], query: bytes = b"", schemes: Collection[str] = _SCHEMES) -> Credentials:
    """The credentials of a request from all its Authorization fields.

    A token in the query is never read (OAuth 2.1 §5.2.1); beside a field it makes two credentials, which RFC 6750 §2
    forbids. `schemes` are those that are accepted, in lower case.

    Raises:
        CredentialsError: there are none, more than one, or not exactly a scheme, one space and a token.
    """
    if not values:
        raise CredentialsError(CredentialsFault.MISSING, "no Authorization field was sent")
    if len(values) > 1:
        raise CredentialsError(CredentialsFault.REPEATED, f"{len(values)} Authorization fields were sent")
    value = values[0]
    if len(value) > MAX_FIELD_BYTES:
        raise CredentialsError(CredentialsFault.TOO_LONG, f"the Authorization field has {len(value)} bytes")
    if query and _has_access_token(query):
        raise CredentialsError(
            CredentialsFault.REPEATED, "a token was sent in the query beside the Authorization field"
        )
    name, space, token = value.partition(b" ")
    if _SCHEME.fullmatch(name) is None:
        raise CredentialsError(CredentialsFault.MALFORMED, "the Authorization field does not begin with a scheme")
    scheme = name.decode("ascii").lower()
    if scheme not in schemes:
        raise CredentialsError(CredentialsFault.SCHEME, "the authentication scheme is not accepted")
    if not space:
        raise CredentialsError(CredentialsFault.MALFORMED, "a scheme was sent without a token")
    if _TOKEN68.fullmatch(token) is None:
        raise CredentialsError(CredentialsFault.MALFORMED, "after the scheme and one space there is not one token")
    return Credentials(scheme, token)


def challenge(scheme: str, params: Mapping[str, str]) -> bytes:
    """One challenge for WWW-Authenticate (RFC 9110 §11.6.1): the scheme, and every parameter as a quoted string.

    `scope`, `error`, `error_description` and `error_uri` keep to the characters of RFC 6750 §3; in other parameters
    quotes and backslashes are escaped.

    Raises:
        ValueError: a name is not a token, or a value has characters that must not be there.
    """
    if _PARAMETER.fullmatch(scheme) is None:
        raise ValueError("scheme must be a token")
    written = []
    for name, value in params.items():
        if _PARAMETER.fullmatch(name) is None:
            raise ValueError("the name of a parameter must be a token")
        if name == "scope":
            value = scope_rules.render(scope_rules.parse(value))
        elif _RESTRICTED.get(name, _QUOTABLE).fullmatch(value) is None:
            raise ValueError(f"{name} has a character that must not be in a challenge")
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        written.append(f'{name}="{escaped}"')
    return f"{scheme} {', '.join(written)}".rstrip(" ").encode("ascii")


def bearer_challenge(
    resource_metadata: str, scopes: Collection[str] = (), *, error: str = "", error_description: str = ""
) -> bytes:
    """The challenge of a protected resource (RFC 6750 §3, RFC 9728 §5.1).

    `error` is left out, together with its description, for a request without credentials (RFC 6750 §3.1).

    Raises:
        ValueError: a value has characters that must not be there.
    """
    return challenge("Bearer", _said(resource_metadata, scopes, error, error_description))


def dpop_challenge(
    resource_metadata: str, scopes: Collection[str] = (), *, error: str = "", error_description: str = ""
) -> bytes:
    """The challenge for a token that is bound to a key (RFC 9449 §7.1), with the algorithms that proofs may have.

    Raises:
        ValueError: a value has characters that must not be there.
    """
    algorithms = " ".join(sorted(PROOF_ALGORITHMS))
    return challenge("DPoP", {**_said(resource_metadata, scopes, error, error_description), "algs": algorithms})


def _said(resource_metadata: str, scopes: Collection[str], error: str, error_description: str) -> dict[str, str]:
    params = {}
    if error:
        params["error"] = error
        params["error_description"] = error_description
    params["resource_metadata"] = resource_metadata
    if scopes:
        params["scope"] = scope_rules.render(scopes)
    return params


def _has_access_token(query: bytes) -> bool:
    """Whether a query has the parameter `access_token`, however its name is percent-encoded."""
    for pair in query.split(b"&"):
        name = pair.partition(b"=")[0]
        if name == b"access_token" or (b"%" in name and unquote_to_bytes(name) == b"access_token"):
            return True
    return False
