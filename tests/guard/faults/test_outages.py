"""The store goes away, stays silent or fills up under load: refused in time, never let through, back at once."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.guard.faults.load import Sample
from tests.guard.faults.places import Place, placed
from tests.guard.faults.rows import found, in_time
from tests.guard.faults.run import BEARER, GOOD, NEVER, STATEFUL, Run, loaded, pass_seconds

GRACE_SECONDS = 60.0
MARGIN_SECONDS = 5.0
"""Each worker counts the grace from the last answer that it had, which may have been before the fault."""
QUARTER = 1500
"""Of what a principal may ask in a minute (`worker.PER_PRINCIPAL`): what is left of it at a worker in the grace."""
SETTLE_SECONDS = 3.0
SILENT_SECONDS = 5.0


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with placed() as place:
        yield place


@pytest.fixture(scope="module")
def brisk() -> Iterator[Place]:
    """A deployment with the store's own deadline."""
    with placed(deadline_ms=100) as place:
        yield place


def usual_ms(run: Run, since: float, to: float) -> float:
    """How long good requests took before the fault (p99)."""
    return run.milliseconds(run.of(GOOD, since, to))


def late(samples: Sequence[Sample], down: float) -> list[tuple[float, str]]:
    """Which were refused, and how long after the store had gone."""
    return [(round(one.at - down, 1), one.kind) for one in samples]


def dies(place: Place, seconds: float) -> None:
    """A store that is away for a time, and what is due then."""
    with loaded(place.deployment) as run:
        began = time.monotonic()
        down = pass_seconds(SETTLE_SECONDS)
        connections = place.proxy.connections
        place.server.kill()
        gone = pass_seconds(seconds)
        tried = place.proxy.connections - connections
        place.server.start()
        back = time.monotonic()
        pass_seconds(5.0)
    safe = run.assert_safe()
    usual = usual_ms(run, began, down)
    refused = run.of(GOOD, down, gone, status=503)
    p99, recovery = run.milliseconds(refused), run.recovered_seconds(STATEFUL, back)
    in_grace = run.statuses(BEARER, down, min(gone, down + GRACE_SECONDS - MARGIN_SECONDS))
    quotas = {one.quota for one in run.of(["call"], down + 1, gone, status=200)}
    assert run.statuses(STATEFUL, down + 1, gone).keys() <= {503}, "nothing that needs state goes on"
    assert in_grace.keys() == {200}, late(run.of(BEARER, down, gone, status=503), down)
    assert quotas == {QUARTER}
    if seconds > GRACE_SECONDS:
        assert run.statuses(BEARER, down + GRACE_SECONDS + MARGIN_SECONDS, gone).keys() == {503}, "and no longer"
    assert tried <= len(run.of([*GOOD, *NEVER], down, gone)), "at most one retry for each request"
    assert in_time(p99, 250, usual), (p99, usual)
    assert in_time(recovery, 1, usual / 1000)
    if seconds > GRACE_SECONDS:
        found(
            "dies",
            away_s=seconds,
            p99_of_503_ms=p99,
            p99_before_ms=usual,
            recovery_s=recovery,
            refused=len(refused),
            connections_tried=tried,
            bearer_calls_let_through_in_the_grace=in_grace.total(),
            replays_accepted=safe["replays accepted"],
        )


def silent(place: Place, key: str, begin: Callable[[], object], end: Callable[[], object]) -> None:
    """A store that says nothing for a time, and what is due then."""
    with loaded(place.deployment) as run:
        began = time.monotonic()
        pass_seconds(SETTLE_SECONDS)
        begin()
        down = time.monotonic()
        gone = pass_seconds(SILENT_SECONDS)
        end()
        back = time.monotonic()
        pass_seconds(5.0)
    safe = run.assert_safe()
    usual, before = usual_ms(run, began, down), place.deployment.measured(began, down)
    meanwhile = place.deployment.measured(down, gone)
    p99, recovery = run.milliseconds(run.of(GOOD, down, gone)), run.recovered_seconds(STATEFUL, back)
    lag, usual_lag = (statistics.quantiles([one.lag_ms for one in some], n=20)[-1] for some in (meanwhile, before))
    tasks = max(one.tasks for one in meanwhile)
    assert len(run.of(GOOD, down + 1, gone - 1, status=503)) > 0
    assert run.statuses(STATEFUL, down + 1, gone - 1).keys() <= {503}
    assert in_time(p99, 300, usual), (p99, usual)
    assert in_time(lag, 50, usual_lag), (lag, usual_lag)
    assert tasks <= 2 * max(one.tasks for one in before) + 100
    found(
        key,
        p99_ms=p99,
        p99_before_ms=usual,
        lag_p95_ms=round(lag, 1),
        lag_before_ms=round(usual_lag, 1),
        most_tasks_of_a_worker=tasks,
        recovery_s=recovery,
        replays_accepted=safe["replays accepted"],
    )


