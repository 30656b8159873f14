"""RATE, what fields say of limits: judged by every answer of the run that has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from conformance_suites.calls import Caller
from conformance_suites.limited_calls import limited_calls
from conformance_suites.test_rate import exhausted, seconds_to_wait
from pytest_mcp_conformance import Finding, Inconclusive, NotApplicable, requirement
from pytest_mcp_conformance.checks import last
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.structured_fields import Item, Malformed, Token, Value, read_list
from pytest_mcp_conformance.target import Target

LIMIT, POLICY = "ratelimit", "ratelimit-policy"


class FieldMalformed(Finding):
    """A RateLimit field is no list of strings with the parameters that the draft names."""


class FieldsDisagree(Finding):
    """RateLimit names a policy that RateLimit-Policy does not, or more than its quota is left."""


class RetryBeforeReset(Finding):
    """Retry-After is earlier than the reset that RateLimit announces."""


@last
@requirement("RATE-003")
def test_rate_limit_fields_are_structured_and_add_up(
    target: Target, probe: Probe, alice: Credential, declared: Declarations
) -> None:
    """The HTTPAPI draft on RateLimit fields, from -08 on. Sends one call, and looks at all answers of the run."""
    if declared.limited_tool is not None:
        limited_calls(target, alice, declared).call()
    else:
        caller = Caller(target, alice)
        caller.send(caller.request("tools/list"))
    judged = [exchange for exchange in probe.history if exchange.header(LIMIT) or exchange.header(POLICY)]
    if not judged:
        raise NotApplicable("no answer of the run has a RateLimit or RateLimit-Policy field")
    for exchange in judged:
        _judge(exchange)
    probe.cite(judged[-1])


def _judge(exchange: Exchange) -> None:
    policies = {item.value: item for item in _items(exchange, POLICY, "q")}
    for item in _items(exchange, LIMIT, "r"):
        policy = policies.get(item.value)
        quota = None if policy is None else policy.parameters.get("q")
        left = item.parameters["r"]
        if policies and (policy is None or (isinstance(quota, int) and isinstance(left, int) and left > quota)):
            raise FieldsDisagree(
                "RateLimit does not agree with RateLimit-Policy",
                evidence=exchange,
                expected="a policy of the same name, and no more left than its quota",
                got=f"RateLimit: {exchange.header(LIMIT)}, RateLimit-Policy: {exchange.header(POLICY)}",
            )


def _items(exchange: Exchange, field: str, needed: str) -> Iterator[Item]:
    """The items of a field, each of which has to have an integer in the parameter `needed`."""
    try:
        items = read_list(exchange.header_lines(field))
    except Malformed as error:
        raise _malformed(exchange, field, str(error)) from None
    for item in items:
        if not isinstance(item.value, str) or isinstance(item.value, Token):
            raise _malformed(exchange, field, "an item is no string")
        if not _counts(item.parameters, needed, required=True):
            raise _malformed(exchange, field, f"{needed} is missing, or no integer from 0")
        if not all(_counts(item.parameters, name) for name in ("t", "w")) or item.parameters.get("w") == 0:
            raise _malformed(exchange, field, "t or w is no integer, or w is 0")
        yield item


def _counts(parameters: Mapping[str, Value], name: str, *, required: bool = False) -> bool:
    """Whether a parameter is an integer from 0, or absent where it may be."""
    value = parameters.get(name)
    if value is None:
        return not required
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _malformed(exchange: Exchange, field: str, why: str) -> FieldMalformed:
    return FieldMalformed(
        "a RateLimit field does not parse",
        evidence=exchange,
        expected='items such as "policy";q=10;w=60 and "policy";r=9;t=60',
        got=f"{field}: {exchange.header(field)} ({why})",
    )


@last
@requirement("RATE-004")
def test_retry_after_is_not_before_the_reset(target: Target, alice: Credential, declared: Declarations) -> None:
    """The HTTPAPI draft, Server Behavior. Uses the declared limit up."""
    refusal = exhausted(limited_calls(target, alice, declared))
    wait, resets = seconds_to_wait(refusal), _resets(refusal)
    if wait is None or not resets:
        raise NotApplicable("the refusal has no Retry-After, or no RateLimit field with a time")
    if wait <= 0:
        raise Inconclusive("Retry-After names no time to come (see RATE-002)")
    if wait < min(resets):
        raise RetryBeforeReset(
            "Retry-After is earlier than the reset that RateLimit announces",
            evidence=refusal,
            expected=f"Retry-After of {min(resets)} at least",
            got=f"Retry-After: {refusal.header('retry-after')}",
        )


def _resets(refusal: Exchange) -> list[int]:
    """The times of the policies that are used up."""
    try:
        items = read_list(refusal.header_lines(LIMIT))
    except Malformed:
        return []
    times = [item.parameters.get("t") for item in items if item.parameters.get("r") == 0]
    return [time for time in times if isinstance(time, int) and not isinstance(time, bool)]
