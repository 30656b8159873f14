"""The clocks of the workers are set wrong under load: nothing comes alive again, and nothing is lost."""

import asyncio
import time

import pytest

from tests.guard.faults.connection import Answer, Connection
from tests.guard.faults.deployment import Deployment
from tests.guard.faults.load import Seat, modern
from tests.guard.faults.places import placed
from tests.guard.faults.rows import found
from tests.guard.faults.run import GOOD, loaded, pass_seconds
from tests.guard.faults.serve import AUTHORITY

HOUR = 3600.0
LIVES_SECONDS = 5
LEEWAY_SECONDS = 30
"""What a token is good for after its end, as the layer has it by default, and more than a second besides."""
TRIES = 20


async def statuses(deployment: Deployment, token: str) -> list[int]:
    """What each of several connections, and so each worker, answers to a token."""

    async def one() -> Answer:
        connection = await Connection.to(deployment.port)
        try:
            return await connection.ask(modern(Seat("late", token), AUTHORITY, "whoami"))
        finally:
            connection.close()

    async with asyncio.timeout(30):
        return [answer.status for answer in await asyncio.gather(*[one() for _ in range(TRIES)])]


@pytest.mark.faults
def test_st_18_a_clock_that_is_set_wrong_brings_nothing_back_and_loses_nothing() -> None:
    with placed() as place:
        deployment = place.deployment
        with loaded(deployment) as run:
            began = time.monotonic()
            short = deployment.token("late", LIVES_SECONDS)
            half_an_hour = deployment.token("soon", 1800)
            assert set(asyncio.run(statuses(deployment, short))) == {200}
            pass_seconds(LIVES_SECONDS + LEEWAY_SECONDS + 2)
            at_the_end = asyncio.run(statuses(deployment, short))
            deployment.step_clock(-HOUR)
            stepped_back = time.monotonic()
            pass_seconds(3.0)
            expired = asyncio.run(statuses(deployment, short))
            still_good = asyncio.run(statuses(deployment, half_an_hour))
            deployment.step_clock(+HOUR)
            pass_seconds(3.0)
            ahead = asyncio.run(statuses(deployment, half_an_hour))
            deployment.step_clock(0.0)
            right = asyncio.run(statuses(deployment, half_an_hour))
            ended = pass_seconds(3.0)
        safe = run.assert_safe()
    lost = run.of(["session", "stream"], began, status=404)
    limited = run.of(GOOD, began, status=429)
    assert set(at_the_end) == {401}
    assert set(expired) == {401}, "what has expired stays expired"
    assert set(still_good) == {200}
    assert set(ahead) == {401}
    assert set(right) == {200}, "what has not is good as soon as the clock is right"
    assert lost == []
    assert limited == [], "limits are by the store's clock"
    assert run.statuses(GOOD, stepped_back, ended).keys() <= {200, 503}
    found(
        "clock",
        expired_tokens_accepted=expired.count(200),
        sessions_lost=len(lost),
        requests_limited=len(limited),
        refused_when_right_again=sum(status != 200 for status in right),
        replays_accepted=safe["replays accepted"],
    )
