"""One bucket for each address, and a bounded number of them."""

import time
from datetime import timedelta
from ipaddress import ip_address

import pytest

from mcp_guard.clock import ManualClock
from mcp_guard.facts import ClientAddress
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission
from mcp_guard.layers.shield import Shield
from mcp_guard.stack import guard
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.stubs import Says

MINUTE = timedelta(minutes=1)


class Address(Says):
    """Stands for the layer that finds out the client's address."""

    adds = (ClientAddress,)


class Place:
    """A guarded app that can be asked from any address."""

    def __init__(self, shield: Shield) -> None:
        self.app = CountingApp()
        self.shield = shield
        found = Address(lambda request: Admission(facts=(ClientAddress(ip_address(request.scope["client"][0])),)))
        self.guarded = guard(self.app, found, shield)

    async def ask(self, address: str) -> Outcome:
        return await drive(self.guarded, http_scope(client=(address, 1)))

    async def passing(self, addresses: list[str]) -> int:
        """How many requests pass, one from each of these addresses."""
        return sum([(await self.ask(address)).status == 200 for address in addresses])


async def test_exactly_the_burst_passes_and_waiting_as_told_is_enough(clock: ManualClock) -> None:
    place = Place(Shield(burst=100, period=MINUTE, clock=clock))
    assert await place.passing(["192.0.2.1"] * 101) == 100

    refused = await place.ask("192.0.2.1")
    assert refused.status == 429
    assert refused.json()["error"]["code"] == -32010
    wait = refused.value(b"retry-after")
    assert wait == b"1"
    clock.advance(int(wait))
    assert (await place.ask("192.0.2.1")).status == 200
    assert place.app.calls == 101


async def test_a_refusal_can_be_read_by_a_page_whose_origin_was_not_judged_yet(clock: ManualClock) -> None:
    place = Place(Shield(burst=1, period=timedelta(seconds=1.5), clock=clock))
    await place.ask("192.0.2.1")
    refused = await place.ask("192.0.2.1")
    assert refused.value(b"access-control-allow-origin") == b"*"
    assert refused.value(b"access-control-expose-headers") == b"Retry-After"
    assert refused.value(b"access-control-allow-credentials") is None
    assert refused.json() == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32010, "message": "Too many requests", "data": {"retryAfterMs": 1500}},
    }
    assert refused.value(b"retry-after") == b"2"


async def test_retry_after_is_rounded_up_to_whole_seconds(clock: ManualClock) -> None:
    place = Place(Shield(burst=1, period=timedelta(seconds=90.5), clock=clock))
    await place.ask("192.0.2.1")
    refused = await place.ask("192.0.2.1")
    assert refused.value(b"retry-after") == b"91"
    clock.advance(90)
    assert (await place.ask("192.0.2.1")).value(b"retry-after") == b"1"


async def test_addresses_are_apart(clock: ManualClock) -> None:
    place = Place(Shield(burst=2, period=MINUTE, clock=clock))
    assert await place.passing(["192.0.2.1"] * 3 + ["192.0.2.2"] * 3) == 4


@pytest.mark.parametrize(
    "addresses",
    [
        [f"2001:db8:0:1::{number:x}" for number in range(200)],
        [f"2001:db8:0:1:{number:x}::1" for number in range(200)],
        ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"] * 10,
    ],
    ids=["last bits", "middle bits", "mapped"],
)
async def test_a_64_and_the_spellings_of_an_address_share_a_bucket(addresses: list[str], clock: ManualClock) -> None:
    place = Place(Shield(burst=5, period=MINUTE, clock=clock))
    assert await place.passing(addresses) == 5
    assert len(place.shield.arrivals) == 1


async def test_mapped_addresses_are_apart_like_the_addresses_they_stand_for(clock: ManualClock) -> None:
    place = Place(Shield(burst=1, period=MINUTE, clock=clock))
    assert await place.passing(["::ffff:192.0.2.1", "::ffff:192.0.2.2"]) == 2


async def test_a_flood_of_addresses_is_bounded_and_resets_no_bucket(clock: ManualClock) -> None:
    place = Place(Shield(burst=2, period=MINUTE, max_addresses=50, clock=clock))
    assert await place.passing(["198.51.100.1"] * 3) == 2
    await place.passing([f"10.0.{number // 250}.{number % 250}" for number in range(1000)])

    assert len(place.shield.arrivals) <= 51
    assert (await place.ask("198.51.100.1")).status == 429


async def test_at_the_bound_new_addresses_share_one_bucket(clock: ManualClock) -> None:
    place = Place(Shield(burst=3, period=MINUTE, max_addresses=10, clock=clock))
    known = [f"192.0.2.{number}" for number in range(10)]
    assert await place.passing(known) == 10
    assert await place.passing([f"203.0.113.{number}" for number in range(20)]) == 3
    assert await place.passing(known) == 10, "those that were known keep buckets of their own"


async def test_at_the_bound_addresses_that_went_quiet_make_room(clock: ManualClock) -> None:
    place = Place(Shield(burst=3, period=MINUTE, max_addresses=10, clock=clock))
    await place.passing([f"192.0.2.{number}" for number in range(10)])
    clock.advance(60)
    assert await place.passing([f"203.0.113.{number}" for number in range(10)] * 2) == 20
    assert len(place.shield.arrivals) <= 11


async def test_a_busy_address_is_not_forgotten_while_room_is_made(clock: ManualClock) -> None:
    place = Place(Shield(burst=2, period=MINUTE, max_addresses=3, clock=clock))
    await place.passing(["192.0.2.1"] * 2)
    await place.passing(["192.0.2.2", "192.0.2.3"])
    clock.advance(30)
    assert await place.passing(["192.0.2.1"] * 2) == 1
    assert await place.passing([f"203.0.113.{number}" for number in range(20)]) >= 2
    assert (await place.ask("192.0.2.1")).status == 429


async def test_a_flood_does_not_make_requests_dearer_with_the_number_of_addresses(clock: ManualClock) -> None:
    def seconds_for(shield: Shield) -> float:
        began = time.perf_counter()
        for number in range(500):
            shield.bucket(f"new-{number}", clock.monotonic())
        return time.perf_counter() - began

    small, large = Shield(max_addresses=10, clock=clock), Shield(max_addresses=50_000, clock=clock)
    for shield in (small, large):
        for number in range(shield.max_addresses):
            shield.arrivals[f"old-{number}"] = clock.monotonic() + 60
    assert seconds_for(large) < 50 * seconds_for(small) + 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"burst": 0}, "burst must be at least 1, not 0"),
        ({"period": timedelta(0)}, "period must be positive"),
        ({"period": timedelta(seconds=-1)}, "period must be positive"),
        ({"max_addresses": 0}, "max_addresses must be at least 1, not 0"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Shield(**settings)  # type: ignore[arg-type]
