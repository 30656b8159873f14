"""HTTP+SSE (2024-11-05): the stream, the endpoint it names, and messages posted there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from pytest_mcp_conformance import mcp
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Event, Exchange, Header, Request
from pytest_mcp_conformance.failures import Inconclusive
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.wire import STREAM_SECONDS, EventStream


@dataclass(frozen=True, repr=False)
class SseSession:
    """An open stream. `endpoint` is the absolute URL its first event named; messages posted there are answered here."""

    opened: Exchange
    endpoint: str
    stream: EventStream
    probe: Probe

    def post(self, message: mcp.Message, credential: Credential | None, *headers: Header) -> Exchange:
        """POST a message to the endpoint with a credential; the exchange is the POST's own (202 when taken)."""
        extra = (*(() if credential is None else (credential.header,)), *headers)
        return self.probe.send(message.request(self.endpoint, *extra))

    def next_message(self, within_seconds: float = STREAM_SECONDS) -> dict[str, Any] | None:
        """The next JSON-RPC message on the stream; None when none came in time."""
        event = self.stream.next_event(within_seconds)
        return None if event is None else _as_object(event)

    def ask(self, message: mcp.Message, credential: Credential | None) -> dict[str, Any] | None:
        """Post a request and wait for its answer on the stream; None when it was refused or not answered in time."""
        if not self.post(message, credential).succeeded:
            return None
        while (answer := self.next_message()) is not None:
            if answer.get("id") == message.payload.get("id"):
                return answer
        return None

    def begin(self, credential: Credential | None, revision: str = "2024-11-05") -> dict[str, Any] | None:
        """The handshake; its answer, or None."""
        answer = self.ask(mcp.sse("initialize", mcp.initialize(revision).payload["params"]), credential)
        if answer is not None:
            self.post(mcp.sse("notifications/initialized", request_id=None), credential)
        return answer


@contextmanager
def open_sse(probe: Probe, url: str, credential: Credential | None) -> Iterator[SseSession]:
    """Open the stream at `url` and read the endpoint event.

    Raises:
        Inconclusive: no stream, no endpoint event, or one that names another origin.
    """
    headers = (("Accept", "text/event-stream"), *(() if credential is None else (credential.header,)))
    with probe.stream(Request("GET", url, headers)) as (exchange, stream):
        event = stream.next_event()
        if exchange.status != 200 or event is None or event.event != "endpoint":
            raise Inconclusive(f"the stream did not begin with an endpoint event: {exchange.summary}")
        endpoint = urljoin(url, event.data)
        if urlsplit(endpoint)[:2] != urlsplit(url)[:2]:
            raise Inconclusive("the endpoint event names another origin, which was not contacted")
        for value in (pair.partition("=")[2] for pair in urlsplit(endpoint).query.split("&")):
            probe.secrets.add(value, "STREAM")
        yield SseSession(exchange, endpoint, stream, probe)


def _as_object(event: Event) -> dict[str, Any] | None:
    try:
        value = json.loads(event.data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
