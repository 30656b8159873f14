"""RATE: limits on calls. They are used up only where the operator declared a small one, and after all other checks."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from conformance_suites.limited_calls import LimitedCalls, limited_calls
from pytest_mcp_conformance import Finding, Inconclusive, requirement
from pytest_mcp_conformance.checks import last
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.probe import Probe, retry_after_seconds
from pytest_mcp_conformance.target import Target


class CallsUnlimited(Finding):
    """A tool was called twice as often as its limit allows, and every call was carried out."""


class RefusalWithoutReturn(Finding):
    """A refusal for rate does not say when to return, or names no time to come."""


class RefusalIsNot429(Finding):
    """A refusal for rate has another status than 429."""


class RefusalUnreadable(Finding):
    """The body of a refusal for rate is not JSON."""


class RetryTooEarly(Finding):
    """After the time that Retry-After names the call is refused again."""


@last
@requirement("RATE-001")
def test_calls_of_a_tool_are_limited(target: Target, alice: Credential, declared: Declarations) -> None:
    """MCP tools, Security Considerations. Sends up to twice the declared number of calls, at most 100."""
    calls = limited_calls(target, alice, declared)
    seen = calls.burst(2 * calls.limit.calls)
    if calls.refused(seen[-1]):
        return
    if calls.spent_seconds(seen) >= calls.limit.seconds:
        raise Inconclusive("the calls took longer than the time in which they are limited")
    raise CallsUnlimited(
        "a tool was called twice as often as its limit allows, and every call was carried out",
        evidence=(seen[0], seen[-1]),
        expected=f"a refusal after {calls.limit.calls} calls in {calls.limit.seconds:g} seconds",
        got=f"{len(seen)} results",
    )


def exhausted(calls: LimitedCalls) -> Exchange:
    """The refusal that a used up limit is answered with.

    Raises:
        Inconclusive: there is no refusal (RATE-001 judges this).
    """
    answer = calls.burst(2 * calls.limit.calls)[-1]
    if not calls.refused(answer):
        raise Inconclusive("the declared limit is not met (see RATE-001)")
    return answer


@last
@requirement("RATE-002")
def test_refusals_for_rate_say_when_to_return(
    target: Target, probe: Probe, alice: Credential, declared: Declarations
) -> None:
    """RFC 6585 §4, RFC 9110 §10.2.3. Uses the declared limit up, and waits once as long as the server asks for."""
    calls = limited_calls(target, alice, declared)
    refusal = exhausted(calls)
    _judge_form(refusal)
    seconds = seconds_to_wait(refusal)
    if seconds is None or seconds <= 0:
        raise RefusalWithoutReturn(
            "a refusal for rate does not say when to return",
            evidence=refusal,
            expected="Retry-After with a positive number of seconds, or a date to come",
            got=f"Retry-After: {refusal.header('retry-after') or 'absent'}",
        )
    if not probe.wait(seconds):
        raise Inconclusive(f"the server asks to wait {seconds:g} seconds, which is longer than a run waits")
    again = calls.call()
    if calls.refused(again):
        raise RetryTooEarly(
            "after the time that Retry-After names the call is refused again",
            evidence=(refusal, again),
            expected="a result",
            got=again.summary,
        )


def _judge_form(refusal: Exchange) -> None:
    if refusal.status != 429:
        raise RefusalIsNot429(
            "a refusal for rate has another status than 429",
            evidence=refusal,
            expected="429",
            got=refusal.summary,
        )
    if not isinstance(refusal.json(), dict):
        raise RefusalUnreadable(
            "the body of a refusal for rate is not JSON",
            evidence=refusal,
            expected="a JSON object, such as a JSON-RPC error",
            got=refusal.media_type or "no type",
        )


def seconds_to_wait(refusal: Exchange) -> float | None:
    """The Retry-After of an answer in seconds, a date reckoned from its Date field; None when there is neither."""
    seconds = retry_after_seconds(refusal)
    if seconds is not None:
        return seconds
    try:
        until = parsedate_to_datetime(refusal.header("retry-after") or "")
        return (until - parsedate_to_datetime(refusal.header("date") or "")).total_seconds()
    except (TypeError, ValueError):
        return None
