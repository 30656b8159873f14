"""Writes one record for each exchange: who asked for what, what was decided and why.

Decides: whether the exchange can be recorded. Refuses with `unavailable` (503): when the record of a response cannot be
written, the response does not go out. Does not: hold any credential; tokens and sessions appear as fingerprints, the
query string not at all. Must stand outermost, so that every refusal passes it.

The record is written when the response begins, before its first byte goes out; `duration_ms` is the time until then.
"""

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mcp_guard.asgi import RawHeaders
from mcp_guard.auditlog import AuditLog, DescriptorSink, short
from mcp_guard.check import Check
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import Call, ClientAddress, Event, Principal, RequestId, SessionHandle
from mcp_guard.failures import AuditUnavailable
from mcp_guard.layer import Admission, Managed, RequestHead
from mcp_guard.rejections import Rejection
from mcp_guard.stores.base import Operation, Result

logger = logging.getLogger("mcp_guard")

MAX_NAMED_MESSAGES = 50
"""Messages of a batch that are named in a record."""


def _standard_error() -> AuditLog:
    return AuditLog(DescriptorSink())


@dataclass(frozen=True)
class Audit(Check):
    """`log` is where records go; standard error by default."""

    adds = (RequestId,)
    judges_handshakes = True

    log: AuditLog = field(default_factory=_standard_error)
    clock: Clock = field(default_factory=SystemClock)

    def managed(self) -> Sequence[Managed]:
        return (self.log,)

    async def admit(self, request: RequestHead) -> Admission:
        identifier = RequestId(secrets.token_hex(16))
        return Admission(facts=(identifier,), watch=_Record(self, request, identifier, self.clock.monotonic()))


@dataclass(slots=True)
class _Record:
    """The record of one exchange, written once."""

    layer: Audit
    request: RequestHead
    identifier: RequestId
    began: float
    written: bool = False
    wants_body: bool = False

    def on_start(self, status: int, headers: RawHeaders) -> Sequence[Operation]:
        try:
            self.write(status)
        except AuditUnavailable as fault:
            logger.error("a response is withheld because it is missing from the audit: %s", fault.reason)
            raise
        return ()

    def on_body(self, chunk: bytes) -> Sequence[Operation]:
        return ()

    def settle(self, results: Sequence[Result]) -> None:
        """Nothing is asked of a store."""

    def on_end(self) -> None:
        # No response was begun: the client or the app went away. Nobody is left to refuse.
        if not self.written:
            try:
                self.write(None)
            except AuditUnavailable as fault:
                logger.error("an aborted exchange is missing from the audit: %s", fault.reason)

    def write(self, status: int | None) -> None:
        self.written = True
        self.layer.log.write(self.record(status))

    def record(self, status: int | None) -> dict[str, Any]:
        request, layer = self.request, self.layer
        refusal = request.get(Rejection)
        address = request.get(ClientAddress)
        verdict = "allowed" if refusal is None else refusal.kind.slug
        return {
            "time": datetime.fromtimestamp(layer.clock.wall(), UTC).isoformat(timespec="milliseconds"),
            "request_id": self.identifier.value,
            "client": str(address) if address is not None else _peer(request),
            **_who(request),
            "http_method": short(request.method),
            "path": short(request.path),
            **_what(request),
            "verdict": "aborted" if status is None and refusal is None else verdict,
            "status": status,
            "reason": _reason(status, refusal),
            "duration_ms": round((layer.clock.monotonic() - self.began) * 1000, 3),
        }


def _reason(status: int | None, refusal: Rejection | None) -> str | None:
    if refusal is not None:
        return short(refusal.reason)
    return "the exchange ended without a response" if status is None else None


def _peer(request: RequestHead) -> str:
    client = request.scope.get("client")
    return "unknown" if client is None else str(client[0])


def _who(request: RequestHead) -> dict[str, Any]:
    event = request.get(Event)
    if event is not None:
        return _whom(event)
    principal, session = request.get(Principal), request.get(SessionHandle)
    return {
        "principal": None
        if principal is None
        else {
            "issuer": short(principal.issuer),
            "subject": short(principal.subject),
            "client": short(principal.client_id),
            "tenant": None if principal.tenant is None else short(principal.tenant),
        },
        "token": None if principal is None else principal.token_fingerprint,
        "session": None if session is None else session.fingerprint,
    }


def _whom(event: Event) -> dict[str, Any]:
    """For whom an authorization server did something, in the members that a principal has."""
    names = {"subject": event.subject, "client": event.client_id, "tenant": event.tenant}
    people = {name: None if value is None else short(value) for name, value in names.items()}
    return {"principal": {"issuer": short(event.issuer), **people}, "token": event.token_fingerprint, "session": None}


def _what(request: RequestHead) -> dict[str, Any]:
    call, event = request.get(Call), request.get(Event)
    messages = () if call is None else call.messages[:MAX_NAMED_MESSAGES]
    methods = [short(message.method) for message in messages if message.method is not None]
    names = [short(message.name) for message in messages if message.name is not None]
    return {
        "event": None if event is None else event.name,
        "method": methods[0] if len(methods) == 1 else methods or None,
        "tool": names[0] if len(names) == 1 else names or None,
    }
