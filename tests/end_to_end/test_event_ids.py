"""The SDK's own server replays a stream to whom it was sent, from an event store that all sessions share."""

import re
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import NamedTemporaryFile
from typing import Any

import httpx2
import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import JSONRPCMessage

from mcp_guard.check import Layer
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.bridge import Bridge
from mcp_guard.layers.event_ids import EventIds
from mcp_guard.layers.intake import Intake
from mcp_guard.layers.session import Session
from mcp_guard.stack import guard
from mcp_guard.stores.memory import MemoryStore
from tests.guard.stubs import Facts
from tests.house.tree import ROOT
from tests.support.serving import serving

UNCHECKED = TransportSecuritySettings(enable_dns_rebinding_protection=False)
GUIDE = ROOT / "docs" / "how-to" / "resumable-streams.md"
IMPORTS = """from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import principal_components
from mcp.server.streamable_http import EventStore
"""
SECRET = "for alice alone"
IDS = re.compile(r"(?m)^id: (\S+)")


@dataclass
class Events(EventStore):
    """As the SDK's examples have it: one for all sessions, and it asks nothing but the id of an event."""

    kept: list[tuple[str, JSONRPCMessage | None]] = field(default_factory=list)

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self.kept.append((stream_id, message))
        return str(len(self.kept))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if not last_event_id.isdigit() or not 1 <= int(last_event_id) <= len(self.kept):
            return None
        stream = self.kept[int(last_event_id) - 1][0]
        for number, (of, message) in enumerate(self.kept[int(last_event_id) :], start=int(last_event_id) + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


@contextmanager
def served(*inner: Layer, events: EventStore | None = None) -> Iterator[str]:
    """A server whose tool says what it does on the way; behind `inner`."""
    server = MCPServer("notes", log_level="CRITICAL")

    @server.tool()
    async def tell(text: str, ctx: Context[Any, Any]) -> str:
        """Report twice, and answer."""
        await ctx.report_progress(1, 2, f"{text} 1")
        await ctx.report_progress(2, 2, f"{text} 2")
        return text

    app = server.streamable_http_app(transport_security=UNCHECKED, event_store=events or Events())
    layers = (Facts(), Intake(), Session(store=MemoryStore()), *inner, Bridge())
    with serving(lambda url: guard(app, *layers)) as running:
        yield f"{running.url}/mcp"


@dataclass
class Person:
    """Someone with a session."""

    url: str
    name: str
    session: str = ""

    def __post_init__(self) -> None:
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        opened = self.post(1, "initialize", params)
        self.session = opened.headers["mcp-session-id"]

    @property
    def fields(self) -> dict[str, str]:
        known = {"mcp-session-id": self.session} if self.session else {}
        accept = "application/json, text/event-stream"
        return {"x-as": self.name, "accept": accept, "mcp-protocol-version": "2025-11-25", **known}

    def post(self, number: int, method: str, params: dict[str, Any]) -> httpx2.Response:
        body = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        with httpx2.Client(verify=False, timeout=30) as http:
            return http.post(self.url, json=body, headers=self.fields)

    def tell(self, number: int, text: str) -> str:
        """What the stream of a call was."""
        params = {"name": "tell", "arguments": {"text": text}, "_meta": {"progressToken": "p"}}
        return self.post(number, "tools/call", params).text

    def resume(self, event: str, until: str) -> tuple[int, str]:
        """The status, and the stream as far as `until`; a stream stays open after what is replayed."""
        fields = {**self.fields, "last-event-id": event}
        seen = ""
        with httpx2.Client(verify=False, timeout=10) as http, http.stream("GET", self.url, headers=fields) as response:
            try:
                for text in response.iter_text():
                    seen += text
                    if until in seen:
                        break
            except httpx2.ReadTimeout:
                pass
            return response.status_code, seen


def own_events() -> EventStore:
    """The store that the guide shows, word for word."""
    [source] = re.findall(r"```python\n(class OwnEvents.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    with NamedTemporaryFile("w", suffix=".py") as file:
        file.write(IMPORTS + source)
        file.flush()
        made: EventStore = runpy.run_path(file.name)["OwnEvents"](Events)
    return made


def followed(person: Person, text: str = SECRET) -> list[str]:
    """The ids of the events of a call."""
    stream = person.tell(2, text)
    assert stream.count(f"{text} ") == 2
    ids = IDS.findall(stream)
    assert len(ids) == 4
    return ids


def test_the_owner_resumes_from_any_of_its_events() -> None:
    with served(EventIds(ring=KeyRing.generate())) as url:
        alice = Person(url, "alice")
        ids = followed(alice)
        status, replayed = alice.resume(ids[1], '"result"')
    assert status == 200
    assert f"{SECRET} 1" not in replayed
    assert f"{SECRET} 2" in replayed
    assert IDS.findall(replayed) == ids[2:], "the same events have the same ids"


def test_ses_09_the_events_of_another_are_not_replayed() -> None:
    with served(EventIds(ring=KeyRing.generate())) as url:
        alice, bob = Person(url, "alice"), Person(url, "bob")
        ids = followed(alice)
        mac = followed(bob, "of bob")[0].partition(".")[2]
        tried = [*ids, *(event.partition(".")[0] for event in ids), f"5.{mac}", "0", "x"]
        # A client that is answered 404 begins a new session, so each try has one.
        answers = {Person(url, "bob").resume(event, '"result"') for event in tried}
        assert alice.resume(ids[1], '"result"')[0] == 200, "the owner's stream goes on"
    assert {status for status, _ in answers} == {404}, answers
    assert len(answers) == 1, answers


def test_ses_09_the_sdk_alone_replays_them() -> None:
    """The same attack without the layer works: the test above would see it."""
    with served() as url:
        alice, bob = Person(url, "alice"), Person(url, "bob")
        status, replayed = bob.resume(followed(alice)[0], '"result"')
    assert status == 200
    assert SECRET in replayed


@pytest.mark.parametrize("apart", [True, False])
def test_a_store_that_keeps_principals_apart_replays_no_stream_of_the_same_name(apart: bool) -> None:
    """The SDK names streams after request ids: both callers' are `2`."""
    with served(EventIds(ring=KeyRing.generate()), events=own_events() if apart else Events()) as url:
        alice, bob = Person(url, "alice"), Person(url, "bob")
        ids = followed(bob, "of bob")
        followed(alice)
        status, replayed = bob.resume(ids[0], f"{SECRET} 2" if not apart else '"result"')
    assert status == 200
    assert "of bob 2" in replayed
    assert (SECRET in replayed) == (not apart)
