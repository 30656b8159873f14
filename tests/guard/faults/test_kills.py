"""Workers are killed one after the other under load; the supervisor starts others in their places."""

import os
import statistics
import time

import pytest

from tests.guard.faults.deployment import START_SECONDS, Deployment, kill
from tests.guard.faults.places import placed
from tests.guard.faults.rows import found, in_time
from tests.guard.faults.run import GOOD, loaded, wait_for

KILLS = int(os.environ.get("FAULTS_KILLS", "100"))


def started(deployment: Deployment, known: set[int]) -> int:
    """The process id of the worker that is new; 0 while there is none."""
    return next((pid for pid in deployment.workers() if pid not in known), 0)


@pytest.mark.faults
def test_workers_that_are_killed_leave_whole_chains_and_nothing_used_twice() -> None:
    restarts: list[float] = []
    before = time.monotonic()
    with placed() as place:
        deployment, usual = place.deployment, time.monotonic() - before
        known = set(deployment.workers())
        with loaded(deployment) as run:
            for number in range(KILLS):
                running = sorted(deployment.workers())
                killed = kill(running[number % len(running)])
                ready = wait_for(lambda: started(deployment, known) != 0, "another worker", START_SECONDS)
                known.add(started(deployment, known))
                restarts.append(ready - killed)
        deployment.stop()
        safe, records = run.assert_safe(), deployment.audit()
        paid = deployment.paid()
    asked = run.of(GOOD)
    statuses = {one.status for one in asked}
    # Clients whose sessions died with a worker open others, so often that some are told to wait.
    assert statuses <= {200, 404, 429, 503, 0, -1}, statuses
    assert records, "the chains hold"
    assert paid.total() == len(paid)
    restart = statistics.median(restarts)
    assert in_time(restart, 2, usual), (restart, usual)
    found(
        "kills",
        kills=KILLS,
        bad_chains=0,
        records_in_the_chains=len(records),
        paid=len(paid),
        paid_twice=safe["paid twice"],
        replays_accepted=safe["replays accepted"],
        restart_s=round(restart, 2),
        slowest_restart_s=round(max(restarts), 2),
        first_start_s=round(usual, 2),
        requests=len(asked),
        connections_lost=sum(one.status == 0 for one in asked),
        sessions_not_found=len(run.of(GOOD, status=404)),
        limited=len(run.of(GOOD, status=429)),
    )
