"""One request and its answer, as it went over the wire: what every judgement rests on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pytest_mcp_conformance.challenges import Challenge, parse_challenges
from pytest_mcp_conformance.redaction import Secrets

Header = tuple[str, str | bytes]


@dataclass(frozen=True)
class Request:
    """A request to write as it stands. Nothing is normalised, validated or escaped.

    Attributes:
        url: absolute http or https URL; says where to connect, and the request target unless `raw_target` is given.
        headers: in order, duplicates kept. `Host`, `Content-Length` and `User-Agent` are added when absent (case-
        blind). body: the payload; None for no body. chunks: sent with `Transfer-Encoding: chunked` in place of
        `body`. raw_target: bytes to put on the request line in place of the URL's path and query. omit: lower-case
        names of headers not to add (`host`, `content-length`, `user-agent`).
    """

    method: str
    url: str
    headers: tuple[Header, ...] = ()
    body: bytes | None = None
    chunks: tuple[bytes, ...] | None = None
    raw_target: bytes | None = None
    omit: frozenset[str] = frozenset()

    def with_headers(self, *extra: Header) -> Request:
        """The same request with `extra` in place of every header of the same names."""
        names = {name.lower() for name, _ in extra}
        kept = tuple(pair for pair in self.headers if pair[0].lower() not in names)
        return replace(self, headers=(*kept, *extra))

    def adding(self, *extra: Header) -> Request:
        """The same request with `extra` after its headers; repeated names stay repeated."""
        return replace(self, headers=(*self.headers, *extra))

    def without(self, *names: str) -> Request:
        """The same request without the headers of these names."""
        lowered = {name.lower() for name in names}
        return replace(self, headers=tuple(pair for pair in self.headers if pair[0].lower() not in lowered))


@dataclass(frozen=True)
class Response:
    """What came back. `body` is cut at the probe's cap; `cut` says why it is incomplete, or is empty."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    cut: str = ""


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    event: str
    data: str
    id: str = ""


@dataclass(frozen=True)
class Exchange:
    """A request and its answer. `response` is None when none came; `failure` then says what happened instead."""

    number: int
    request: Request
    response: Response | None
    failure: str = ""
    elapsed_seconds: float = 0.0

    @property
    def status(self) -> int:
        """The status code; 0 when the server sent no HTTP response."""
        return 0 if self.response is None else self.response.status

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    @property
    def body(self) -> bytes:
        return b"" if self.response is None else self.response.body

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def header(self, name: str) -> str | None:
        """The first field line of this name, case-blind; None when absent."""
        values = self.header_lines(name)
        return values[0] if values else None

    def header_lines(self, name: str) -> list[str]:
        """Every field line of this name, in order."""
        headers = () if self.response is None else self.response.headers
        return [value for key, value in headers if key.lower() == name.lower()]

    @property
    def media_type(self) -> str:
        """The type of the body, lower case and without parameters; empty when not said."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON; None when it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @cached_property
    def challenges(self) -> tuple[Challenge, ...]:
        """The challenges of every WWW-Authenticate line.

        Raises:
            MalformedChallenge: the field is not in the grammar of RFC 9110 §11.6.1.
        """
        return tuple(parse_challenges(self.header_lines("www-authenticate")))

    def bearer(self) -> Challenge | None:
        """The first Bearer challenge; None when there is none or the field is malformed."""
        try:
            return next((challenge for challenge in self.challenges if challenge.is_bearer()), None)
        except ValueError:
            return None

    def events(self) -> list[Event]:
        """The events of an event-stream body that are complete so far."""
        return list(parse_events(self.text.splitlines()))

    def message(self) -> dict[str, Any] | None:
        """The JSON-RPC response of the body, plain or inside an event stream; None when there is none."""
        if self.media_type == "text/event-stream":
            candidates = [_as_json(event.data) for event in self.events()]
        else:
            candidates = [self.json()]
        for candidate in reversed(candidates):
            if isinstance(candidate, dict) and ("result" in candidate or "error" in candidate):
                return candidate
        return None

    @property
    def rpc_error(self) -> int | None:
        """The code of the JSON-RPC error in the body; None when it holds none."""
        error = (self.message() or {}).get("error")
        code = error.get("code") if isinstance(error, dict) else None
        return code if isinstance(code, int) else None

    @property
    def summary(self) -> str:
        """What came back, for a person: status, error words and media type. Holds no body text."""
        if self.response is None:
            return f"no HTTP response ({self.failure})"
        words = [str(self.status)]
        challenge = self.bearer()
        if challenge is not None:
            words.append(
                f'Bearer error="{challenge.parameters["error"]}"' if "error" in challenge.parameters else "Bearer"
            )
        if self.rpc_error is not None:
            words.append(f"JSON-RPC error {self.rpc_error}")
        elif (self.message() or {}).get("result") is not None:
            words.append("JSON-RPC result")
        if self.media_type:
            words.append(self.media_type)
        return ", ".join(words)

    def curl(self, secrets: Secrets) -> str:
        """A `curl` command that sends the same request, with shell variables in place of secrets."""
        request = self.request
        words = ["curl", "-sS", "-i", "-X", request.method]
        if request.raw_target is not None:
            words += ["--request-target", _printable(request.raw_target)]
        for name, value in request.headers:
            shown = _printable(value)
            words += ["-H", f"{name}: {shown}" if shown else f"{name};"]
        if request.chunks is not None:
            words += ["-H", "Transfer-Encoding: chunked", "--data-binary", _printable(b"".join(request.chunks)[:4000])]
        elif request.body is not None:
            words += ["--data-binary", _printable(request.body[:4000])]
        words.append(request.url)
        return " ".join(secrets.shell_word(word) for word in words)


def parse_events(lines: Sequence[str]) -> Iterator[Event]:
    """Server-sent events of complete lines (WHATWG HTML §9.2.6). An event without its closing blank line is dropped."""
    name, data, identifier = "message", list[str](), ""
    for line in lines:
        if not line:
            if data:
                yield Event(name, "\n".join(data), identifier)
            name, data = "message", []
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data.append(value)
        elif key == "id":
            identifier = value


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _printable(value: str | bytes) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
