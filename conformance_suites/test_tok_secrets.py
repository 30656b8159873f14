"""TOK: credentials do not come back."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from hypothesis import strategies as st

from conformance_suites.calls import harmless_tools
from conformance_suites.secret_pieces import PIECE, pieces
from conformance_suites.sessions import open_session
from pytest_mcp_conformance import Finding, NotApplicable, NotRun, mcp, requirement
from pytest_mcp_conformance.checks import last
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.streams import open_sse
from pytest_mcp_conformance.target import Target

QUIET_SECONDS = 0.5
MOST_EVENTS = 10
CARRIES_ITS_OWN = frozenset({"mcp-session-id", "set-cookie"})


class CredentialInAnswer(Finding):
    """An answer repeats the credential of its request."""


class CredentialInNotification(Finding):
    """A notification on a stream repeats the credential of its reader."""


@last
@requirement("TOK-023")
def test_credentials_come_back_in_no_answer(
    target: Target, alice: Credential, declared: Declarations, probe: Probe, space: Space
) -> None:
    """MCP logging §Security; RFC 9700 §4.9.3. Everything the endpoint sent during the run is searched."""

    def judge(words: str) -> None:
        token = words.format(randomness.token_hex(16))
        probe.secrets.add(token, "MARKED")
        _judge_answer(target.send(target.harmless(), None, ("Authorization", f"Bearer {token}")))

    shapes = ["{}", "{0}.{0}", "{0}.{0}.{0}", "{0}.{0}.{0}.{0}.{0}", "{} {}", '{}"', "%0a{}"]
    odd = st.text(st.sampled_from("._-~+/="), min_size=1, max_size=4).map(lambda text: f"{text}{{}}{text}")
    with target.controlled(alice):
        space.search(judge, odd, classics=[shape.replace("{} {}", "{0} {0}") for shape in shapes], max_examples=2)
        for text in _streamed(target, alice, declared, probe):
            _judge_notification(target, text, alice)
    endpoint = urlsplit(target.url)[:3]
    for exchange in probe.history:
        if urlsplit(exchange.request.url)[:3] == endpoint:
            _judge_answer(exchange)


def credentials_in(request: Request) -> Iterator[str]:
    """The credentials a request carries: in Authorization, in cookies, in the query and in a form."""
    for name, value in request.headers:
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if name.lower() == "authorization":
            yield text.partition(" ")[2]
        elif name.lower() == "cookie":
            yield text.partition("=")[2]
    for _, value in parse_qsl(urlsplit(request.url).query):
        yield value


def _judge_answer(exchange: Exchange) -> None:
    headers = () if exchange.response is None else exchange.response.headers
    lines = [f"{name}: {value}" for name, value in headers if name.lower() not in CARRIES_ITS_OWN]
    text = "\n".join([*lines, exchange.text])
    for credential in credentials_in(exchange.request):
        if any(piece in text for piece in pieces(credential)):
            raise CredentialInAnswer(
                "an answer repeats a credential that its request carried, or a part of it",
                evidence=exchange,
                expected="no part of it",
                got=f"{exchange.summary}, with {PIECE} characters of the credential or more",
            )


def _judge_notification(target: Target, text: str, alice: Credential) -> None:
    if any(piece in text for piece in pieces(alice.token)):
        raise CredentialInNotification(
            "a message on a stream repeats the credential of the call it is about",
            evidence=target.probe.cited[-1],
            expected="no part of it",
            got=f"a message with {PIECE} characters of the token or more",
        )


def _streamed(target: Target, alice: Credential, declared: Declarations, probe: Probe) -> Iterator[str]:
    """What comes on a stream of A's after a call; nothing where no tool may be called, or none streams."""
    try:
        tool = harmless_tools(target, declared, alice)[0] if target.era is not Era.SSE else declared.harmless_tools[0]
        if target.era is Era.SSE:
            yield from _on_the_older_transport(target, alice, tool, probe)
        elif Era.LEGACY in target.eras:
            yield from _in_a_session(target, alice, tool, probe)
    except (NotRun, NotApplicable, IndexError):
        return


def _in_a_session(target: Target, alice: Credential, tool: str, probe: Probe) -> Iterator[str]:
    session = open_session(target, alice)
    target.send(mcp.legacy("logging/setLevel", {"level": "debug"}, session=session), alice)
    yield target.send(mcp.legacy("tools/call", {"name": tool, "arguments": {}}, session=session), alice).text
    stream = Request("GET", target.url, (("Accept", "text/event-stream"), ("Mcp-Session-Id", session), alice.header))
    with probe.stream(stream) as (exchange, events):
        if exchange.media_type == "text/event-stream":
            for _ in range(MOST_EVENTS):
                event = events.next_event(QUIET_SECONDS)
                if event is None:
                    return
                yield event.data


def _on_the_older_transport(target: Target, alice: Credential, tool: str, probe: Probe) -> Iterator[str]:
    with open_sse(probe, target.url, alice) as session:
        session.begin(alice)
        session.post(mcp.sse("tools/call", {"name": tool, "arguments": {}}, request_id=2), alice)
        for _ in range(MOST_EVENTS):
            message = session.next_message(QUIET_SECONDS)
            if message is None:
                return
            yield str(message)
