"""The SDK's own client answers the questions of the SDK's own server through two guarded workers with one key ring."""

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Elicit, MCPServer, RequestStateSecurity, Resolve
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.types import ElicitRequestParams, ElicitResult
from pydantic import BaseModel

from mcp_guard.asgi import ASGIApp
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.bridge import Bridge
from mcp_guard.layers.intake import Intake
from mcp_guard.layers.request_state import RequestState
from mcp_guard.stack import guard
from mcp_guard.stores.memory import MemoryStore
from tests.guard.stubs import Facts
from tests.support.serving import serving

MODERN = "2026-07-28"
UNCHECKED = TransportSecuritySettings(enable_dns_rebinding_protection=False)


class Sure(BaseModel):
    sure: bool


@dataclass
class Workers:
    """Two processes' worth of one server: what each was asked, and what was paid."""

    urls: list[str] = field(default_factory=list)
    paid: list[int] = field(default_factory=list)
    requests: list[tuple[str, Any]] = field(default_factory=list)

    def server(self, security: RequestStateSecurity | None) -> ASGIApp:
        """A server that asks before it pays."""
        server = MCPServer("shop", request_state_security=security, log_level="CRITICAL")

        async def ask(amount: int) -> Elicit[Sure]:
            return Elicit(f"Pay {amount}?", Sure)

        @server.tool()
        def pay(amount: int, answer: Annotated[Sure, Resolve(ask)]) -> str:
            """Pay, after asking."""
            self.paid.append(amount)
            return f"paid {amount}: {answer.sure}"

        return server.streamable_http_app(transport_security=UNCHECKED)

    @property
    def retry(self) -> Any:
        """The last request that a state came back with."""
        return [body for _, body in self.requests if body["params"].get("requestState")][-1]

    def http(self, who: str = "alice") -> httpx2.AsyncClient:
        """A client whose requests go to the workers in turn."""
        turns = itertools.cycle(self.urls)

        async def spread(request: httpx2.Request) -> None:
            url = next(turns)
            request.url = httpx2.URL(url)
            self.requests.append((url, json.loads(request.content or b"null")))

        return httpx2.AsyncClient(headers={"x-as": who}, event_hooks={"request": [spread]})


def at_any(app: ASGIApp, url: str) -> ASGIApp:
    return app


@contextmanager
def two_workers(ring: KeyRing, *, share: bool, single_use: frozenset[str] = frozenset()) -> Iterator[Workers]:
    workers, store = Workers(), MemoryStore()
    with ExitStack() as until_closed:
        for _ in range(2):
            security = RequestStateSecurity(keys=ring.derive("sdk request state")) if share else None
            layers = (Facts(), Intake(), RequestState(ring=ring, single_use=single_use, store=store), Bridge())
            app = guard(workers.server(security), *layers)
            workers.urls.append(f"{until_closed.enter_context(serving(partial(at_any, app))).url}/mcp")
        yield workers


async def pay(workers: Workers, who: str = "alice") -> str:
    """A call that is asked about, through the SDK's client: its result, or why there is none."""

    async def confirm(context: Any, params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult(action="accept", content={"sure": True})

    async with (
        workers.http(who) as http,
        Client(
            streamable_http_client(workers.urls[0], http_client=http), mode=MODERN, elicitation_callback=confirm
        ) as client,
    ):
        try:
            result = await client.call_tool("pay", {"amount": 3})
        except MCPError as error:
            return error.message
    text: str = result.content[0].text  # type: ignore[union-attr]
    return text


async def test_a_question_is_asked_by_one_worker_and_its_answer_taken_by_the_other() -> None:
    with two_workers(KeyRing.generate(), share=True) as workers:
        assert await pay(workers) == "paid 3: True"
    calls = [(url, body) for url, body in workers.requests if body["method"] == "tools/call"]
    assert [url for url, _ in calls[-2:]] in (workers.urls, workers.urls[::-1])
    states = [body["params"].get("requestState") for _, body in calls]
    assert states[0] is None
    assert states[1] is not None
    assert not states[1].startswith("v1."), "the SDK's own seal is inside of ours"


async def test_servers_that_do_not_share_their_own_key_fail_each_others_clients() -> None:
    """Why the guide says to give the SDK a key: our seal opens on both workers, the SDK's inside of it on one."""
    with two_workers(KeyRing.generate(), share=False) as workers:
        assert await pay(workers) == "Invalid or expired requestState"
    assert workers.paid == []


async def test_a_question_that_may_be_answered_once_is() -> None:
    with two_workers(KeyRing.generate(), share=True, single_use=frozenset({"pay"})) as workers:
        assert await pay(workers) == "paid 3: True"
        for url in workers.urls:
            again = await resent(url, workers.retry)
            assert (again.status_code, again.json()["error"]["code"]) == (400, -32602)
    assert workers.paid == [3]


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_ses_22_a_retry_with_the_state_of_another_is_refused(who: str) -> None:
    with two_workers(KeyRing.generate(), share=True) as workers:
        await pay(workers)
        again = await resent(workers.urls[0], workers.retry, who)
    assert again.status_code == (200 if who == "alice" else 400)
    assert len(workers.paid) == (2 if who == "alice" else 1)


async def resent(url: str, body: dict[str, Any], who: str = "alice") -> httpx2.Response:
    """The same request again, by `who`."""
    fields = {
        "x-as": who,
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": body["method"],
        "mcp-name": body["params"]["name"],
    }
    async with httpx2.AsyncClient() as http:
        return await http.post(url, json=body, headers=fields)
