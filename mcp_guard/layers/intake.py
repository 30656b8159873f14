"""Reads what is asked, once, for every layer further in.

Decides: whether the body is one JSON-RPC message (or a batch, where the revision has them) in JSON with one reading,
within bounds, and whether the fields that mirror it agree. Refuses with `media_type` and `content_encoding` (415),
`body_too_large` (413), `body_timeout` (408), `header_repeated`, `framing_ambiguous`, `body_not_json`, `not_json_rpc`,
`batch`, `revision` and `header_body_mismatch` (400), each with the id of the request where it can be read. Does not:
judge what is asked. Must stand after: token, so that nothing is read for a stranger; before: every layer that needs the
call.

The body reaches the app byte for byte. What MCP 2026-07-28 has no use for is hidden from its app: session ids and the
ids of events. Answers to calls are never stored by caches.
"""

import asyncio
import re
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import Check
from mcp_guard.facts import Call
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission, BodyTooLarge, RequestHead
from mcp_guard.protocol.mcp import REVISIONS, Headers, bodiless_call, read_call
from mcp_guard.protocol.strict_json import MAX_DEPTH_SETTING, JsonError, loads

BODILESS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS"})
LEGACY_FIELDS = frozenset({b"last-event-id", b"mcp-session-id"})
MAX_DIGITS = 19
"""Of a length; more is more than anybody can send."""
NOTHING: frozenset[bytes] = frozenset()
READ = LEGACY_FIELDS | {
    b"content-encoding",
    b"content-length",
    b"content-type",
    b"mcp-method",
    b"mcp-name",
    b"mcp-protocol-version",
}
NOT_STORED: RawHeaders = [(b"cache-control", b"no-store, no-transform")]
IDENTITY_ALONE: RawHeaders = [(b"accept-encoding", b"identity")]

_JSON = re.compile(rb'application/json[ \t]*(?:;[ \t]*charset=(?:utf-8|"utf-8")[ \t]*)?', re.IGNORECASE)


@dataclass(frozen=True)
class Intake(Check):
    """`max_depth` is the number of arrays and objects inside each other; `body_timeout` is for the whole body.

    `revisions` are those the deployment serves, of `mcp_guard.protocol.mcp.REVISIONS`; others are refused with 400.
    """

    adds = (Call,)

    max_body_bytes: int = 4 * 1024 * 1024
    max_depth: int = 64
    body_timeout: timedelta = timedelta(seconds=30)
    revisions: tuple[str, ...] = REVISIONS

    def __post_init__(self) -> None:
        if self.max_body_bytes < 1:
            raise ConfigurationError(f"max_body_bytes must be at least 1, not {self.max_body_bytes}")
        if not 1 <= self.max_depth <= MAX_DEPTH_SETTING:
            raise ConfigurationError(f"max_depth must be from 1 to {MAX_DEPTH_SETTING}, not {self.max_depth}")
        if self.body_timeout <= timedelta(0):
            raise ConfigurationError(f"body_timeout must be positive, not {self.body_timeout}")
        if not self.revisions or not set(self.revisions).issubset(REVISIONS):
            raise ConfigurationError(f"revisions must be some of {', '.join(REVISIONS)}, not {self.revisions!r}")

    async def admit(self, request: RequestHead) -> Admission:
        fields = read_fields(request)
        if request.method in BODILESS:
            call = await self._without_body(request, fields)
        else:
            call = await self._with_body(request, fields)
        return Admission((call,), NOT_STORED, hide=LEGACY_FIELDS if call.modern else NOTHING)

    async def _without_body(self, request: RequestHead, fields: dict[bytes, bytes]) -> Call:
        try:
            body = await self._read(request, 0)
        except BodyTooLarge:
            raise rejections.FRAMING_AMBIGUOUS.because(
                f"{request.method} has a body (RFC 9110 §9.3.1)", closing(request)
            ) from None
        check_whole(request, fields, body)
        return bodiless_call(mirrored(fields, b"mcp-protocol-version"), self.revisions)

    async def _with_body(self, request: RequestHead, fields: dict[bytes, bytes]) -> Call:
        check_media_type(fields)
        try:
            self._check_length(fields.get(b"content-length"))
            body = await self._read(request, self.max_body_bytes)
        except BodyTooLarge:
            raise rejections.BODY_TOO_LARGE.because(
                f"the body is larger than {self.max_body_bytes} bytes", closing(request)
            ) from None
        check_whole(request, fields, body)
        try:
            value = loads(body, max_depth=self.max_depth)
        except JsonError as fault:
            raise rejections.BODY_NOT_JSON.because(f"the body {fault.reason}") from None
        headers = Headers(
            mirrored(fields, b"mcp-protocol-version"), mirrored(fields, b"mcp-method"), mirrored(fields, b"mcp-name")
        )
        return read_call(value, headers, self.revisions)

    def _check_length(self, announced: bytes | None) -> None:
        """Refuse what is announced to be too large before any of it is read.

        Raises:
            BodyTooLarge: it is.
            Rejection: the announcement is no plain number.
        """
        if announced is None:
            return
        if not announced.isdigit():
            raise rejections.FRAMING_AMBIGUOUS.because("Content-Length is not a plain number")
        if len(announced) > MAX_DIGITS or int(announced) > self.max_body_bytes:
            raise BodyTooLarge

    async def _read(self, request: RequestHead, limit_bytes: int) -> bytes:
        try:
            return await in_time(request.body(limit_bytes), self.body_timeout.total_seconds())
        except TimeoutError:
            raise rejections.BODY_TIMEOUT.because(
                f"the body did not arrive within {self.body_timeout}", closing(request)
            ) from None


