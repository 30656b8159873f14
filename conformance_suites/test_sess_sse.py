"""SESS: HTTP+SSE (2024-11-05), where the key of a session is part of a URL."""

from __future__ import annotations

import secrets as randomness
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from hypothesis import strategies as st

from conformance_suites.randomness import ENOUGH_BITS, random_bits
from pytest_mcp_conformance import Finding, Inconclusive, mcp, requirement
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.streams import SseSession, open_sse
from pytest_mcp_conformance.target import Target

SAMPLE = 8
FORGED_HOST = "evil.example"
ALIASES = ("session_id", "sessionId", "sessionid", "session")


class MessageOfAnotherTaken(Finding):
    """A message of another user, or of nobody, is taken for a stream."""


class StreamToldApart(Finding):
    """Another user can tell the address of a stream from one that leads nowhere."""


class EndpointElsewhere(Finding):
    """The endpoint event names another origin."""


class EndpointGuessable(Finding):
    """The key in the endpoint event holds too little chance."""


def key_of(endpoint: str) -> tuple[str, str]:
    """The name and value of the session's key: the longest query value, else the last segment of the path."""
    pairs = parse_qsl(urlsplit(endpoint).query)
    name, value = max(pairs, key=lambda pair: len(pair[1]), default=("", ""))
    return (name, value) if value else ("", urlsplit(endpoint).path.rpartition("/")[2])


def with_key(endpoint: str, key: str) -> str:
    """The address with another key in place of the session's."""
    return endpoint.replace(key_of(endpoint)[1], key)


def other_spellings(endpoint: str) -> list[tuple[str, str]]:
    """Addresses a loose reader takes for the same: the key under other names, twice, in other case or hyphenation."""
    name, key = key_of(endpoint)
    bare = endpoint.partition("?")[0]
    found = [("the address itself", endpoint)]
    found += [(f"the key as {alias}", f"{bare}?{urlencode({alias: key})}") for alias in ALIASES if alias != name]
    if name:
        found.append(("the key twice", f"{endpoint}&{urlencode({name: key})}"))
        found.append(("another key first", f"{bare}?{urlencode([(name, '0' * len(key)), (name, key)])}"))
    hyphened = f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}" if len(key) == 32 else key.replace("-", "")
    return [*found, ("other case", with_key(endpoint, key.upper())), ("other hyphens", with_key(endpoint, hyphened))]


@requirement("SESS-012")
def test_the_message_address_works_for_its_opener_alone(
    target: Target, alice: Credential, bob: Credential, probe: Probe, space: Space
) -> None:
    """MCP best practices, Session Hijacking: to anybody else the stream does not exist."""
    target.require_protected()
    target.require(Era.SSE)
    with open_sse(probe, target.url, alice) as session:
        if session.begin(alice) is None:
            raise Inconclusive("the owner of the stream gets no answer on it")
        unknown = with_key(session.endpoint, randomness.token_hex(16))

        def judge(spelling: tuple[str, str]) -> None:
            what, url = spelling
            for who, credential in (("another user", bob), ("nobody", None)):
                exchange = _post(probe, url, credential)
                _judge_taken(session, exchange, f"{what}, posted to by {who}")

        space.search(
            judge,
            st.sampled_from(other_spellings(session.endpoint)),
            classics=other_spellings(session.endpoint)[:1],
            max_examples=6,
        )
        _judge_difference(_post(probe, session.endpoint, bob), _post(probe, unknown, bob))
        if session.ask(mcp.sse("ping", request_id="after"), alice) is None:
            raise Inconclusive("the stream no longer answers its owner, so the refusals prove nothing")


def _post(probe: Probe, url: str, credential: Credential | None) -> Exchange:
    headers: tuple[Header, ...] = () if credential is None else (credential.header,)
    return probe.send(mcp.sse("ping", request_id="strange").request(url, *headers))


def _judge_taken(session: SseSession, exchange: Exchange, what: str) -> None:
    appeared = session.next_message(0.05) if not exchange.succeeded else session.next_message(0.5)
    if exchange.succeeded or appeared is not None:
        raise MessageOfAnotherTaken(
            "a message is taken for a stream that its sender did not open",
            evidence=exchange,
            expected="404 with another user's token, 401 without one, and nothing on the stream",
            got=exchange.summary + (", and a message on the stream" if appeared is not None else ""),
            counterexample=what,
        )


def _judge_difference(stolen: Exchange, unknown: Exchange) -> None:
    if stolen.status != unknown.status:
        raise StreamToldApart(
            "another user can tell the address of a stream from one that leads nowhere",
            evidence=(unknown, stolen),
            expected=f"the answer for an unknown key: {unknown.summary}",
            got=stolen.summary,
        )


@requirement("SESS-013")
def test_the_endpoint_event_stays_at_home_and_its_key_is_random(
    target: Target, alice: Credential, probe: Probe
) -> None:
    """MCP 2024-11-05, HTTP with SSE: clients must refuse an endpoint of another origin."""
    target.require(Era.SSE)
    credential = alice if target.protected else None
    keys: list[str] = []
    for host in ("",) * SAMPLE + (FORGED_HOST,):
        opened, endpoint = _endpoint(target, probe, credential, host)
        if not endpoint and host:
            break  # refused, and so said nothing wrong
        if not endpoint:
            raise Inconclusive(f"the stream did not begin with an endpoint event: {opened.summary}")
        if urlsplit(endpoint)[:2] != urlsplit(target.url)[:2]:
            raise EndpointElsewhere(
                "the endpoint event names another origin than that of the stream",
                evidence=opened,
                expected=f"an address at {target.origin}",
                got=f"one at {urlsplit(endpoint).netloc}",
                counterexample=f"Host: {host}" if host else "",
            )
        keys.append(key_of(endpoint)[1])
        probe.secrets.add(keys[-1], "STREAM")
    bits = random_bits(keys)
    if bits < ENOUGH_BITS or len(set(keys)) < len(keys):
        raise EndpointGuessable(
            "the key in the endpoint event holds too little chance",
            evidence=probe.cited[-1],
            expected="128 random bits; those of a UUID are let through",
            got=f"at most {bits:.0f} bits, judging by {len(keys)} keys",
        )


def _endpoint(target: Target, probe: Probe, credential: Credential | None, host: str) -> tuple[Exchange, str]:
    headers: list[Header] = [("Accept", "text/event-stream")]
    headers += [("Host", host)] if host else []
    headers += [] if credential is None else [credential.header]
    with probe.stream(Request("GET", target.url, tuple(headers))) as (exchange, stream):
        event = stream.next_event() if exchange.succeeded else None
    if event is None or event.event != "endpoint":
        return exchange, ""
    return exchange, urljoin(target.url, event.data)
