"""The SDK's own client answers the questions of the SDK's own server through two guarded workers with one key ring.

The attacks ses-22 to ses-24 of the corpus are fired here: they need a server that asks, a clock, and two workers.
"""

import itertools
import json
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

import anyio
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
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.clock import Clock, ManualClock, SystemClock
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.bridge import Bridge
from mcp_guard.layers.intake import Intake
from mcp_guard.layers.request_state import RequestState
from mcp_guard.protocol import b64url
from mcp_guard.stack import guard
from mcp_guard.stores.base import Store
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.stores.valkey import ValkeyStore
from tests.guard.stubs import Facts
from tests.support.serving import serving
from tests.support.valkey_server import shared_server

SYSTEM_CLOCK: Clock = SystemClock()
MODERN = "2026-07-28"
UNCHECKED = TransportSecuritySettings(enable_dns_rebinding_protection=False)


class Sure(BaseModel):
    sure: bool


@dataclass
class Workers:
    """Two processes' worth of one server: what each was asked, and what was paid."""

    urls: list[str] = field(default_factory=list)
    paid: list[int] = field(default_factory=list)
    refunded: list[int] = field(default_factory=list)
    audit: MemorySink = field(default_factory=MemorySink)
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

        @server.tool()
        def refund(amount: int, answer: Annotated[Sure, Resolve(ask)]) -> str:
            """Pay back, after asking."""
            self.refunded.append(amount)
            return f"refunded {amount}: {answer.sure}"

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

        return httpx2.AsyncClient(headers={"x-as": who}, timeout=30, event_hooks={"request": [spread]})


def at_any(app: ASGIApp, url: str) -> ASGIApp:
    return app


def in_valkey() -> Callable[[], Store]:
    """Makes stores that share what they keep, each for the event loop of one worker.

    The deadline leaves room for a machine under load: a store that is too late refuses the one that should pass, too.
    """
    prefix = f"{secrets.token_hex(8)}:"
    return lambda: ValkeyStore(shared_server().url, prefix=prefix, deadline=timedelta(seconds=10))


@contextmanager
def two_workers(
    ring: KeyRing,
    *,
    share: bool = True,
    rings: Sequence[KeyRing] = (),
    store: Callable[[], Store] = MemoryStore,
    clock: Clock = SYSTEM_CLOCK,
    single_use: frozenset[str] = frozenset(),
) -> Iterator[Workers]:
    """Two workers with one ring, or with `rings`; they `share` the SDK's key or each makes its own."""
    workers = Workers()
    with ExitStack() as until_closed:
        for own in rings or (ring, ring):
            security = RequestStateSecurity(keys=ring.derive("sdk request state")) if share else None
            state = RequestState(ring=own, single_use=single_use, store=store(), clock=clock)
            layers = (Audit(AuditLog(workers.audit)), Facts(), Intake(), state, Bridge())
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
    with two_workers(KeyRing.generate()) as workers:
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


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_ses_22_a_retry_with_the_state_of_another_is_refused(who: str) -> None:
    with two_workers(KeyRing.generate()) as workers:
        await pay(workers)
        again = await resent(workers.urls[0], workers.retry, who)
    assert again.status_code == (200 if who == "alice" else 400)
    assert len(workers.paid) == (2 if who == "alice" else 1)


def altered(text: str, rng: random.Random) -> Iterator[str]:
    """The seal with one bit changed, at fifty places; and cut, lengthened, and much too long."""
    data = b64url.decode(text)
    for place in rng.sample(range(len(data) * 8), 50):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        yield b64url.encode(bytes(changed))
    yield from (text[:-1], text + "A", text[1:], "A" * 1_000_000)


