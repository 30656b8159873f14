"""Sentinels replace the primary, in order and after a crash: nothing is used twice, and the new one is soon found."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.guard.faults.deployment import Deployment, deployed
from tests.guard.faults.places import PATIENT_MS
from tests.guard.faults.rows import found, in_time
from tests.guard.faults.run import GOOD, STATEFUL, loaded, pass_seconds, wait_for
from tests.support.valkey_server import ValkeyServer, replica_of, sentinel_of, valkey_server

pytestmark = pytest.mark.faults


@dataclass(eq=False)
class Group:
    """A primary with two replicas, and the sentinel that watches them."""

    servers: Sequence[ValkeyServer]
    sentinel: ValkeyServer
    deployment: Deployment

    def roles(self) -> list[str]:
        """The role of each server, "" for one that is down."""
        return [role(server) for server in self.servers]

    def in_step(self) -> bool:
        """Whether there is one primary with two replicas that have everything."""
        return sorted(self.roles()) == ["master", "slave", "slave"] and all(
            linked(server) for server in self.servers if role(server) == "slave"
        )


def role(server: ValkeyServer) -> str:
    with contextlib.suppress(Exception):
        return str(server.command("INFO", "replication")["role"])
    return ""


def linked(server: ValkeyServer) -> bool:
    return bool(server.command("INFO", "replication").get("master_link_status") == "up")


@pytest.fixture
def group() -> Iterator[Group]:
    """A deployment in which what is of single use waits for a replica."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(valkey_server())
        replicas = [stack.enter_context(replica_of(primary)) for _ in range(2)]
        sentinel = stack.enter_context(sentinel_of(primary))
        wait_for(lambda: len(sentinel.command("SENTINEL", "REPLICAS", "main")) == 2, "the sentinel to know both", 30)
        url = f"sentinel://127.0.0.1:{sentinel.port}/main"
        deployment = stack.enter_context(deployed(url, replicas=1, deadline_ms=PATIENT_MS))
        yield Group([primary, *replicas], sentinel, deployment)


def test_st_04_a_primary_that_becomes_a_replica_is_left_for_the_new_one(group: Group) -> None:
    with loaded(group.deployment) as run:
        began = time.monotonic()
        down = pass_seconds(3.0)
        group.sentinel.command("SENTINEL", "FAILOVER", "main")
        promoted = wait_for(lambda: "master" in group.roles()[1:], "a promotion")
        wait_for(group.in_step, "the old primary to follow")
        in_step = pass_seconds(5.0)
    safe = run.assert_safe()
    usual, recovery = run.milliseconds(run.of(GOOD, began, down)), run.recovered_seconds(STATEFUL, promoted)
    assert run.of(["pay"], in_step - 2, status=200), "states are used again"
    assert in_time(recovery, 2, usual / 1000)
    found(
        "readonly",
        used_twice=safe["paid twice"],
        replays_accepted=safe["replays accepted"],
        recovery_after_promotion_s=recovery,
        refused=len(run.of(GOOD, down, status=503)),
        paid=group.deployment.paid().total(),
    )


def test_a_primary_that_is_lost_takes_no_use_with_it(group: Group) -> None:
    with loaded(group.deployment) as run:
        began = time.monotonic()
        down = pass_seconds(3.0)
        group.servers[0].kill()
        promoted = wait_for(lambda: "master" in group.roles(), "a promotion")
        ended = pass_seconds(8.0)
    safe = run.assert_safe()
    usual, recovery = run.milliseconds(run.of(GOOD, began, down)), run.recovered_seconds(STATEFUL, promoted)
    assert run.of(["replay"], promoted), "what was used before is tried again"
    assert run.of(["pay"], ended - 3, status=200), "states are used again, with the replica that is left"
    assert in_time(recovery, 2, usual / 1000)
    found(
        "lost-writes",
        used_twice=safe["paid twice"],
        replays_accepted=safe["replays accepted"],
        promotion_after_s=round(promoted - down, 1),
        recovery_after_promotion_s=recovery,
        refused=len(run.of(GOOD, down, status=503)),
        paid=group.deployment.paid().total(),
    )
