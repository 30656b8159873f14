"""Limits each principal, what it calls, and those it shares a client, a tenant or an address with.

Decides: whether the principal may send this request now. Refuses with `limit_exceeded` (429, RFC 6585 §4) with
`Retry-After`, the `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers-10) and a JSON-RPC error that carries the
request id and `retryAfterMs`. Does not: limit strangers; that is `shield`. Needs the principal, the call and the
client's address. Must stand after: intake.

Every message of a batch counts. All limits are taken from together, or, when one is exhausted, from none. What is
stated on a response is the limit that has the least left.

While the store does not answer, each worker decides by itself, with limits `local.share` times as small. What it
remembers outlives the outage, so that a store that comes and goes makes nobody a present of a new burst. Refuses with
`unavailable` (503) when it cannot remember any more.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import StatefulCheck
from mcp_guard.facts import Call, ClientAddress, Principal, Socket
from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.secret import fingerprint
from mcp_guard.stores.base import Bucket, Level, Operation, Result, Spend, levels_of
from mcp_guard.stores.memory import MemoryStore


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `burst` units at once, refilled at `burst` per `period`; a unit is one JSON-RPC message."""

    burst: int
    period: timedelta

    def __post_init__(self) -> None:
        if self.burst < 1:
            raise ConfigurationError(f"burst must be at least 1, not {self.burst}")
        if self.period < timedelta(seconds=1):
            raise ConfigurationError(f"period must be at least one second, not {self.period}")


@dataclass(frozen=True, slots=True)
class ToolLimit:
    """What is special about one tool: a `limit` of its own in place of the common one, and the units of one call.

    The units of a call are taken from every limit that it counts in, its principal's included.
    """

    limit: Limit | None = None
    cost: int = 1

    def __post_init__(self) -> None:
        if self.cost < 1:
            raise ConfigurationError(f"cost must be at least 1, not {self.cost}")


@dataclass(frozen=True, slots=True)
class Shared:
    """Limits that principals have in common, over all of their requests; None for no such limit.

    `client` is for one client of one tenant, `tenant` for all principals of one, `address` for one client address
    (one /64 in IPv6) after authentication.
    """

    client: Limit | None = None
    tenant: Limit | None = None
    address: Limit | None = None


@dataclass(frozen=True, slots=True)
class Local:
    """What decides while the store is away: a `store` of this worker, and how many times smaller each limit is.

    With a `share` of at least the number of workers, all of them together let through no more than the store would;
    a limit is never smaller than 1.
    """

    share: int = 4
    store: MemoryStore = field(default_factory=lambda: MemoryStore(max_entries=LOCAL_ENTRIES))

    def __post_init__(self) -> None:
        if self.share < 1:
            raise ConfigurationError(f"local.share must be at least 1, not {self.share}")


LOCAL_ENTRIES = 100_000
"""Buckets that a worker remembers by itself: about 16 MB."""

KEPT_NAMES_CHARACTERS = 256
"""Bills for tools with longer names together are made each time, so that what is kept stays small."""

PER_PRINCIPAL = Limit(600, timedelta(minutes=1))
PER_TOOL = Limit(120, timedelta(minutes=1))
CONNECTIONS_PER_PRINCIPAL = Limit(10, timedelta(minutes=1))
CONNECTIONS_PER_ADDRESS = Limit(50, timedelta(minutes=1))
ORDINARY = ToolLimit()


@dataclass(frozen=True, kw_only=True)
class RateLimit(StatefulCheck):
    """`principal` bounds all requests of one principal, `tool` its calls of one tool; `tools` are exceptions by name.

    A new connection is an `initialize` request or a stream opened outside a session; `connections` bounds those of one
    principal, `address_connections` those of one client address. `shared` are limits that principals have in common,
    `local` is what decides while the store is away.
    """

    needs = (Principal, Call, ClientAddress)

    principal: Limit = PER_PRINCIPAL
    tool: Limit = PER_TOOL
    tools: Mapping[str, ToolLimit] = field(default_factory=dict)
    connections: Limit = CONNECTIONS_PER_PRINCIPAL
    address_connections: Limit = CONNECTIONS_PER_ADDRESS
    shared: Shared = field(default_factory=Shared)
    local: Local = field(default_factory=Local)

    kept_bill: Callable[["Cause"], "Bill"] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, special in self.tools.items():
            for limit in (self.principal, special.limit or self.tool, *self._in_common()):
                if special.cost > limit.burst:
                    raise ConfigurationError(f"tools: a call of {name!r} costs {special.cost}, but {limit} is smaller")
        object.__setattr__(self, "kept_bill", lru_cache(4096)(self._bill))

    def _in_common(self) -> list[Limit]:
        shared = self.shared
        return [limit for limit in (shared.client, shared.tenant, shared.address) if limit is not None]

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        return (self.bill(request).spend,)

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        return self.bill(request).settled(levels_of(results[0]))

    def without_store(self, request: RequestHead, fault: StoreUnavailable) -> Admission:
        bill = self.bill(request).smaller(self.local.share)
        return bill.settled(levels_of(self.local.store.run_now((bill.spend,))[0]))

    def bill(self, request: RequestHead) -> "Bill":
        """What the request costs."""
        who, call = request.fact(Principal), request.fact(Call)
        tools = tuple([one.name for one in call.messages if one.method == "tools/call" and one.name is not None])
        opens = _opens_connection(request, call)
        address = request.fact(ClientAddress).bucket if opens or self.shared.address is not None else ""
        make = self.kept_bill if len("".join(tools)) <= KEPT_NAMES_CHARACTERS else self._bill
        return make((who.key, who.identity, len(call.messages), tools, address, opens))

    def _bill(self, cause: "Cause") -> "Bill":
        """The charges of the messages, of each call of a tool, and of a new connection."""
        who, (issuer, _, client, tenant), messages, tools, address, opens = cause
        calls = {tool: count * self._special(tool).cost for tool, count in Counter(tools).items()}
        units = max(1, messages - len(tools) + sum(calls.values()))
        charges = [Charge("principal", self.principal, who, units)]
        if self.shared.client is not None:
            charges.append(Charge("client", self.shared.client, _digest(issuer, client, tenant), units))
        if self.shared.tenant is not None and tenant is not None:
            charges.append(Charge("tenant", self.shared.tenant, _digest(issuer, tenant), units))
        if self.shared.address is not None:
            charges.append(Charge("address", self.shared.address, address, units))
        for tool, cost in calls.items():
            limit = self._special(tool).limit or self.tool
            charges.append(Charge("tool", limit, f"{who}:{fingerprint(tool)}", cost))
        if opens:
            charges.append(Charge("connections", self.connections, who, 1))
            charges.append(Charge("address-connections", self.address_connections, address, 1))
        return Bill.of(charges)

    def _special(self, tool: str) -> ToolLimit:
        return self.tools.get(tool, ORDINARY)


