"""Limits each principal, and what it calls.

Decides: whether the principal may send this request now. Refuses with `limit_exceeded` (429, RFC 6585 §4) with
`Retry-After`, the `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers-10) and a JSON-RPC error that carries the
request id. Does not: limit strangers; that is `shield`. Needs the principal and the call. Must stand after: intake.

Every message of a batch counts. All limits are taken from together, or, when one is exhausted, from none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

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

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        return (Spend(tuple(bucket for _, bucket in self._charges(request))),)

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        levels = results[0]
        if not isinstance(levels, tuple):
            raise TypeError("a Spend answers with levels")
        charges = self._charges(request)
        for (name, bucket), level in zip(charges, levels, strict=True):
            if not level.allowed:
                raise rejections.LIMIT_EXCEEDED.because(
                    f"{name}: more than {bucket.burst} per {bucket.period}",
                    [(b"retry-after", str(_seconds(level.retry_after)).encode()), *_fields(name, bucket, level)],
                )
        name, bucket = charges[0]
        return Admission(response_headers=_fields(name, bucket, levels[0]))

    def _charges(self, request: RequestHead) -> list[tuple[str, Bucket]]:
        """What the request costs: (name of the limit, bucket), that of the principal first."""
        who, call = request.fact(Principal), request.fact(Call)
        charges = [_charge("principal", self.principal, who.key, max(1, len(call.messages)))]
        calls: dict[str, int] = {}
        for message in call.messages:
            if message.method == "tools/call" and message.name is not None:
                calls[message.name] = calls.get(message.name, 0) + 1
        for tool, count in calls.items():
            limit = self.tools.get(tool, self.tool)
            charges.append(_charge("tool", limit, f"{who.key}:{fingerprint(tool)}", count))
        if _opens_connection(request, call):
            charges.append(_charge("connections", self.connections, who.key, 1))
            address = request.fact(ClientAddress).bucket
            charges.append(_charge("address-connections", self.address_connections, address, 1))
        return charges


def _opens_connection(request: RequestHead, call: Call) -> bool:
    """Whether a session or a stream outside a session is about to be created."""
    in_session = request.value(b"mcp-session-id") is not None and not call.modern
    if request.method == "GET":
        return not in_session
    return not (call.modern or in_session) and any(message.method == "initialize" for message in call.messages)


def _charge(name: str, limit: Limit, key: str, cost: int) -> tuple[str, Bucket]:
    return name, Bucket(f"mcp:limit:{name}:{key}", limit.burst, limit.period, cost)


def _fields(name: str, bucket: Bucket, level: Level) -> RawHeaders:
    """The `RateLimit` and `RateLimit-Policy` fields: the quota, what is left of it, and seconds until it is whole."""
    seconds = _seconds(level.reset if level.allowed else level.retry_after)
    policy = f'"{name}";q={bucket.burst};w={_seconds(bucket.period)}'
    return [
        (b"ratelimit-policy", policy.encode()),
        (b"ratelimit", f'"{name}";r={level.remaining};t={seconds}'.encode()),
    ]


def _seconds(duration: timedelta) -> int:
    return max(1, math.ceil(duration.total_seconds()))
