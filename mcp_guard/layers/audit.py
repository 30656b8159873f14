"""Writes one record for each exchange: who asked for what, what was decided and why.

Decides: whether the exchange can be recorded. Refuses with `unavailable` (503): when the record of a response cannot be
written, the response does not go out. Does not: hold any credential; tokens and sessions appear as fingerprints, the
query string not at all. Must stand outermost, so that every refusal passes it.

The record is written when the response begins, before its first byte goes out; `duration_ms` is the time until then. A
WebSocket has one when it is opened, one for each message, and one when it is closed, with the verdict `closed`.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from mcp_guard.asgi import RawHeaders
from mcp_guard.auditlog import AuditLog, DescriptorSink, spelled
from mcp_guard.check import Check
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.events import Event
from mcp_guard.facts import Call, ClientAddress, Principal, RequestId, SessionHandle, Socket
from mcp_guard.failures import AuditUnavailable
from mcp_guard.layer import Admission, Managed, RequestHead
from mcp_guard.rejections import Rejection
from mcp_guard.stores.base import Operation, Result

logger = logging.getLogger("mcp_guard")

SWITCHING = 101
"""The status of a request that opens a WebSocket."""

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
        identifier = RequestId(os.urandom(16).hex())
        return Admission(facts=(identifier,), watch=_Record(self, request, identifier, self.clock.monotonic()))


@dataclass(slots=True)
class _Record:
    """The record of one exchange, written once; then the request is let go."""

    layer: Audit
    request: RequestHead | None
    identifier: RequestId
    began: float
    wants_body: bool = False

    def on_start(self, status: int, headers: RawHeaders) -> Sequence[Operation]:
        request = self.request
        try:
            self.write(status)
        except AuditUnavailable as fault:
            logger.error("a response is withheld because it is missing from the audit: %s", fault.reason)
            raise
        if status == SWITCHING:
            # The end of a WebSocket has a record too.
            self.request = request
        return ()

    def on_body(self, chunk: bytes) -> Sequence[Operation]:
        return ()

    def settle(self, results: Sequence[Result]) -> None:
        """Nothing is asked of a store."""

    def on_end(self) -> None:
        # No response was begun: the client or the app went away. Nobody is left to refuse.
        try:
            self.write(None)
        except AuditUnavailable as fault:
            logger.error("an aborted exchange is missing from the audit: %s", fault.reason)

    def write(self, status: int | None) -> None:
        request, self.request = self.request, None
        if request is not None and not _is_recorded(request):
            self.layer.log.write_members(self.members(request, status))

    def members(self, request: RequestHead, status: int | None) -> str:
        """The record, as the members of a JSON object."""
        clock = self.layer.clock
        address, refusal = request.get(ClientAddress), request.get(Rejection)
        client = _peer(request) if address is None else address.text
        verdict, reason = _verdict(status, refusal)
        socket = request.get(Socket)
        if status is None and socket is not None and socket.code is not None:
            verdict, status, reason, socket.is_recorded = "closed", socket.code, socket.reason, True
        duration_ms = round((clock.monotonic() - self.began) * 1000, 3)
        return (
            f'"time":"{_time(clock.wall())}","request_id":"{self.identifier.value}","client":{spelled(client)},'
            f'{_who(request)},"http_method":{spelled(request.method)},"path":{spelled(request.path)},{_what(request)},'
            f'"verdict":{spelled(verdict)},"status":{"null" if status is None else int(status)},'
            f'"reason":{spelled(reason)},"duration_ms":{duration_ms}'
        )


def _time(now: float) -> str:
    """The time of a record, in milliseconds (RFC 3339). `now` is in seconds since 1970."""
    second, microsecond = divmod(round(now * 1_000_000), 1_000_000)
    return f"{_second(second)}.{microsecond // 1000:03}+00:00"


@lru_cache(4)
def _second(second: int) -> str:
    """Many records share a second; it is spelled once."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _verdict(status: int | None, refusal: Rejection | None) -> tuple[str, str | None]:
    """What was decided, as a slug, and why."""
    if refusal is not None:
        return refusal.kind.slug, refusal.reason
    return ("aborted", "the exchange ended without a response") if status is None else ("allowed", None)


def _is_recorded(request: RequestHead) -> bool:
    """Whether the request opened a WebSocket whose end is in a record already."""
    socket = request.get(Socket)
    return socket is not None and socket.is_recorded


def _peer(request: RequestHead) -> str:
    client = request.scope.get("client")
    return "unknown" if client is None else str(client[0])


def _who(request: RequestHead) -> str:
    """Who asked; or for whom an authorization server did something, in the members that a principal has."""
    event = request.get(Event)
    if event is not None:
        fingerprint, verified, session = event.token_fingerprint, None, None
        someone = _person(event.issuer, event.subject, event.client_id, event.tenant)
    else:
        principal, session = request.get(Principal), request.get(SessionHandle)
        fingerprint = None if principal is None else principal.token_fingerprint
        verified = None if principal is None else principal.verified_by
        someone = "null" if principal is None else _person(*principal.identity)
    handle = None if session is None else session.fingerprint
    return (
        f'"principal":{someone},"token":{spelled(fingerprint)},"verified":{spelled(verified)},'
        f'"session":{spelled(handle)}'
    )


@lru_cache(1024)
def _person(issuer: str, subject: str | None, client: str | None, tenant: str | None) -> str:
    return (
        f'{{"issuer":{spelled(issuer)},"subject":{spelled(subject)},'
        f'"client":{spelled(client)},"tenant":{spelled(tenant)}}}'
    )


def _what(request: RequestHead) -> str:
    """What was asked."""
    call, event = request.get(Call), request.get(Event)
    messages = () if call is None else call.messages[:MAX_NAMED_MESSAGES]
    methods = [spelled(message.method) for message in messages if message.method is not None]
    names = [spelled(message.name) for message in messages if message.name is not None]
    done = None if event is None else event.name
    return f'"event":{spelled(done)},"method":{_one_or_all(methods)},"tool":{_one_or_all(names)}'


def _one_or_all(values: list[str]) -> str:
    if not values:
        return "null"
    return values[0] if len(values) == 1 else f"[{','.join(values)}]"
