"""Limits each principal, and what it calls.

Decides: whether the principal may send this request now. Refuses with `limit_exceeded` (429, RFC 6585 §4) with
`Retry-After`, the `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers-10) and a JSON-RPC error that carries the
request id. Does not: limit strangers; that is `shield`. Needs the principal and the call. Must stand after: intake.

Every message of a batch counts. All limits are taken from together, or, when one is exhausted, from none.
"""

import math
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
from mcp_guard.stores.base import Bucket, Level, Operation, Result, Spend


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

    kept_bill: Callable[[str, int, tuple[tuple[str, int], ...], str | None], "Bill"] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept_bill", lru_cache(4096)(self._bill))

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        return (self.bill(request).spend,)

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        levels = results[0]
        if not isinstance(levels, tuple):
            raise TypeError("a Spend answers with levels")
        charges = self.bill(request).charges
        for charge, level in zip(charges, levels, strict=True):
            if not level.allowed:
                wait = str(_whole(level.retry_after_seconds)).encode()
                raise rejections.LIMIT_EXCEEDED.because(
                    f"{charge.limit}: more than {charge.bucket.burst} per {charge.bucket.period}",
                    [(b"retry-after", wait), *charge.fields(level)],
                )
        return Admission(response_headers=charges[0].fields(levels[0]))

    def bill(self, request: RequestHead) -> "Bill":
        """What the request costs."""
        who, call = request.fact(Principal), request.fact(Call)
        calls: dict[str, int] = {}
        for message in call.messages:
            if message.method == "tools/call" and message.name is not None:
                calls[message.name] = calls.get(message.name, 0) + 1
        tools = tuple(calls.items())
        address = request.fact(ClientAddress).bucket if _opens_connection(request, call) else None
        make = self.kept_bill if sum(map(len, calls)) <= KEPT_NAMES_CHARACTERS else self._bill
        return make(who.key, max(1, len(call.messages)), tools, address)

    def _bill(self, who: str, messages: int, tools: tuple[tuple[str, int], ...], address: str | None) -> "Bill":
        """The charges of `messages` and of each tool's calls, and of a new connection from `address`."""
        charges = [Charge.of("principal", self.principal, who, messages)]
        for tool, count in tools:
            charges.append(Charge.of("tool", self.tools.get(tool, self.tool), f"{who}:{fingerprint(tool)}", count))
        if address is not None:
            charges.append(Charge.of("connections", self.connections, who, 1))
            charges.append(Charge.of("address-connections", self.address_connections, address, 1))
        return Bill(tuple(charges), Spend(tuple([charge.bucket for charge in charges])))


class Charge(NamedTuple):
    """What one limit takes. `policy` is the `RateLimit-Policy` field that states the quota."""

    limit: str
    bucket: Bucket
    policy: bytes

    @classmethod
    def of(cls, name: str, limit: Limit, key: str, cost: int) -> "Charge":
        """The charge of `cost` units to the bucket `key` of the limit called `name`."""
        policy = f'"{name}";q={limit.burst};w={_whole(limit.period.total_seconds())}'.encode()
        return cls(name, Bucket(f"mcp:limit:{name}:{key}", limit.burst, limit.period, cost), policy)

    def fields(self, level: Level) -> RawHeaders:
        """`RateLimit-Policy`, and `RateLimit`: what is left of the quota, and seconds until it is whole."""
        seconds = _whole(level.reset_seconds if level.allowed else level.retry_after_seconds)
        state = f'"{self.limit}";r={level.remaining};t={seconds}'.encode()
        return [(b"ratelimit-policy", self.policy), (b"ratelimit", state)]


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


def _whole(seconds: float) -> int:
    """Whole seconds, at least one, that last no shorter; what is less than a microsecond is a rounding error."""
    return max(1, math.ceil(round(seconds, 6)))
