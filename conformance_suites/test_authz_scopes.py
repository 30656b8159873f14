"""AUTHZ: operations beyond the scopes of a token, and how that is told."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from conformance_suites.calls import Caller, did_it
from conformance_suites.minted import challenged_scopes, held_scopes, scopes_not_asked, with_scopes
from pytest_mcp_conformance import Finding, Inconclusive, NotApplicable, NotRun, requirement
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.challenges import Challenge
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.target import Target

TIMES = 3


class MissingScopeNot403(Finding):
    """An operation beyond the token's scopes is answered with another status than 403."""


class MissingScopeWithoutError(Finding):
    """The 403 does not say insufficient_scope."""


class ScopesAskedOneByOne(Finding):
    """A client that gets what was asked for is asked for more."""


class ScopeNotNamed(Finding):
    """The 403 challenge does not say which scope is missing."""


class MetadataNotNamed(Finding):
    """The 403 challenge does not carry the resource_metadata of the 401."""


class RefusedUnder200(Finding):
    """A refusal is told inside a success."""


class NarrowerScopeNotIncluded(Finding):
    """A scope that includes another is not enough where that one is needed."""


class AskedScopesVary(Finding):
    """Equal refusals name different scopes."""


@dataclass(frozen=True, repr=False)
class Beyond:
    """An operation, somebody without the scopes for it, and how it was answered."""

    request: Request
    credential: Credential
    exchange: Exchange

    def challenge(self, target: Target) -> Challenge:
        """The Bearer challenge of the 403.

        Raises:
            NotApplicable: there is none, which AUTHZ-006 judges.
        """
        target.probe.cite(self.exchange)
        found = self.exchange.bearer()
        if self.exchange.status != 403 or found is None:
            raise NotApplicable("the refusal is no 403 with a challenge (see AUTHZ-006)")
        return found


@pytest.fixture(scope="session")
def beyond(bench: Bench) -> Beyond:
    """The tool declared for it, else a harmless request with a token of other scopes than the challenge asks for."""
    target = bench.target
    target.require_protected()
    alice = bench.credential("a")
    if bench.declared.scoped_tool:
        request = Caller(target, alice).call(bench.declared.scoped_tool)
        return Beyond(request, alice, target.send(request, alice))
    request = target.harmless()
    narrow = with_scopes(bench, alice, scopes_not_asked(bench))
    exchange = target.send(request, narrow)
    if exchange.succeeded and exchange.rpc_error is None:
        raise NotRun("a token without the scopes of the challenge is served all the same; declare a scoped_tool")
    return Beyond(request, narrow, exchange)


@pytest.fixture
def beyond_if_any(request: pytest.FixtureRequest) -> Beyond | None:
    """The same; None when the run cannot come by one."""
    try:
        found: Beyond = request.getfixturevalue("beyond")
    except (NotRun, NotApplicable, Inconclusive):
        return None
    return found


@requirement("AUTHZ-006")
def test_a_missing_scope_is_answered_insufficient_scope(target: Target, beyond: Beyond) -> None:
    """RFC 6750 §3.1: 403 and insufficient_scope."""
    target.probe.cite(beyond.exchange)
    if beyond.exchange.status != 403:
        raise MissingScopeNot403(
            "an operation beyond the token's scopes is answered with another status than 403",
            evidence=beyond.exchange,
            expected='403 and a challenge with error="insufficient_scope"',
            got=beyond.exchange.summary,
        )
    challenge = beyond.exchange.bearer()
    if challenge is None or challenge.parameters.get("error") != "insufficient_scope":
        raise MissingScopeWithoutError(
            "the 403 to a token without the scope does not say that a scope is missing",
            evidence=beyond.exchange,
            expected='a Bearer challenge with error="insufficient_scope"',
            got=beyond.exchange.summary,
        )


@requirement("AUTHZ-007")
def test_one_challenge_names_all_that_is_missing(target: Target, bench: Bench, beyond: Beyond) -> None:
    """MCP authorization: all scopes of the current operation in one challenge."""
    asked = frozenset(beyond.challenge(target).parameters.get("scope", "").split())
    if not asked:
        raise NotApplicable("the challenge names no scope (see AUTHZ-008)")
    held = held_scopes(beyond.credential) or challenged_scopes(target)
    credential = with_scopes(bench, bench.credential("a"), held | asked)
    exchange = target.send(beyond.request, credential)
    again = exchange.bearer()
    more = frozenset() if again is None else frozenset(again.parameters.get("scope", "").split()) - held - asked
    if exchange.status == 403 and more:
        raise ScopesAskedOneByOne(
            "a client that came back with what it was asked for is asked for more",
            evidence=(beyond.exchange, exchange),
            expected="all missing scopes in the first challenge",
            got=f"first {' '.join(sorted(asked))!r}, then {' '.join(sorted(more))!r} as well",
        )
    if exchange.status in {0, 401} or exchange.status >= 500:
        raise Inconclusive(f"the token with more scopes was not judged by them: {exchange.summary}")


