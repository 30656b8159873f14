"""Limits each client address before anything costly is done for it.

Decides: whether an address may send another request. Refuses with `limit_exceeded` (429, RFC 6585 §4). Does not: know
who is asking; that is `rate_limit`. Needs the client address. Must stand after: proxy.

It lives in this process alone, so that a flood costs no store round trip. Each worker allows the full limit.

No origin was judged yet, so its refusal may be read by pages of any; it says nothing but when to come back.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import Check
from mcp_guard.clock import Clock, SystemClock
from mcp_guard.facts import ClientAddress
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.protocol import gcra

SWEEP_STEP = 8
"""Addresses looked at with each new address at the bound: a flood of addresses must not make each request dearer."""

OTHERS = "others"

READABLE: RawHeaders = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"Retry-After")]
"""Without them a page of an allowed origin would be told of a network error (Fetch §CORS protocol)."""


@dataclass(frozen=True)
class Shield(Check):
    """At most `burst` requests at once from one address (one /64 in IPv6), refilled at `burst` per `period`.

    `max_addresses` bounds what is remembered. At the bound, addresses whose buckets are full again are forgotten, a few
    with each request; while there is no room, new addresses share one bucket, so that a flood of addresses resets
    nobody's limit.
    """

    needs = (ClientAddress,)

    burst: int = 600
    period: timedelta = timedelta(minutes=1)
    max_addresses: int = 100_000
    clock: Clock = field(default_factory=SystemClock)
    arrivals: OrderedDict[str, float] = field(default_factory=OrderedDict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.burst < 1:
            raise ConfigurationError(f"burst must be at least 1, not {self.burst}")
        if self.period <= timedelta(0):
            raise ConfigurationError(f"period must be positive, not {self.period}")
        if self.max_addresses < 1:
            raise ConfigurationError(f"max_addresses must be at least 1, not {self.max_addresses}")

    async def admit(self, request: RequestHead) -> Admission:
        now = self.clock.monotonic()
        bucket = self.bucket(request.fact(ClientAddress).bucket, now)
        verdict = gcra.decide(self.burst, self.period.total_seconds(), 1, self.arrivals.get(bucket, now), now)
        if not verdict.allowed:
            reason = f"address {bucket} is over {self.burst} requests per {self.period}"
            raise rejections.limited(reason, verdict.retry_after_seconds, READABLE)
        self.arrivals[bucket] = verdict.arrival
        return ADMITTED

    def bucket(self, bucket: str, now: float) -> str:
        """The bucket that counts for an address: its own, or at the bound the one of all others."""
        if bucket in self.arrivals or len(self.arrivals) < self.max_addresses:
            return bucket
        for _ in range(min(SWEEP_STEP, len(self.arrivals))):
            known, arrival = self.arrivals.popitem(last=False)
            if arrival > now:
                self.arrivals[known] = arrival
        return bucket if len(self.arrivals) < self.max_addresses else OTHERS
