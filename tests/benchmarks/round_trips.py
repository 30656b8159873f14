"""B3: what an authorized request costs on Valkey, beside three questions to it one after the other with valkey-py.

Round trips are commands counted on the wire. Loop time is the processor's time of the process that serves, by the
number of requests; in process it includes that of the client, which is next to nothing. On the whole server it is also
told how much later the answer to a single client comes.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path

from mcp_guard.stores.base import Store
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.stores.valkey import ValkeyStore
from tests.benchmarks.in_process import AUTHORITY, URL, Row
from tests.benchmarks.peers import (
    INITIALIZE,
    LEGACY_CALL,
    Exchange,
    Keys,
    Minting,
    after_three_trips,
    bare,
    guarded,
    headers,
    legacy_headers,
)
from tests.benchmarks.whole_server import Slice, in_turn
from tests.support.tcp_proxy import TcpProxy
from tests.support.valkey_server import ValkeyServer, valkey_server

UNBOUNDED = float("inf")
COUNTED = 20
TASKS = 50
REQUESTS = 1_000
ROUNDS = 7
SLICE_SECONDS = 0.6
PATIENT = timedelta(seconds=5)
KINDS = ("echo", "echo-guard", "echo-trips")


async def measure(folder: Path) -> list[Row]:
    """Measure B3; `folder` takes the audit files."""
    with valkey_server() as store:
        return [
            *await on_the_wire(store, folder),
            *await at_once(store, folder),
            *await on_a_server(store, folder),
        ]


async def on_the_wire(store: ValkeyServer, folder: Path) -> list[Row]:
    """Round trips of a request."""
    keys, app = Keys(), Minting()
    token = keys.token(URL)
    with TcpProxy(store.port) as proxy:
        behind_guard = guarded(app, URL, keys, folder / "wire.jsonl", valkey(f"valkey://127.0.0.1:{proxy.port}"))
        await behind_guard.start()
        await Exchange(behind_guard, legacy_headers(AUTHORITY, token, INITIALIZE), 200, INITIALIZE)()
        in_session = legacy_headers(AUTHORITY, token, LEGACY_CALL, app.opened[0])
        calls = {
            "a call": Exchange(behind_guard, headers(AUTHORITY, token), 200),
            "a call in a session": Exchange(behind_guard, in_session, 200, LEGACY_CALL),
        }
        rows: list[Row] = []
        for name, call in calls.items():
            proxy.forget()
            for _ in range(COUNTED):
                await call()
            rows.append(Row(f"B3 round trips of {name}, on the wire", proxy.commands / COUNTED, "", 1.0))
        await behind_guard.close()
    return rows


async def at_once(store: ValkeyServer, folder: Path) -> list[Row]:
    """Loop time of requests that are under way at the same time, in process."""
    keys = Keys()
    fields = headers(AUTHORITY, keys.token(URL))
    stores: dict[str, Store] = {"valkey": valkey(store.url), "memory": MemoryStore()}
    guards = {name: guarded(bare, URL, keys, folder / f"{name}.jsonl", one) for name, one in stores.items()}
    for one in guards.values():
        await one.start()
    calls = {name: Exchange(one, fields, 200) for name, one in guards.items()}
    costs = await loop_time({**calls, "trips": Exchange(after_three_trips(bare, store.url), fields, 200)})
    for one in guards.values():
        await one.close()
    added = costs["valkey"] - costs["memory"]
    return [
        Row(f"B3 loop time of a request on Valkey, {TASKS} at once", costs["valkey"], "µs", 15.0),
        Row("B3 the same with the store in memory", costs["memory"], "µs", UNBOUNDED),
        Row("B3 three trips of valkey-py", costs["trips"], "µs", UNBOUNDED),
        Row("B3 on Valkey / three trips of valkey-py", costs["valkey"] / costs["trips"], "×", UNBOUNDED),
        Row("B3 what Valkey adds / three trips of valkey-py", added / costs["trips"], "×", UNBOUNDED),
    ]


async def on_a_server(store: ValkeyServer, folder: Path) -> list[Row]:
    """What the guard adds on uvicorn against what three trips add: to loop time, and to the time of one client."""
    together = await in_turn(KINDS, folder, store.url, TASKS, SLICE_SECONDS)
    alone = await in_turn(KINDS, folder, store.url, 1, SLICE_SECONDS)
    return [
        Row("B3 guard / three trips on uvicorn, added time", _added(alone, lambda one: 1 / one.rate), "×", 0.4),
        Row("B3 the same in loop time, 50 at once", _added(together, lambda one: one.busy), "×", UNBOUNDED),
    ]


def _added(slices: Mapping[str, list[Slice]], cost: Callable[[Slice], float]) -> float:
    """How much the guard adds to the cost of a request, by how much three trips add."""
    bare, guard, trips = (statistics.median(map(cost, slices[kind])) for kind in KINDS)
    return (guard - bare) / (trips - bare)


async def loop_time(candidates: Mapping[str, Callable[[], Awaitable[None]]]) -> dict[str, float]:
    """The processor's time for one call of each candidate in µs, `TASKS` at once: medians of rounds in turn."""
    costs: dict[str, list[float]] = {name: [] for name in candidates}

    async def work(call: Callable[[], Awaitable[None]]) -> None:
        for _ in range(REQUESTS // TASKS):
            await call()

    for round_ in range(ROUNDS + 1):
        for name, call in candidates.items():
            began = time.process_time()
            await asyncio.gather(*(work(call) for _ in range(TASKS)))
            if round_ > 0:
                costs[name].append((time.process_time() - began) / REQUESTS * 1e6)
    return {name: statistics.median(values) for name, values in costs.items()}


def valkey(url: str) -> ValkeyStore:
    """The store at `url`, which may be slow on a busy machine."""
    return ValkeyStore(url, deadline=PATIENT)