Cause: TypeAlias = tuple[str, tuple[str, str, str, str | None], int, tuple[str, ...], str, bool]
"""What a bill depends on: the principal's key and identity, how many messages, the tools that they call, the address
("" when nothing is counted for it), and whether a connection is opened."""


class Charge(NamedTuple):
    """What one limit takes: `cost` units of the bucket `key`."""

    name: str
    limit: Limit
    key: str
    cost: int

    def bucket(self) -> Bucket:
        """A cost that never fits takes all that there is."""
        burst = self.limit.burst
        return Bucket(f"mcp:limit:{self.name}:{self.key}", burst, self.limit.period, min(self.cost, burst))

    def refusal(self, level: Level, policy: bytes) -> rejections.Rejection:
        """The refusal for this limit, which is exhausted, or smaller than the cost."""
        wait = level.retry_after_seconds or self.limit.period.total_seconds()
        return rejections.limited(
            f"{self.name}: more than {self.limit.burst} per {self.limit.period}",
            wait,
            _fields(self.name, policy, level.remaining, wait),
        )


class Bill(NamedTuple):
    """What a request costs: the charges, that of the principal first, how each is stated, and what takes them all."""

    charges: tuple[Charge, ...]
    policies: tuple[bytes, ...]
    spend: Spend

    @classmethod
    def of(cls, charges: Sequence[Charge]) -> "Bill":
        policies = [f'"{one.name}";q={one.limit.burst};w={_whole(one.limit.period.total_seconds())}' for one in charges]
        spend = Spend(tuple([charge.bucket() for charge in charges]))
        return cls(tuple(charges), tuple([policy.encode() for policy in policies]), spend)

    def smaller(self, share: int) -> "Bill":
        """The same costs, taken from limits `share` times as small."""
        return Bill.of(
            [one._replace(limit=Limit(max(1, one.limit.burst // share), one.limit.period)) for one in self.charges]
        )

    def settled(self, levels: Sequence[Level]) -> Admission:
        """Judge what the spending came to, and state the limit that has the least left.

        Raises:
            Rejection: a limit is exhausted.
            ValueError: there is not one level for each charge.
        """
        tightest, least = 0, math.inf
        for position, (charge, level) in enumerate(zip(self.charges, levels, strict=True)):
            if not level.allowed or charge.cost > charge.limit.burst:
                raise charge.refusal(level, self.policies[position])
            if level.remaining < least:
                tightest, least = position, level.remaining
        level = levels[tightest]
        stated = _fields(self.charges[tightest].name, self.policies[tightest], level.remaining, level.reset_seconds)
        return Admission(response_headers=stated)


def _opens_connection(request: RequestHead, call: Call) -> bool:
    """Whether a session or a stream outside a session is about to be created."""
    in_session = request.value(b"mcp-session-id") is not None and not call.modern
    # Servers that answer HEAD as they answer GET are not to be used around the bound.
    if request.method in {"GET", "HEAD"}:
        return not in_session
    # A WebSocket was counted when it was opened.
    if call.modern or in_session or request.get(Socket) is not None:
        return False
    return any(message.method == "initialize" for message in call.messages)


def _digest(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def _fields(name: str, policy: bytes, remaining: int, seconds: float) -> RawHeaders:
    """The policy, and the `RateLimit` field: what is left of the quota, and seconds until more of it is to be had."""
    return [(b"ratelimit-policy", policy), (b"ratelimit", f'"{name}";r={remaining};t={_whole(seconds)}'.encode())]


def _whole(seconds: float) -> int:
    """Whole seconds, at least one, that last no shorter; what is less than a microsecond is a rounding error."""
    return max(1, math.ceil(round(seconds, 6)))
