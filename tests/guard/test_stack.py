"""The stack: the order of its layers, and the lifespan of what they depend on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from mcp_guard.asgi import Message, Receive, Scope, Send
from mcp_guard.auditlog import AuditLog, FileSink, MemorySink
from mcp_guard.check import Check, Layer, compile_layers
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.layer import Managed
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.bridge import Bridge
from mcp_guard.layers.rate_limit import RateLimit
from mcp_guard.layers.session import Session
from mcp_guard.layers.shield import Shield
from mcp_guard.sessions import SessionTerms
from mcp_guard.stack import check_order, guard
from tests.guard.asgi import Client, CountingApp, Lifespan, drive, http_scope, websocket_scope
from tests.guard.stubs import CountingStore, Facts, Says


@dataclass(eq=False)
class Dependency:
    """Something that is started and closed; notes it in `events`."""

    name: str
    events: list[str]
    faults: list[Exception] = field(default_factory=list)
    close_fault: Exception | None = None

    async def start(self) -> None:
        self.events.append(f"start {self.name}")
        if self.faults:
            raise self.faults.pop(0)

    async def close(self) -> None:
        self.events.append(f"close {self.name}")
        if self.close_fault is not None:
            raise self.close_fault


@dataclass(frozen=True)
class Depends(Says):
    """A layer that depends on `on`."""

    on: tuple[Managed, ...] = ()

    def managed(self) -> Sequence[Managed]:
        return self.on


async def lifespan_app(scope: Scope, receive: Receive, send: Send) -> None:
    """An app with a lifespan of its own."""
    assert scope["type"] == "lifespan"
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})


# Order


def test_a_layer_before_the_one_it_needs_is_refused_by_both_names(app: CountingApp, store: CountingStore) -> None:
    with pytest.raises(ConfigurationError, match=r"^Session needs Principal, which Facts adds: put Facts before Sess"):
        guard(app, Session(store=store), Facts())


def test_a_layer_whose_need_no_layer_meets_is_refused(app: CountingApp, store: CountingStore) -> None:
    with pytest.raises(ConfigurationError, match=r"^RateLimit needs Principal, which no layer of the stack adds$"):
        guard(app, Audit(), RateLimit(store=store))


def test_an_empty_stack_is_refused(app: CountingApp) -> None:
    with pytest.raises(ConfigurationError, match="at least one layer"):
        guard(app)


def test_a_right_order_is_accepted(store: CountingStore) -> None:
    check_order((Audit(), Facts(), Shield(), RateLimit(store=store), Session(store=store), Bridge()))


def test_a_layer_does_not_meet_its_own_need() -> None:
    class Selfish(Says):
        needs = (str,)
        adds = (str,)

    with pytest.raises(ConfigurationError, match="Selfish needs str, which no layer"):
        check_order((Selfish(),))


def test_a_layer_that_is_no_check_is_refused(app: CountingApp) -> None:
    class Odd(Layer):
        """A layer that cannot decide."""

    with pytest.raises(ConfigurationError, match="Odd is neither a Check nor a StatefulCheck"):
        compile_layers((Odd(),), app)


def test_a_check_without_a_decision_cannot_be_made() -> None:
    class Undecided(Check):
        """Forgets to decide."""

    with pytest.raises(TypeError, match="admit"):
        Undecided()  # type: ignore[abstract]


# Lifespan


async def test_dependencies_start_before_the_app_in_order_and_close_in_reverse_after_it() -> None:
    events: list[str] = []
    a, b = Dependency("a", events), Dependency("b", events)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        events.append("app up")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        events.append("app down")
        await send({"type": "lifespan.shutdown.complete"})

    kinds = await Lifespan().pass_by(guard(app, Depends(on=(a, b)), Depends(on=(b,))))

    assert kinds == ["startup.complete", "shutdown.complete"]
    assert events == ["start a", "start b", "app up", "app down", "close b", "close a"]


async def test_dependencies_are_closed_before_the_server_hears_that_the_shutdown_is_complete() -> None:
    events: list[str] = []
    lifespan = Lifespan()

    async def send(message: Message) -> None:
        events.append(message["type"])

    lifespan.ending.set()
    guarded = guard(lifespan_app, Depends(on=(Dependency("a", events),)))
    await guarded({"type": "lifespan"}, lifespan.receive, send)
    assert events == ["start a", "lifespan.startup.complete", "close a", "lifespan.shutdown.complete"]


@pytest.mark.parametrize(
    "fault", [StoreUnavailable("no connection"), ConfigurationError("url: not one"), ZeroDivisionError("a defect")]
)
async def test_a_dependency_that_cannot_start_fails_the_startup(fault: Exception) -> None:
    events: list[str] = []
    a, b = Dependency("a", events), Dependency("b", events, faults=[fault])
    reached: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["type"])

    lifespan = Lifespan()
    await lifespan.pass_by(guard(app, Depends(on=(a, b))))

    assert lifespan.sent == [{"type": "lifespan.startup.failed", "message": str(fault)}]
    assert events == ["start a", "start b", "close a"]
    assert reached == []


async def test_a_startup_of_the_app_that_fails_is_passed_on_and_dependencies_are_closed() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    lifespan = Lifespan()
    await lifespan.pass_by(guard(app, Depends(on=(Dependency("a", events),))))
    assert lifespan.sent == [{"type": "lifespan.startup.failed", "message": "no database"}]
    assert events == ["start a", "close a"]


async def test_an_app_that_dies_within_its_lifespan_is_not_hidden() -> None:
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise ZeroDivisionError("a defect")

    lifespan = Lifespan()
    with pytest.raises(ZeroDivisionError):
        await lifespan.pass_by(guard(app, Depends(on=(Dependency("a", events),))))
    assert events == ["start a", "close a"]


async def raises_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("http alone")


async def raises_after_receive(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    raise RuntimeError(f"not a request: {message['type']}")


async def says_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    return


@pytest.mark.parametrize("app", [raises_at_once, raises_after_receive, says_nothing])
async def test_an_app_without_a_lifespan_is_served_and_its_dependencies_are_closed(app: Any) -> None:
    events: list[str] = []
    kinds = await Lifespan().pass_by(guard(app, Depends(on=(Dependency("a", events),))))
    assert kinds == ["startup.complete", "shutdown.complete"]
    assert events == ["start a", "close a"]


async def test_one_that_fails_to_close_keeps_no_other_open(caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []
    a, b = Dependency("a", events), Dependency("b", events, close_fault=OSError("gone"))
    with caplog.at_level(logging.ERROR, "mcp_guard"):
        kinds = await Lifespan().pass_by(guard(lifespan_app, Depends(on=(a, b))))
    assert kinds == ["startup.complete", "shutdown.complete"]
    assert events[-2:] == ["close b", "close a"]
    assert "closing Dependency failed" in caplog.text


async def test_layers_wrapped_one_by_one_start_and_close_what_they_share() -> None:
    events: list[str] = []
    shared = Dependency("shared", events)
    inner = Depends(on=(shared,)).wrap(lifespan_app)
    kinds = await Lifespan().pass_by(Depends(on=(Dependency("own", events), shared)).wrap(inner))
    assert kinds == ["startup.complete", "shutdown.complete"]
    assert events[:3] == ["start own", "start shared", "start shared"]
    assert events[-1] == "close own"


# Without a lifespan


async def test_without_a_lifespan_the_first_request_starts_the_dependencies_once(app: CountingApp) -> None:
    events: list[str] = []
    guarded = guard(app, Depends(on=(Dependency("a", events),)))
    mounted = Starlette(routes=[Mount("/", guarded)])

    for _ in range(3):
        assert (await drive(mounted)).status == 200
    assert events == ["start a"]


async def test_requests_at_the_same_time_start_the_dependencies_once(app: CountingApp) -> None:
    events: list[str] = []

    class Slow(Dependency):
        async def start(self) -> None:
            await super().start()
            await anyio.sleep(0.01)

    guarded = guard(app, Depends(on=(Slow("a", events),)))
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(drive, guarded)
    assert events == ["start a"]
    assert app.calls == 10


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (StoreUnavailable("no connection"), "no connection"),
        (ConfigurationError("url: not one"), "the guard cannot be started"),
        (OSError("a defect"), "the guard cannot be started"),
    ],
)
async def test_while_it_cannot_start_every_request_is_refused_and_audited_and_then_served(
    fault: Exception, reason: str, app: CountingApp, sink: MemorySink
) -> None:
    events: list[str] = []
    b = Dependency("b", events, faults=[fault, fault])
    guarded = guard(app, Audit(AuditLog(sink)), Depends(on=(Dependency("a", events), b)))

    refused = await drive(guarded)
    assert (refused.status, refused.value(b"retry-after")) == (503, b"1")
    closed = await drive(guarded, websocket_scope())
    assert [message["type"] for message in closed.sent] == ["websocket.close"]
    assert app.calls == 0
    served = await drive(guarded)

    assert served.status == 200
    assert events == ["start a", "start b", "start b", "start b"]
    assert [record["verdict"] for record in sink.records()] == ["unavailable", "unavailable", "allowed"]
    assert sink.records()[0]["reason"] == reason


async def test_an_audit_file_that_cannot_be_opened_refuses_every_request(app: CountingApp, tmp_path: Any) -> None:
    guarded = guard(app, Audit(AuditLog(FileSink(tmp_path / "absent" / "audit.jsonl"))))
    assert (await drive(guarded)).status == 503
    assert app.calls == 0


async def test_close_without_a_lifespan_closes_what_was_started() -> None:
    events: list[str] = []
    guarded = guard(CountingApp(), Depends(on=(Dependency("a", events),)))
    await guarded.close()
    await guarded.start()
    await guarded.start()
    await guarded.close()
    await guarded.close()
    assert events == ["start a", "close a"]


async def test_a_lifespan_reaches_the_app_with_every_message() -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(await receive())
        await send({"type": "lifespan.startup.complete"})
        heard.append(await receive())
        await send({"type": "lifespan.shutdown.complete"})

    await Lifespan().pass_by(guard(app, Says()))
    assert [message["type"] for message in heard] == ["lifespan.startup", "lifespan.shutdown"]


async def test_the_store_of_stateful_layers_belongs_to_the_stack(app: CountingApp) -> None:
    starts: list[str] = []

    class Starting(CountingStore):
        async def start(self) -> None:
            starts.append("start")

    store = Starting()
    layers = (Facts(), RateLimit(store=store), Session(store=store, terms=SessionTerms(ttl=timedelta(minutes=1))))
    await guard(app, *layers).start()
    assert starts == ["start"]


async def test_a_guard_answers_while_the_client_waits(app: CountingApp) -> None:
    client = Client([b"x"])
    await guard(app, Says())(http_scope(), client.receive, client.send)
    assert not client.gone.is_set()