@requirement("AUTHZ-008")
def test_the_scope_challenge_names_scopes_and_metadata(target: Target, beyond: Beyond) -> None:
    """MCP authorization, Runtime Insufficient Scope Errors: scope and resource_metadata."""
    challenge = beyond.challenge(target)
    if not challenge.parameters.get("scope", "").split():
        raise ScopeNotNamed(
            "the 403 does not say which scope is missing",
            evidence=beyond.exchange,
            expected='scope="…"',
            got=beyond.exchange.summary,
        )
    first = target.require_protected().bearer()
    named = "" if first is None else first.parameters.get("resource_metadata", "")
    if named and challenge.parameters.get("resource_metadata") != named:
        raise MetadataNotNamed(
            "the 403 does not say where the metadata is, as the 401 does",
            evidence=(target.challenge, beyond.exchange),
            expected=f"resource_metadata={named!r}",
            got=f"resource_metadata={challenge.parameters.get('resource_metadata')!r}",
        )


@requirement("AUTHZ-015")
def test_refusals_are_told_by_the_status(target: Target, beyond_if_any: Beyond | None) -> None:
    """MCP authorization, Error Handling: 401, 403 and 400 are HTTP statuses."""
    target.require_protected()
    harmless = target.harmless()
    answers = {
        "no credentials": target.anonymous(harmless),
        "a bad token": target.send(harmless, None, ("Authorization", "Bearer conformance-check.never.issued")),
        "a malformed field": target.send(harmless, None, ("Authorization", "Bearer")),
    }
    if beyond_if_any is not None:
        target.probe.cite(beyond_if_any.exchange)
        answers["a token without the scope"] = beyond_if_any.exchange
    for what, exchange in answers.items():
        if exchange.succeeded and not did_it(exchange):
            raise RefusedUnder200(
                "a refusal is told inside a success, where clients do not look for it",
                evidence=exchange,
                expected="401, 403 or 400 in the status line",
                got=exchange.summary,
                counterexample=what,
            )


@requirement("AUTHZ-016")
def test_a_scope_includes_the_narrower_ones(target: Target, bench: Bench, alice: Credential) -> None:
    """MCP authorization, Step-Up: a token with the broader scope is enough for what needs the narrower one."""
    needed = challenged_scopes(target)
    pairs = {broad: set(narrow) for broad, narrow in bench.declared.implied_scopes.items() if needed <= set(narrow)}
    if not pairs or not needed:
        raise NotApplicable("no scope is declared to include those that the first challenge asks for")
    with target.controlled(alice):
        for broad in pairs:
            exchange = target.send(target.harmless(), with_scopes(bench, alice, [broad]))
            if exchange.status == 403:
                raise NarrowerScopeNotIncluded(
                    "a scope that includes the one needed is not enough",
                    evidence=exchange,
                    expected="the answer a token with the narrower scope gets",
                    got=exchange.summary,
                    counterexample=f"a token with {broad} alone, where {' '.join(sorted(needed))} is needed",
                )
            if not exchange.succeeded:
                raise Inconclusive(f"the token with the broader scope was not judged by it: {exchange.summary}")


@requirement("AUTHZ-020")
def test_equal_refusals_name_equal_scopes(target: Target, beyond: Beyond) -> None:
    """MCP authorization, Scope Selection Strategy: what an operation needs stays the same."""
    seen = [frozenset(beyond.challenge(target).parameters.get("scope", "").split())]
    exchanges = [beyond.exchange]
    for _ in range(TIMES):
        exchanges.append(target.send(beyond.request, beyond.credential))
        challenge = exchanges[-1].bearer()
        seen.append(frozenset("" if challenge is None else challenge.parameters.get("scope", "").split()))
    for exchange, scopes in zip(exchanges, seen, strict=True):
        if scopes != seen[0]:
            raise AskedScopesVary(
                "the same refusal names other scopes from one time to the next",
                evidence=(beyond.exchange, exchange),
                expected=f"scope={' '.join(sorted(seen[0]))!r} each time",
                got=f"scope={' '.join(sorted(scopes))!r}",
            )
