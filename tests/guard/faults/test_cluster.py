"""A cluster moves the slots in use from node to node under load, and then loses a node for a while."""

import time
from collections.abc import Sequence

import pytest
from valkey.crc import key_slot

from tests.guard.faults.deployment import deployed
from tests.guard.faults.places import PATIENT_MS
from tests.guard.faults.rows import found
from tests.guard.faults.run import BEARER, GOOD, STATEFUL, loaded, pass_seconds
from tests.support.valkey_server import ValkeyServer, cluster

pytestmark = pytest.mark.faults
MOVED = 60
"""Slots that are moved: with sessions, limits and claims in them."""


def move(slot: int, source: ValkeyServer, target: ValkeyServer, ids: Sequence[str]) -> None:
    """Move a slot as the operator's tool does, key by key."""
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 10):
        for key in keys:
            source.command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
    for node in (target, source):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])


def errors(nodes: Sequence[ValkeyServer], kind: str) -> int:
    """How often the nodes answered with an error of this kind."""
    counted = [node.command("INFO", "errorstats").get(f"errorstat_{kind}") for node in nodes]
    return sum(int(one["count"]) for one in counted if one is not None)


def test_st_08_moving_slots_are_followed_and_a_cluster_that_is_down_refuses() -> None:
    with cluster(3) as nodes, deployed(f"cluster://127.0.0.1:{nodes[0].port}", deadline_ms=PATIENT_MS) as deployment:
        with loaded(deployment) as run:
            began = pass_seconds(3.0)
            ids = [node.command("CLUSTER", "MYID").decode() for node in nodes]
            slots = sorted({key_slot(key) for key in nodes[0].command("KEYS", "*")})[:MOVED]
            for slot in slots:
                move(slot, nodes[0], nodes[1], ids[:2])
            moved = time.monotonic()
            for slot in slots:
                move(slot, nodes[1], nodes[0], ids[1::-1])
            back = time.monotonic()
            pass_seconds(2.0)
            down = time.monotonic()
            nodes[2].kill()
            gone = pass_seconds(5.0)
            redirected, crossed = errors(nodes[:2], "MOVED") + errors(nodes[:2], "ASK"), errors(nodes[:2], "CROSSSLOT")
            nodes[2].start()
            started = pass_seconds(8.0)
        safe = run.assert_safe()
    meanwhile = run.of(GOOD, began, back)
    refused = sum(one.status == 503 for one in meanwhile) / len(meanwhile)
    assert len(slots) > 20
    assert redirected > 0
    assert crossed == 0
    assert refused <= 0.01
    assert run.of(STATEFUL, down + 2, gone, status=503)
    assert run.statuses(BEARER, down, gone).keys() <= {200, 503}
    assert run.of(["pay"], started - 2, status=200), "and is used again"
    found(
        "cluster",
        slots_moved_and_moved_back=len(slots),
        in_s=round(moved - began, 1),
        redirections=redirected,
        crossslot=crossed,
        refused_while_moving_percent=round(100 * refused, 2),
        recovery_s=run.recovered_seconds(STATEFUL, started - 8.0),
        replays_accepted=safe["replays accepted"],
    )