async def test_ses_23_a_state_that_is_altered_or_used_elsewhere_pays_nothing() -> None:
    with two_workers(KeyRing.generate()) as workers:
        await pay(workers)
        retry, params = workers.retry, workers.retry["params"]
        state = params["requestState"]
        given = [{**params, "requestState": other} for other in altered(state, random.Random(7))]
        given += [{**params, "name": "refund"}, {**params, "arguments": {"amount": 4}}]
        answers = [await resent(workers.urls[0], {**retry, "params": one}) for one in given]
        await are_refused(workers, answers)
        assert (await resent(workers.urls[0], retry)).status_code == 200, "the state itself is good"
    assert workers.paid == [3, 3]
    assert workers.refunded == []


async def test_ses_23_a_state_past_its_time_pays_nothing() -> None:
    clock = ManualClock()
    with two_workers(KeyRing.generate(), clock=clock) as workers:
        await pay(workers)
        clock.advance(599)
        assert (await resent(workers.urls[0], workers.retry)).status_code == 200
        clock.advance(1)
        await are_refused(workers, [await resent(url, workers.retry) for url in workers.urls])
    assert workers.paid == [3, 3]
    assert "expired" in workers.audit.records()[-1]["reason"]


async def test_ses_23_a_state_of_a_key_that_left_the_ring_pays_nothing() -> None:
    old, new = KeyRing.generate(), KeyRing.generate()
    with two_workers(old, rings=(old, old)) as before:
        await pay(before)
    with two_workers(old, rings=(KeyRing(new.keys + old.keys), new)) as after:
        assert (await resent(after.urls[0], before.retry)).status_code == 200, "a key in the ring opens"
        await are_refused(after, [await resent(after.urls[1], before.retry)])
    assert after.paid == [3]


async def are_refused(workers: Workers, answers: Sequence[httpx2.Response]) -> None:
    """All in the one way; why is in the audit alone."""
    error = {"code": -32602, "message": "Invalid or expired requestState"}
    for answer in answers:
        assert answer.status_code == 400
        assert answer.json()["error"] == error
    records = workers.audit.records()[-len(answers) :]
    assert {record["verdict"] for record in records} == {"state_invalid"}
    assert all(record["reason"].startswith("requestState ") for record in records)


async def test_a_question_that_may_be_answered_once_is() -> None:
    with two_workers(KeyRing.generate(), store=in_valkey(), single_use=frozenset({"pay"})) as workers:
        assert await pay(workers) == "paid 3: True"
        await are_refused(workers, [await resent(url, workers.retry) for url in workers.urls])
    assert workers.paid == [3]


async def test_ses_24_of_twenty_retries_at_once_over_two_workers_one_pays() -> None:
    with two_workers(KeyRing.generate(), store=in_valkey(), single_use=frozenset({"pay"})) as workers:
        for _ in range(10):
            retry = await asked(workers)
            answers: list[int] = []

            async def again(url: str, retry: Any = retry, answers: list[int] = answers) -> None:
                answers.append((await resent(url, retry)).status_code)

            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(again, workers.urls[number % 2])
            assert sorted(answers) == [200] + [400] * 19
    assert workers.paid == [3] * 10


async def asked(workers: Workers) -> dict[str, Any]:
    """A call that was answered with a question, and the answer to it: a retry that was not sent yet."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    }
    params = {"name": "pay", "arguments": {"amount": 3}, "_meta": meta}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    result = (await resent(workers.urls[0], call)).json()["result"]
    answers = {key: {"action": "accept", "content": {"sure": True}} for key in result["inputRequests"]}
    return {**call, "params": {**params, "inputResponses": answers, "requestState": result["requestState"]}}


async def resent(url: str, body: dict[str, Any], who: str = "alice") -> httpx2.Response:
    """The same request again, by `who`."""
    fields = {
        "x-as": who,
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": body["method"],
        "mcp-name": body["params"]["name"],
    }
    # The certificates of the world would be read anew for each client.
    async with httpx2.AsyncClient(verify=False, timeout=30) as http:
        return await http.post(url, json=body, headers=fields)
