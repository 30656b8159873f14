"""RED, where the answer goes: redirect URIs that are registered, presented and answered to."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from conformance_suites.authorization_pages import opened
from pytest_mcp_conformance import Advice, Finding, Inconclusive, requirement
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.grants import AuthorizationOutcome, Override, Registration
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.uris import uri_classics, uri_neighbours

WEB = "https://client.example/callback"
LOOPBACKS = ("http://127.0.0.1/callback", "http://[::1]/callback")
ELSEWHERE = "https://evil.example/callback"
OTHER_ERRORS: Mapping[str, Mapping[str, Override]] = {
    "nothing else wrong": {},
    "response_type=token": {"response_type": "token"},
    "no code_challenge": {"code_challenge": None, "code_challenge_method": None},
    "an unknown scope": {"scope": "conformance:nothing"},
    "a repeated scope": {"scope": ["a", "b"]},
    "a foreign resource": {"resource": "https://other.example/mcp"},
    "prompt=none": {"prompt": "none"},
}
SCRIPTS = (
    "javascript:alert(1)",
    "data:text/html,x",
    "vbscript:msgbox",
    "file:///etc/passwd",
    "blob:https://a.example/1",
)
ODD_SCRIPTS = (
    "JavaScript:alert(1)",
    "JAVASCRIPT://client.example/%0aalert(1)",
    " javascript:alert(1)",
    "java\tscript:alert(1)",
)
CLEARTEXT = (
    "http://client.example/callback",
    "http://127.0.0.1.evil.example/callback",
    "http://localhost.evil.example/",
)
FRAGMENTS = ("https://client.example/callback#x", "https://client.example/callback#")
STRANGE = (
    "*",
    "https://*.client.example/callback",
    "https://user@client.example/callback",
    "//client.example/callback",
    "/callback",
    "",
)
DOTLESS = "conformanceapp:/callback"


class RedirectedElsewhere(Finding):
    """The answer went to a redirect URI that is not the registered one."""


class LoopbackPortFixed(Finding):
    """A loopback redirect URI is refused on another port than it was registered with."""


class RedirectedUnverified(Finding):
    """A request whose client or redirect URI is wrong was redirected."""


class DangerousUriRegistered(Finding):
    """A redirect URI that leads to a script, a file, a cleartext host or nowhere certain was registered."""


class DotlessSchemeRegistered(Advice):
    """A private-use scheme that any app may claim was registered."""


def web_client(server: AuthorizationServer, *uris: str) -> Registration:
    """A public web client. Raises: Inconclusive, NotApplicable."""
    return server.register(redirect_uris=list(uris or (WEB,)), application_type="web")


def _prove(server: AuthorizationServer, client: Registration, uri: str) -> None:
    """The positive control: the registered URI is answered to."""
    outcome = server.authorize(client, redirect_uri=uri, lands_at=uri)
    if not outcome.code:
        raise Inconclusive(f"a request with the registered redirect URI brings no code: {outcome.summary}")


@requirement("RED-001")
def test_redirect_uris_are_compared_as_strings(authorization_server: AuthorizationServer, space: Space) -> None:
    """RFC 9700 §4.1.3, OAuth 2.1 §2.3.1."""
    server = authorization_server
    client = web_client(server)
    _prove(server, client, WEB)

    def judge(uri: str) -> None:
        _judge_not_answered(server.authorize(client, redirect_uri=uri, lands_at=uri), uri, WEB)

    space.search(judge, uri_neighbours(WEB), classics=uri_classics(WEB), max_examples=4)
    _prove(server, client, WEB)


def _judge_not_answered(outcome: AuthorizationOutcome, uri: str, registered: str) -> None:
    if outcome.redirected:
        raise RedirectedElsewhere(
            "the answer went to a redirect URI that is not the registered one",
            evidence=outcome.exchange,
            expected="an error page",
            got=outcome.summary,
            counterexample=f"redirect_uri={uri!r}, registered {registered!r}",
        )


@requirement("RED-001")
def test_other_loopback_uris_are_not_the_registered_one(authorization_server: AuthorizationServer) -> None:
    """RFC 8252 §7.3 frees the port alone: not the path, the host, nor what is read as one."""
    server = authorization_server
    uri = "http://127.0.0.1:33418/callback"
    client = server.register(redirect_uris=[uri])
    _prove(server, client, uri)
    for near in (
        "http://127.0.0.1:33418/callback/",
        "http://127.0.0.1:33418/other",
        "http://127.0.0.1:33418/callback/../other",
        "http://127.0.0.1:33418@127.0.0.1/callback",
        "http://127.0.0.2:33418/callback",
        "http://127.1:33418/callback",
        "https://127.0.0.1:33418/callback",
    ):
        _judge_not_answered(server.authorize(client, redirect_uri=near, lands_at=near), near, uri)


@requirement("RED-002")
def test_loopback_redirects_have_a_free_port(authorization_server: AuthorizationServer, space: Space) -> None:
    """RFC 8252 §7.3: a native app gets whatever port the system has left."""
    server = authorization_server
    clients = [(uri, server.register(redirect_uris=[uri])) for uri in LOOPBACKS]

    def judge(port: int) -> None:
        for registered, client in clients:
            uri = registered.replace("/callback", f":{port}/callback")
            outcome = server.authorize(client, redirect_uri=uri, lands_at=uri)
            if not outcome.redirected:
                raise LoopbackPortFixed(
                    "a loopback redirect URI is refused on another port than it was registered with",
                    evidence=outcome.exchange,
                    expected="a code",
                    got=outcome.summary,
                    counterexample=f"redirect_uri={uri}, registered {registered}",
                )

    space.search(judge, st.integers(1024, 65535), classics=[49152], max_examples=2)
    for registered, client in clients:
        host = "[::1]" if "127" in registered else "127.0.0.1"
        for near in (f"http://{host}:49152/callback", registered.replace("/callback", ":49152/other")):
            _judge_not_answered(server.authorize(client, redirect_uri=near, lands_at=near), near, registered)


@requirement("RED-003")
def test_nothing_is_redirected_before_client_and_uri_are_known(
    authorization_server: AuthorizationServer, probe: Probe, space: Space
) -> None:
    """OAuth 2.1 §4.1.2.1: whatever else is wrong with the request."""
    server = authorization_server
    client, nobody = web_client(server), Registration("conformance-nobody", redirect_uri=ELSEWHERE)
    _prove(server, client, WEB)
    who = {"an unknown client_id": nobody, "a redirect_uri that is not registered": client}
    cases = [(what, error) for what in who for error in OTHER_ERRORS]

    def judge(case: tuple[str, str]) -> None:
        what, error = case
        exchange, there = opened(probe, server, who[what], ELSEWHERE, **OTHER_ERRORS[error])
        if there:
            raise RedirectedUnverified(
                f"a request with {what} was redirected",
                evidence=exchange,
                expected="an error page",
                got=exchange.summary,
                counterexample=f"{what}, and {error}",
            )

    space.search(judge, st.sampled_from(cases), classics=cases, max_examples=1)
    _judge_missing(server)


def _judge_missing(server: AuthorizationServer) -> None:
    """Of two registered URIs none is the one that was meant."""
    client = web_client(server, WEB, f"{WEB}/2")
    for uri in (WEB, f"{WEB}/2"):
        outcome = server.authorize(client, redirect_uri=None, lands_at=uri)
        if outcome.redirected:
            raise RedirectedUnverified(
                "a request without redirect_uri was redirected, and the client has two",
                evidence=outcome.exchange,
                expected="an error page",
                got=outcome.summary,
                counterexample="no redirect_uri",
            )


@requirement("RED-004")
def test_dangerous_redirect_uris_are_not_registered(authorization_server: AuthorizationServer, space: Space) -> None:
    """RFC 9700 §2.6, OAuth 2.1 §2.3.1: https, or http to this machine, or a scheme of the app's own."""
    server = authorization_server
    web_client(server)
    dangerous = [*SCRIPTS, *ODD_SCRIPTS, *CLEARTEXT, *FRAGMENTS, *STRANGE]

    def judge(uri: str) -> None:
        _judge_registration(server, uri, [uri])

    hosts = st.from_regex(r"[a-z]{1,12}\.(?:example|test)", fullmatch=True)
    space.search(judge, hosts.map(lambda host: f"http://{host}/callback"), classics=dangerous, max_examples=2)
    _judge_registration(server, SCRIPTS[0], [WEB, SCRIPTS[0]])
    exchange = server.try_register(redirect_uris=[DOTLESS])
    if DOTLESS in _registered(exchange):
        raise DotlessSchemeRegistered(
            "a private-use scheme without a dot was registered, which any app may claim",
            evidence=exchange,
            expected="400 invalid_redirect_uri",
            got=exchange.summary,
            counterexample=f"redirect_uris=[{DOTLESS!r}]",
        )


def _judge_registration(server: AuthorizationServer, uri: str, uris: list[str]) -> None:
    exchange = server.try_register(redirect_uris=uris)
    if uri in _registered(exchange):
        raise DangerousUriRegistered(
            "a redirect URI was registered that a code must not be sent to",
            evidence=exchange,
            expected="400 invalid_redirect_uri",
            got=exchange.summary,
            counterexample=f"redirect_uris={uris!r}",
        )


def _registered(exchange: Exchange) -> list[object]:
    members = exchange.json()
    uris = members.get("redirect_uris") if exchange.succeeded and isinstance(members, dict) else None
    return uris if isinstance(uris, list) else []