def test_st_02_a_store_that_dies_stops_what_needs_state(place: Place) -> None:
    dies(place, 5.0)


@pytest.mark.faults
def test_st_02_calls_by_token_alone_go_on_for_a_minute_and_no_longer(brisk: Place) -> None:
    dies(brisk, GRACE_SECONDS + 15.0)


@pytest.mark.faults
def test_st_03_a_store_that_pauses_is_given_up_at_the_deadline(brisk: Place) -> None:
    silent(
        brisk, "slow", lambda: brisk.server.command("CLIENT", "PAUSE", int(1000 * SILENT_SECONDS), "ALL"), lambda: None
    )


@pytest.mark.faults
def test_st_14_a_black_hole_is_given_up_at_the_deadline(brisk: Place) -> None:
    def hole(is_one: bool) -> None:
        brisk.proxy.hole = is_one

    silent(brisk, "hole", lambda: hole(True), lambda: hole(False))


@pytest.mark.faults
def test_st_05_a_full_store_refuses_writes_and_recovers_by_itself(place: Place) -> None:
    with loaded(place.deployment) as run:
        began = time.monotonic()
        down = pass_seconds(SETTLE_SECONDS)
        place.server.command("CONFIG", "SET", "maxmemory", 1)
        gone = pass_seconds(5.0)
        place.server.command("CONFIG", "SET", "maxmemory", 0)
        back = time.monotonic()
        pass_seconds(5.0)
    safe = run.assert_safe()
    usual, recovery = usual_ms(run, began, down), run.recovered_seconds(STATEFUL, back)
    assert run.statuses(["pay", "initialize"], down + 1, gone).keys() <= {503}
    assert run.statuses(BEARER, down + 1, gone).keys() == {200}, "what needs no write goes on"
    assert in_time(recovery, 1, usual / 1000)
    found(
        "oom",
        writes_refused=len(run.of(["pay", "initialize"], down, gone, status=503)),
        bearer_calls_let_through=len(run.of(BEARER, down, gone, status=200)),
        recovery_s=recovery,
        replays_accepted=safe["replays accepted"],
    )


@pytest.mark.faults
def test_st_07_forgotten_scripts_are_noticed_by_nobody(place: Place) -> None:
    with loaded(place.deployment) as run:
        began = pass_seconds(SETTLE_SECONDS)
        for _ in range(20):
            place.server.command("SCRIPT", "FLUSH")
            pass_seconds(0.25)
        ended = time.monotonic()
    run.assert_safe()
    failed = [one for one in run.of(GOOD, began, ended) if one.status != 200]
    assert failed == []
    found("scripts", failed_requests=len(failed), requests=len(run.of(GOOD, began, ended)))


def test_st_12_a_store_that_forgets_ends_sessions_and_lets_nothing_be_used_again(place: Place) -> None:
    with loaded(place.deployment) as run:
        pass_seconds(SETTLE_SECONDS)
        place.server.command("FLUSHALL")
        flushed = time.monotonic()
        forgot = pass_seconds(3.0)
        place.server.command("CONFIG", "SET", "appendonly", "no")
        place.server.command("FLUSHALL")
        place.server.kill()
        for file in (place.server.folder / "appendonlydir").glob("*"):
            file.unlink()
        place.server.start()
        back = pass_seconds(5.0)
    safe = run.assert_safe()
    not_found = run.of(["session", "stream"], flushed, status=404)
    assert not_found, "sessions are gone"
    assert run.of(["session"], back - 2, status=200), "and begun anew"
    assert run.statuses(["replay"], flushed).keys() <= {400, 503}
    found(
        "forgets",
        replays_tried=len(run.of(["replay"], flushed)),
        replays_accepted=safe["replays accepted"],
        sessions_not_found=len(not_found),
        seconds_between=round(forgot - flushed, 1),
    )
