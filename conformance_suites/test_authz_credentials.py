"""AUTHZ: several credentials at once, and credentials that come and go on one connection."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from conformance_suites.sessions import open_session
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, mcp, requirement
from pytest_mcp_conformance.acceptance import Acceptance, judge
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

BAD = "conformance-check.never.issued"


class SeveralCredentialsServed(Finding):
    """A request with several credentials succeeds."""


class SecondTokenIgnored(Advice):
    """A request with a good header and another token in the query succeeds as if the query were not there."""


class ConnectionRemembered(Finding):
    """A request without a good token is served because of an earlier one on its connection."""


class SessionRemembered(Finding):
    """A request without a good token is served because of its session."""


@dataclass(frozen=True, repr=False)
class Several:
    """A request with several credentials."""

    what: str
    headers: tuple[Header, ...]
    query: str = ""

    def __repr__(self) -> str:
        return f"Several({self.what!r})"


def combinations(good: str, others: dict[str, str]) -> list[Several]:
    """Ordered pairs of a good credential and another one, by every way of sending two."""
    found: list[Several] = []
    for name, other in others.items():
        for first, second, order in ((good, other, f"a good and {name}"), (other, good, f"{name} and a good")):
            pair = (("Authorization", f"Bearer {first}"), ("Authorization", f"Bearer {second}"))
            joined = ("Authorization", f"Bearer {first}, Bearer {second}")
            found.append(Several(f"two fields, {order} token", pair))
            found.append(Several(f"one field, {order} token joined by a comma", (joined,)))
    bad = others["a bad"]
    both = (("Authorization", f"Bearer {good}"), ("Authorization", f"DPoP {bad}"))
    found.append(Several("a good Bearer and a bad DPoP credential", both))
    found.append(Several("a bad DPoP and a good Bearer credential", both[::-1]))
    field = ("Authorization", f"Bearer {bad}")
    found.append(Several("a bad token in the field and a good one in the query", (field,), f"access_token={good}"))
    return found


@requirement("AUTHZ-011")
def test_several_credentials_are_refused(target: Target, alice: Credential, bob_if_given: Credential | None) -> None:
    """RFC 6750 §2, §3.1: 400 invalid_request, or 401; whichever is good and whichever comes first."""
    target.require_protected()
    others = {"a bad": BAD} | ({} if bob_if_given is None else {"another user's": bob_if_given.token})
    harmless = target.harmless()
    clear = 0
    with target.controlled(alice) as good:
        for several in combinations(alice.token, others):
            exchange = _present(target, harmless, several)
            verdict = judge(exchange, anonymous=target.anonymous(harmless), good=good)
            clear += verdict is not Acceptance.UNCLEAR
            if verdict is Acceptance.AUTHENTICATED:
                raise SeveralCredentialsServed(
                    "a request with several credentials succeeds",
                    evidence=exchange,
                    expected="400 invalid_request, or 401",
                    got=exchange.summary,
                    counterexample=several.what,
                )
        beside = Several("a good token in the field and a bad one in the query", (alice.header,), f"access_token={BAD}")
        exchange = _present(target, harmless, beside)
        if judge(exchange, anonymous=target.anonymous(harmless), good=good) is Acceptance.AUTHENTICATED:
            raise SecondTokenIgnored(
                "a second token in the query is passed over in silence",
                evidence=exchange,
                expected="400 invalid_request",
                got=exchange.summary,
                counterexample=beside.what,
            )
    if not clear:
        raise Inconclusive("no answer told whether the credentials were honoured")


def _present(target: Target, harmless: Request, several: Several) -> Exchange:
    mark = "&" if "?" in harmless.url else "?"
    url = f"{harmless.url}{mark}{several.query}" if several.query else harmless.url
    return target.send(Request(harmless.method, url, (*harmless.headers, *several.headers), harmless.body))


@requirement("AUTHZ-013")
def test_every_request_of_a_connection_is_judged(
    target: Target, alice: Credential, expired_if_given: Credential | None, probe: Probe, space: Space
) -> None:
    """MCP authorization, Token Requirements: authorization is in every request, even within one session."""
    target.require_protected()
    harmless = target.harmless()
    values = {"good": alice.header[1], "bad": f"Bearer {BAD}"}
    if expired_if_given is not None:
        values["expired"] = expired_if_given.header[1]
    anonymous = target.anonymous(harmless)

    def judge_order(states: tuple[str, ...]) -> None:
        with probe.connection(target.url) as link:
            for number, state in enumerate(states):
                extra = (("Authorization", values[state]),) if state in values else ()
                exchange = link.send(harmless.with_headers(*extra), head_only=harmless.method == "GET")
                served = judge(exchange, anonymous=anonymous, good=good) is Acceptance.AUTHENTICATED
                if served and state != "good":
                    raise ConnectionRemembered(
                        "a request without a good token is served on a connection that had one",
                        evidence=exchange,
                        expected="401",
                        got=exchange.summary,
                        counterexample=", then ".join(states[: number + 1]),
                    )

    orders = st.lists(st.sampled_from(sorted({*values, "none"})), min_size=2, max_size=4).map(
        lambda rest: ("good", *rest)
    )
    with target.controlled(alice) as good:
        classic = ("good", "none", "bad", "good", "none")
        space.search(judge_order, orders.map(lambda rest: ("good", *rest)), classics=[classic], max_examples=1)
    _judge_session(target, alice, expired_if_given)


def _judge_session(target: Target, alice: Credential, expired: Credential | None) -> None:
    if Era.LEGACY not in target.eras:
        return
    try:
        session = open_session(target, alice)
    except NotApplicable:
        return
    listing = mcp.legacy("tools/list", session=session)
    target.send(listing, alice)
    for state, header in (("no", ()), *(() if expired is None else (("an expired", (expired.header,)),))):
        exchange = target.send(listing, None, *header)
        if exchange.succeeded:
            raise SessionRemembered(
                "a request without a good token is served within a session that was opened with one",
                evidence=exchange,
                expected="401",
                got=exchange.summary,
                counterexample=f"tools/list with {state} token",
            )
