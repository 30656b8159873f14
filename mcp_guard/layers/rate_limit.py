"""Limits each principal, and what it calls.

Decides: whether the principal may send this request now. Refuses with `limit_exceeded` (429, RFC 6585 §4) with
`Retry-After`, the `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers-10) and a JSON-RPC error that carries the
request id. Does not: limit strangers; that is `shield`. Needs the principal and the call. Must stand after: intake.

Every message of a batch counts. All limits are taken from together, or, when one is exhausted, from none.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import StatefulCheck
from mcp_guard.facts import Call, ClientAddress, Principal
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission, RequestHead
from mcp_guard.secret import fingerprint
from mcp_guard.stores.base import Bucket, Level, Operation, Result, Spend, levels_of


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


KEPT_NAMES_CHARACTERS = 256
"""Bills for tools with longer names together are made each time, so that what is kept stays small."""

PER_PRINCIPAL = Limit(600, timedelta(minutes=1))
PER_TOOL = Limit(120, timedelta(minutes=1))
CONNECTIONS_PER_PRINCIPAL = Limit(10, timedelta(minutes=1))
CONNECTIONS_PER_ADDRESS = Limit(50, timedelta(minutes=1))


@dataclass(frozen=True, kw_only=True)
class RateLimit(StatefulCheck):
    """`principal` bounds all requests of one principal, `tool` its calls of one tool, `tools` overrides it by name.

    A new connection is an `initialize` request or a stream opened outside a session; `connections` bounds those of one
    principal, `address_connections` those of one client address.
    """

    needs = (Principal, Call, ClientAddress)

    principal: Limit = PER_PRINCIPAL
    tool: Limit = PER_TOOL
    tools: Mapping[str, Limit] = field(default_factory=dict)
    connections: Limit = CONNECTIONS_PER_PRINCIPAL
    address_connections: Limit = CONNECTIONS_PER_ADDRESS

    kept_bill: Callable[[str, int, tuple[str, ...], str | None], "Bill"] = field(init=False, repr=False, compare=False)
    stated: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept_bill", lru_cache(4096)(self._bill))
        object.__setattr__(self, "stated", policy("principal", self.principal))

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        return (self.bill(request).spend,)

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        levels = levels_of(results[0])
        for charge, level in zip(self.bill(request).charges, levels, strict=True):
            if not level.allowed:
                wait = str(_whole(level.retry_after_seconds)).encode()
                raise rejections.LIMIT_EXCEEDED.because(
                    f"{charge.name}: more than {charge.limit.burst} per {charge.limit.period}",
                    [(b"retry-after", wait), *fields(charge.name, policy(charge.name, charge.limit), level)],
                )
        return Admission(response_headers=fields("principal", self.stated, levels[0]))

    def bill(self, request: RequestHead) -> "Bill":
        """What the request costs."""
        who, call = request.fact(Principal), request.fact(Call)
        tools = tuple([one.name for one in call.messages if one.method == "tools/call" and one.name is not None])
        address = request.fact(ClientAddress).bucket if _opens_connection(request, call) else None
        make = self.kept_bill if len("".join(tools)) <= KEPT_NAMES_CHARACTERS else self._bill
        return make(who.key, len(call.messages), tools, address)

    def _bill(self, who: str, messages: int, tools: tuple[str, ...], address: str | None) -> "Bill":
        """The charges of `messages`, of each call of `tools`, and of a new connection from `address`."""
        charges = [Charge("principal", self.principal, who, max(1, messages))]
        for tool, count in Counter(tools).items():
            charges.append(Charge("tool", self.tools.get(tool, self.tool), f"{who}:{fingerprint(tool)}", count))
        if address is not None:
            charges.append(Charge("connections", self.connections, who, 1))
            charges.append(Charge("address-connections", self.address_connections, address, 1))
        return Bill(tuple(charges), Spend(tuple([charge.bucket() for charge in charges])))


class Charge(NamedTuple):
    """What one limit takes: `cost` units of the bucket `key`."""

    name: str
    limit: Limit
    key: str
    cost: int

    def bucket(self) -> Bucket:
        return Bucket(f"mcp:limit:{self.name}:{self.key}", self.limit.burst, self.limit.period, self.cost)


class Bill(NamedTuple):
    """What a request costs: the charges, that of the principal first, and the operation that takes them all."""

    charges: tuple[Charge, ...]
    spend: Spend


def _opens_connection(request: RequestHead, call: Call) -> bool:
    """Whether a session or a stream outside a session is about to be created."""
    in_session = request.value(b"mcp-session-id") is not None and not call.modern
    if request.method == "GET":
        return not in_session
    return not (call.modern or in_session) and any(message.method == "initialize" for message in call.messages)


def policy(name: str, limit: Limit) -> bytes:
    """The `RateLimit-Policy` field that states a quota."""
    return f'"{name}";q={limit.burst};w={_whole(limit.period.total_seconds())}'.encode()


def fields(name: str, stated: bytes, level: Level) -> RawHeaders:
    """The policy, and the `RateLimit` field: what is left of the quota, and seconds until it is whole."""
    seconds = _whole(level.reset_seconds if level.allowed else level.retry_after_seconds)
    return [(b"ratelimit-policy", stated), (b"ratelimit", f'"{name}";r={level.remaining};t={seconds}'.encode())]


def _whole(seconds: float) -> int:
    """Whole seconds, at least one, that last no shorter; what is less than a microsecond is a rounding error."""
    return max(1, math.ceil(round(seconds, 6)))
