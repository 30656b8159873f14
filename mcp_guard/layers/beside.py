"""Hands some exact paths to another app that stands beside the guarded one.

Decides: nothing. Paths are compared exactly, on the canonical path that the router uses too; everything else goes on to
the layers further in. Refuses: nothing. Must stand after: wire, which makes the path canonical.

Made for the embedded authorization server: its endpoints are open by nature, and have their own rules.
"""

from dataclasses import dataclass

from mcp_guard.asgi import ASGIApp
from mcp_guard.check import Check
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import ADMITTED, Admission, Managed, RequestHead


@dataclass(frozen=True)
class Beside(Check):
    """`app` serves exactly `paths` (each beginning with a slash); `depends` is started and closed with the stack."""

    app: ASGIApp
    paths: frozenset[str]
    depends: tuple[Managed, ...] = ()

    def __post_init__(self) -> None:
        for path in self.paths:
            if not path.startswith("/"):
                raise ConfigurationError(f"paths: {path!r} must begin with a slash")

    def managed(self) -> tuple[Managed, ...]:
        return self.depends

    async def admit(self, request: RequestHead) -> Admission:
        if request.path in self.paths:
            return Admission(divert=self.app)
        return ADMITTED
