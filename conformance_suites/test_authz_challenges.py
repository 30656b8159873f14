"""AUTHZ: what the challenges of refusals say, and to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

from hypothesis import strategies as st

from conformance_suites.minted import challenged_scopes, offered_scopes
from pytest_mcp_conformance import Finding, Inconclusive, NotApplicable, requirement
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.challenges import Challenge, MalformedChallenge
from pytest_mcp_conformance.checks import last
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.failures import Judgement
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

KNOWN_SCHEMES = frozenset({"bearer", "dpop"})
ERROR_MEMBERS = ("error", "error_description", "error_uri")
A_FEW_SCOPES = 2
MARKER = "CONFORMANCEmarker"
# RFC 6750 §3: what scope, error and error_description may be made of leaves out the quote and the backslash.
_FORBIDDEN = re.compile(r"[^\x20-\x7e]|\\")


class RefusalWithoutChallenge(Finding):
    """A 401 carries no WWW-Authenticate field."""


class ChallengeMalformed(Finding):
    """A WWW-Authenticate field is not in the grammar, or repeats a parameter."""


class ChallengeOfAnUnknownScheme(Finding):
    """A challenge is for another scheme than Bearer or DPoP, and none is for those."""


class ChallengeWithoutParameters(Finding):
    """A Bearer or DPoP challenge has no parameter."""


class ErrorWithoutCredentials(Finding):
    """A request without credentials is told about an error."""


class BadTokenNot401(Finding):
    """A token that was never issued is answered with another status than 401."""


class BadTokenWithoutError(Finding):
    """A token that was never issued is not answered invalid_token."""


class NoScopeSuggested(Finding):
    """The first challenge suggests no scopes."""


class EveryScopeSuggested(Finding):
    """The first challenge lists every scope there is."""


class ChallengeOutsideAlphabet(Finding):
    """A challenge holds a character that RFC 6750 keeps out."""


class ChallengeRepeatsTheRequest(Finding):
    """A challenge repeats what the request contained."""


class PreflightRefused(Finding):
    """A preflight from an allowed origin needs a token."""


class ChallengeHiddenFromScripts(Finding):
    """A page of an allowed origin cannot read the challenge."""


def at_the_endpoint(target: Target, probe: Probe) -> list[Exchange]:
    """Every exchange of the run with the endpoint itself."""
    endpoint = urlsplit(target.url)[:3]
    return [exchange for exchange in probe.history if urlsplit(exchange.request.url)[:3] == endpoint]


def provoke(target: Target, expired: Credential | None) -> Iterator[Exchange]:
    """Refusals of every sort: nothing presented, nonsense, and what has expired, by each verb."""
    harmless = target.harmless()
    values = ["Bearer nonsense", "Basic eDp5", *([] if expired is None else [str(expired.header[1])])]
    yield target.anonymous(harmless)
    for value in values:
        yield target.send(harmless, None, ("Authorization", value))
    for verb in ("GET", "DELETE"):
        yield target.send(Request(verb, target.url, (("Accept", "text/event-stream"),)))
        yield target.send(Request(verb, target.url, (("Authorization", "Bearer nonsense"),)))


@last
@requirement("AUTHZ-002")
def test_every_401_carries_a_challenge(target: Target, probe: Probe, expired_if_given: Credential | None) -> None:
    """RFC 9110 §15.5.2. All refusals of the run are looked at, and some provoked for it."""
    target.require_protected()
    provoked = list(provoke(target, expired_if_given))
    refused = [exchange for exchange in at_the_endpoint(target, probe) if exchange.status == 401]
    if not refused:
        raise NotApplicable(f"nothing is answered 401 ({provoked[0].summary})")
    probe.cite(*refused)
    for exchange in refused:
        if not exchange.header_lines("www-authenticate"):
            raise RefusalWithoutChallenge(
                "a 401 comes without a challenge",
                evidence=exchange,
                expected="WWW-Authenticate: Bearer …",
                got=f"{exchange.summary}, no WWW-Authenticate",
            )


@last
@requirement("AUTHZ-003")
def test_challenges_follow_the_grammar(target: Target, probe: Probe) -> None:
    """RFC 9110 §11.6.1, OAuth 2.1 §5.3.1: a scheme with at least one parameter, and none of them twice."""
    target.require_protected()
    judged: dict[tuple[str, ...], Exchange] = {}
    for exchange in at_the_endpoint(target, probe):
        lines = tuple(exchange.header_lines("www-authenticate"))
        if lines:
            judged.setdefault(lines, exchange)
    if not judged:
        raise NotApplicable("no answer of the run carries a challenge (see AUTHZ-002)")
    probe.cite(*judged.values())
    for exchange in judged.values():
        _judge_grammar(exchange)


def _judge_grammar(exchange: Exchange) -> None:
    try:
        challenges = exchange.challenges
    except MalformedChallenge as error:
        raise ChallengeMalformed(
            "a challenge is not in the grammar of WWW-Authenticate",
            evidence=exchange,
            expected='Bearer name="value", name="value"',
            got=str(error),
        ) from None
    known = [challenge for challenge in challenges if challenge.scheme.lower() in KNOWN_SCHEMES]
    if not known:
        raise ChallengeOfAnUnknownScheme(
            "no challenge is for a scheme that MCP clients know",
            evidence=exchange,
            expected="Bearer or DPoP",
            got=", ".join(challenge.scheme for challenge in challenges),
        )
    if not all(challenge.parameters for challenge in known):
        raise ChallengeWithoutParameters(
            "a challenge is the name of its scheme and nothing else",
            evidence=exchange,
            expected="at least one parameter after the scheme",
            got=", ".join(exchange.header_lines("www-authenticate")),
        )


@requirement("AUTHZ-004")
def test_no_error_is_told_to_a_request_without_credentials(target: Target) -> None:
    """RFC 6750 §3.1: the server should not include an error code when no authentication information was sent."""
    challenge = _bearer(target.require_protected())
    told = [name for name in ERROR_MEMBERS if name in challenge.parameters]
    if told:
        raise ErrorWithoutCredentials(
            "a request without credentials is told that something is wrong with them",
            evidence=target.challenge,
            expected="a challenge without error, error_description and error_uri",
            got=", ".join(f"{name}={challenge.parameters[name]!r}" for name in told),
        )


def _bearer(exchange: Exchange) -> Challenge:
    challenge = exchange.bearer()
    if challenge is None:
        raise NotApplicable(f"the refusal carries no Bearer challenge that can be read: {exchange.summary}")
    return challenge


@requirement("AUTHZ-005")
def test_a_bad_token_is_answered_invalid_token(target: Target) -> None:
    """RFC 6750 §3.1: 401 and invalid_token for a token that is expired, revoked, malformed or otherwise no good."""
    target.require_protected()
    for what, token in (("text", "Zm9yZ2Vk-token_0123456789"), ("the shape of a JWT", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA")):
        exchange = target.send(target.harmless(), None, ("Authorization", f"Bearer {token}"))
        if exchange.status != 401:
            raise BadTokenNot401(
                "a token that was never issued is answered with another status than 401",
                evidence=exchange,
                expected="401",
                got=exchange.summary,
                counterexample=f"a token of {what}",
            )
        challenge = exchange.bearer()
        if challenge is not None and challenge.parameters.get("error") != "invalid_token":
            raise BadTokenWithoutError(
                "the challenge to a token that was never issued does not say what is wrong",
                evidence=exchange,
                expected='error="invalid_token"',
                got=exchange.summary,
                counterexample=f"a token of {what}",
            )


@requirement("AUTHZ-009")
def test_the_first_challenge_suggests_scopes(target: Target, bench: Bench) -> None:
    """MCP authorization, Scope Selection Strategy. A list of three or more that is the whole catalogue is no choice."""
    exchange = target.require_protected()
    _bearer(exchange)
    suggested = challenged_scopes(target)
    if not suggested:
        raise NoScopeSuggested(
            "the first challenge does not say which scopes to ask for",
            evidence=exchange,
            expected='scope="…" with what a first use needs',
            got=exchange.summary,
        )
    try:
        catalogue = offered_scopes(target, bench.authorization_server())
    except Judgement:
        catalogue = frozenset()
    if len(suggested) > A_FEW_SCOPES and suggested >= catalogue and catalogue:
        raise EveryScopeSuggested(
            "the first challenge asks for every scope there is",
            evidence=exchange,
            expected="the scopes that a first use needs",
            got=f"scope={' '.join(sorted(suggested))!r}",
        )


def hostile_tokens() -> list[tuple[str, str | bytes]]:
    """What a challenge must not repeat: quotes, backslashes, text shaped like a header, and a plain word."""
    return [
        ("a plain word", f"{MARKER}.{MARKER}.{MARKER}"),
        ("a quote", f'{MARKER}", error="none'),
        ("a backslash", f"{MARKER}\\"),
        ("percent-encoded line breaks", f"{MARKER}%0d%0aSet-Cookie:%20{MARKER}=1"),
        ("octets outside ASCII", MARKER.encode() + b"\xc3\xa9\xe2\x80\x94"),
        ("a comma and a parameter", f"{MARKER}, scope=admin"),
    ]


@requirement("AUTHZ-012")
def test_challenges_hold_harmless_characters_only(target: Target, space: Space) -> None:
    """RFC 6750 §3: no quote, no backslash, no line break; and nothing of the request."""
    target.require_protected()
    judged: list[Exchange] = []

    def judge(hostile: tuple[str, str | bytes]) -> None:
        what, text = hostile
        octets = text if isinstance(text, bytes) else text.encode("latin-1")
        exchange = target.send(target.harmless(), None, ("Authorization", b"Bearer " + octets))
        if exchange.header_lines("www-authenticate"):
            judged.append(exchange)
        _judge_characters(exchange, what)

    words = st.text(st.sampled_from(" !'(){}<>;:@/?=&%$#*+~^|`abc019"), min_size=1, max_size=12)
    space.search(
        judge,
        words.map(lambda text: ("punctuation", f"{MARKER}{text}{MARKER}")),
        classics=hostile_tokens(),
        max_examples=4,
    )
    path = f"{target.url}/{quote(f'{MARKER} error=none', safe='')}"
    _judge_characters(target.send(Request("POST", path, target.harmless().headers, b"{}")), "a path")
    if not judged:
        raise Inconclusive("none of the refusals carries a challenge")


def _judge_characters(exchange: Exchange, what: str) -> None:
    for line in exchange.header_lines("www-authenticate"):
        found = _FORBIDDEN.search(line)
        if found is not None:
            raise ChallengeOutsideAlphabet(
                "a challenge holds a character outside the sets of RFC 6750",
                evidence=exchange,
                expected="printable ASCII without backslash",
                got=f"the character {found[0]!r}",
                counterexample=what,
            )
    challenge = exchange.bearer()
    told = {} if challenge is None else challenge.parameters
    for name in ("scope", "error", "error_description"):
        if MARKER in told.get(name, ""):
            raise ChallengeRepeatsTheRequest(
                f"{name} repeats a part of the request",
                evidence=exchange,
                expected="a fixed text",
                got=f"{name} holds the word that was sent",
                counterexample=what,
            )


@requirement("AUTHZ-024")
def test_scripts_of_allowed_origins_can_read_the_challenge(target: Target) -> None:
    """Fetch, CORS protocol: a header that is not exposed does not exist for a page."""
    target.require_protected()
    own: Header = ("Origin", target.origin)
    refusal = target.send(target.harmless(), None, own)
    if not refusal.header("access-control-allow-origin"):
        raise NotApplicable("the refusal has no Access-Control-Allow-Origin for a page of the server's own origin")
    asked: tuple[Header, ...] = (
        own,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    )
    preflight = target.send(Request("OPTIONS", target.url, asked))
    if not preflight.succeeded:
        raise PreflightRefused(
            "a preflight, which cannot carry a token, is refused for want of one",
            evidence=preflight,
            expected="2xx",
            got=preflight.summary,
        )
    lines = ",".join(refusal.header_lines("access-control-expose-headers"))
    exposed = {word.strip().lower() for word in lines.split(",")}
    wanted = {"www-authenticate"} | ({"dpop-nonce"} if refusal.header("dpop-nonce") else set())
    if "*" not in exposed and not wanted <= exposed:
        raise ChallengeHiddenFromScripts(
            "a page of an allowed origin cannot read the challenge",
            evidence=refusal,
            expected=f"Access-Control-Expose-Headers: {', '.join(sorted(wanted))}",
            got=lines or "no Access-Control-Expose-Headers",
        )
