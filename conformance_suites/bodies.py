"""Bodies that are written by hand: the harmless request of a caller with something else in its text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from conformance_suites.calls import Caller
from pytest_mcp_conformance.exchange import Exchange, Request


class HandWriter:
    """Writes the list of tools, or another request, as text of its own."""

    def __init__(self, caller: Caller, method: str = "tools/list", params: dict[str, Any] | None = None) -> None:
        self._caller = caller
        self._request = caller.request(method, params)
        self.payload: dict[str, Any] = json.loads(self._request.body or b"{}")

    @property
    def text(self) -> bytes:
        """The request as it usually is."""
        return self._request.body or b""

    def with_body(self, body: bytes) -> Request:
        """The same request with another body, without a credential."""
        return replace(self._request, body=body)

    def with_members(self, **members: Any) -> Request:
        """The same request with other members; those that are `...` are left out."""
        changed = {name: value for name, value in {**self.payload, **members}.items() if value is not ...}
        return self.with_body(json.dumps(changed).encode())

    def with_id(self, text: str) -> Request:
        """The same request with this JSON text as its id."""
        rest = json.dumps({name: value for name, value in self.payload.items() if name != "id"})
        return self.with_body(f'{{"id": {text}, {rest[1:]}'.encode())

    def send(self, request: Request) -> Exchange:
        """Send with the caller's credential."""
        return self._caller.send(request)


def is_unanswered(exchange: Exchange) -> bool:
    """Whether the server gave up: a server error, or no answer at all."""
    return exchange.status == 0 or exchange.status >= 500