def read_fields(request: RequestHead) -> dict[bytes, bytes]:
    """The fields, of which those that this layer reads have one value.

    Raises:
        Rejection: one of them is repeated.
    """
    if len(request.fields) < len(request.headers):
        for name in READ.intersection(request.fields):
            if len(request.values(name)) > 1:
                raise rejections.HEADER_REPEATED.because(f"more than one {name.decode()} field")
    return request.fields


def mirrored(fields: dict[bytes, bytes], name: bytes) -> str | None:
    """A field's value without the blanks around it, which are no part of it (RFC 9110 §5.5)."""
    value = fields.get(name)
    return None if value is None else value.decode("latin-1").strip(" \t")


def check_media_type(fields: dict[bytes, bytes]) -> None:
    """Refuse what is not plain UTF-8 JSON; among it all that a page can send without a preflight.

    Raises:
        Rejection: `media_type` or `content_encoding`.
    """
    content_type = fields.get(b"content-type")
    if content_type != b"application/json" and (content_type is None or _JSON.fullmatch(content_type) is None):
        raise rejections.MEDIA_TYPE.because("the Content-Type is not application/json in UTF-8")
    encoding = fields.get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise rejections.ENCODING.because("the body is encoded", IDENTITY_ALONE)


def check_whole(request: RequestHead, fields: dict[bytes, bytes], body: bytes) -> None:
    """Refuse a body of another length than was announced (RFC 9112 §6.3, RFC 9113 §8.1.1), whatever the server lets by.

    Raises:
        Rejection: `framing_ambiguous`.
    """
    announced = fields.get(b"content-length")
    if announced is not None and not is_length(announced, len(body)):
        raise rejections.FRAMING_AMBIGUOUS.because("Content-Length is not the length of the body", closing(request))


def is_length(announced: bytes, length: int) -> bool:
    return announced.isdigit() and len(announced) <= MAX_DIGITS and int(announced) == length


def closing(request: RequestHead) -> RawHeaders:
    """Says that the connection ends, since the rest of the body is not read; HTTP/2 has no field for it."""
    return [(b"connection", b"close")] if request.scope.get("http_version", "1.1").startswith("1.") else []


async def in_time(work: Coroutine[Any, Any, bytes], seconds: float) -> bytes:
    """The result of `work`, given up after `seconds`.

    Mostly the body is there already and `work` never waits, so the clock is set only once it does.

    Raises:
        TimeoutError: it took longer.
    """
    try:
        waiting = work.send(None)
    except StopIteration as done:
        result: bytes = done.value
        return result
    # No anyio scope: one inside `work` may be open by now, and scopes must end in the reverse order of their beginning.
    async with asyncio.timeout(seconds):
        return await Begun(work, waiting)


@dataclass(slots=True)
class Begun(Generator[Any, Any, bytes]):
    """A coroutine that was begun by hand and now waits for `waiting`; awaiting it goes on from there."""

    work: Coroutine[Any, Any, bytes]
    waiting: Any
    told: bool = False

    def __await__(self) -> Generator[Any, Any, bytes]:
        return self

    def send(self, value: Any) -> Any:
        if not self.told:
            self.told = True
            return self.waiting
        return self.work.send(value)

    def throw(self, *fault: Any) -> Any:
        return self.work.throw(*fault)
