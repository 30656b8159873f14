"""REG: dynamic registration, where anybody may say anything about themselves (RFC 7591)."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from conformance_suites.authorization_pages import pages_of
from conformance_suites.code_redemption import issued_tokens, oauth_error, outcome_of
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, NotRun, requirement
from pytest_mcp_conformance.browser import Browser
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.grants import REDIRECT_URI
from pytest_mcp_conformance.login import Login
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.options import LoginMode
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space

ASKED = {
    "redirect_uris": [REDIRECT_URI],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "client_name": "conformance check",
}
NO_REDIRECT: tuple[dict[str, Any], ...] = ({"redirect_uris": None}, {"redirect_uris": []}, {"redirect_uris": [""]})
REDIRECT_ERRORS = frozenset({"invalid_redirect_uri", "invalid_client_metadata"})
WRONG: tuple[tuple[str, object], ...] = (
    ("redirect_uris", REDIRECT_URI),
    ("redirect_uris", [7]),
    ("redirect_uris", {"0": REDIRECT_URI}),
    ("grant_types", "authorization_code"),
    ("grant_types", [["authorization_code"]]),
    ("response_types", {"code": True}),
    ("client_name", ["conformance"]),
    ("token_endpoint_auth_method", 7),
    ("token_endpoint_auth_method", "conformance"),
    ("jwks", "keys"),
)
DEEP = b'{"redirect_uris": ' + b"[" * 20_000
BODIES = (b"", b"null", b"[]", b"7", b'"text"', b"{", b"client_name=x", DEEP, b"\xff\xfe{}")
SECRET = "conformance-chosen-secret-" + "s" * 20
STATEMENT = "eyJhbGciOiJub25lIn0.eyJjbGllbnRfbmFtZSI6ImNvbmZvcm1hbmNlIHN0YXRlbWVudCIsInNjb3BlIjoiYWRtaW4ifQ."
"""An unsigned statement that the client's name is `conformance statement`."""
MARKUP = "<b data-conformance=1>x</b>"
PLAIN_MARKUP = "<b data-conformance"
LARGE_BYTES, MANY_URIS = 1_000_000, 2_000


class RegistrationOutOfForm(Finding):
    """A registration is answered with another status than 201, or as something else than JSON."""


class RegistrationCacheable(Advice):
    """The answer to a registration, which may hold a secret, may be cached."""


class RegistrationNotEchoed(Finding):
    """The answer to a registration does not say what was registered."""


class SecretWithoutExpiry(Finding):
    """A client secret is issued, and the answer does not say when it expires."""


class RegisteredWithoutRedirect(Finding):
    """A client for the code grant was registered without a redirect URI."""


class BadRegistrationNotAnswered(Finding):
    """A bad registration is answered with a server error, or not at all."""


class BadRegistrationAnsweredOddly(Advice):
    """A bad registration is refused, and the client is not told why."""


class BadMetadataRegistered(Finding):
    """Metadata of the wrong type, or that contradicts itself, was registered."""


class UnknownMetadataRefused(Finding):
    """A registration with a member that nobody knows is refused."""


class IdentityChosen(Finding):
    """A client chose its own id or secret, or was given another client's."""


class StatementBelieved(Finding):
    """What an unsigned software statement says was registered."""


class PublicClientWithSecret(Finding):
    """A client that asked for no authentication got a secret, or another method."""


class NativeClientRefused(Finding):
    """A native client with a loopback redirect URI is refused."""


class RegistrationUnbounded(Finding):
    """A registration of any size is accepted."""


class MarkupShown(Finding):
    """A page shows what a client says of itself as markup."""


class IdLooksLikeUrl(Finding):
    """A generated client id looks like the URL of a metadata document."""


def registered(exchange: Exchange) -> dict[str, Any]:
    """The members of a successful answer; empty for any other."""
    members = exchange.json()
    return members if exchange.succeeded and isinstance(members, dict) and members.get("client_id") else {}


def require_open(server: AuthorizationServer) -> None:
    """The positive control: a plain registration. Raises: Inconclusive, NotApplicable."""
    server.register()


def posted(server: AuthorizationServer, probe: Probe, body: bytes) -> Exchange:
    """A registration request with this body."""
    url = server.endpoint("registration_endpoint")
    return probe.send(Request("POST", url, (("Content-Type", "application/json"),), body))


@requirement("REG-001")
def test_a_registration_is_answered_in_full(authorization_server: AuthorizationServer) -> None:
    """RFC 7591 §3.2.1: 201, and everything as it is registered."""
    server = authorization_server
    for method in ("none", "client_secret_basic"):
        exchange = server.try_register(**ASKED, token_endpoint_auth_method=method)
        members = registered(exchange)
        if not members and method != "none":
            return
        if not members:
            raise Inconclusive(f"no client could be registered: {exchange.summary}")
        _judge_answer(exchange, members, method)


def _judge_answer(exchange: Exchange, members: dict[str, Any], method: str) -> None:
    if exchange.status != 201 or exchange.media_type != "application/json":
        raise RegistrationOutOfForm(
            "a registration is answered in another form than RFC 7591 has it",
            evidence=exchange,
            expected="201 application/json",
            got=f"{exchange.status} {exchange.media_type}",
        )
    expected = {**ASKED, "token_endpoint_auth_method": method}
    for name, value in expected.items():
        if name not in members or (name == "redirect_uris" and members[name] != value):
            raise RegistrationNotEchoed(
                f"the answer to a registration does not say which {name} was registered",
                evidence=exchange,
                expected=f"{name} {value!r}",
                got=f"{name} {members.get(name, 'absent')!r}",
            )
    if "client_secret" in members and not isinstance(members.get("client_secret_expires_at"), int):
        raise SecretWithoutExpiry(
            "a client secret is issued without client_secret_expires_at",
            evidence=exchange,
            expected="client_secret_expires_at",
            got="none",
        )
    if "no-store" not in (exchange.header("cache-control") or ""):
        raise RegistrationCacheable(
            "the answer to a registration may be cached",
            evidence=exchange,
            expected="Cache-Control: no-store",
            got=f"Cache-Control: {exchange.header('cache-control') or 'absent'}",
        )


@requirement("REG-002")
def test_clients_of_the_code_grant_register_redirect_uris(authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §2.3: at least one; a refusal says what was wrong. Dangerous ones are for RED-004."""
    server = authorization_server
    require_open(server)
    for change in NO_REDIRECT:
        exchange = server.try_register(**change)
        if registered(exchange):
            raise RegisteredWithoutRedirect(
                "a client for the code grant was registered without a redirect URI",
                evidence=exchange,
                expected="400 invalid_redirect_uri",
                got=exchange.summary,
                counterexample=f"redirect_uris {change['redirect_uris']!r}",
            )
        _judge_refusal(exchange, f"redirect_uris {change['redirect_uris']!r}")
    _judge_refusal(server.try_register(redirect_uris=["javascript:alert(1)"]), "a script as redirect URI")


def _judge_refusal(exchange: Exchange, what: str) -> None:
    if exchange.succeeded:
        return
    if exchange.status >= 500 or exchange.status == 0:
        raise BadRegistrationNotAnswered(
            "a bad registration is answered with a server error, or not at all",
            evidence=exchange,
            expected="400 with an error",
            got=exchange.summary,
            counterexample=what,
        )
    if exchange.status != 400 or oauth_error(exchange) not in REDIRECT_ERRORS:
        raise BadRegistrationAnsweredOddly(
            "a bad registration is refused, and the client is not told why",
            evidence=exchange,
            expected="400 invalid_redirect_uri or invalid_client_metadata",
            got=outcome_of(exchange),
            counterexample=what,
        )


@requirement("REG-003")
def test_unknown_metadata_is_ignored(authorization_server: AuthorizationServer) -> None:
    """RFC 7591 §2."""
    server = authorization_server
    require_open(server)
    exchange = server.try_register(conformance_check={"a": [1]}, **{"client_name#de": "Prüfung"})
    if not registered(exchange):
        raise UnknownMetadataRefused(
            "a registration with unknown members is refused",
            evidence=exchange,
            expected="201",
            got=outcome_of(exchange),
            counterexample="conformance_check and client_name#de",
        )


@requirement("REG-003")
def test_bad_metadata_is_refused_cleanly(authorization_server: AuthorizationServer, probe: Probe, space: Space) -> None:
    """RFC 7591 §3.2.2: 400 with an error, never a crash."""
    server = authorization_server
    require_open(server)
    for body in BODIES:
        exchange = posted(server, probe, body)
        if exchange.status >= 500 or exchange.status == 0 or registered(exchange):
            raise BadRegistrationNotAnswered(
                "a body that is no JSON object is answered with a server error, or registered",
                evidence=exchange,
                expected="400 invalid_client_metadata",
                got=exchange.summary,
                counterexample=f"the body {body[:40]!r}",
            )

    def judge(change: tuple[str, object]) -> None:
        name, value = change
        exchange = server.try_register(**{name: value})
        if exchange.status >= 500 or exchange.status == 0:
            raise BadRegistrationNotAnswered(
                "metadata of the wrong type is answered with a server error",
                evidence=exchange,
                expected="400 invalid_client_metadata",
                got=exchange.summary,
                counterexample=f"{name}: {json.dumps(value)}",
            )
        if registered(exchange).get(name) == value:
            raise BadMetadataRegistered(
                "metadata of the wrong type was registered",
                evidence=exchange,
                expected="400 invalid_client_metadata",
                got=exchange.summary,
                counterexample=f"{name}: {json.dumps(value)}",
            )

    names = st.sampled_from(sorted({name for name, _ in WRONG}))
    wrong = st.tuples(names, st.sampled_from([7, True, {"a": 1}, [1], [None], 1.5]))
    space.search(judge, wrong, classics=WRONG, max_examples=4)
    _judge_contradictions(server)


def _judge_contradictions(server: AuthorizationServer) -> None:
    keys: dict[str, Any] = {"keys": []}
    for what, change in (
        ("jwks and jwks_uri", {"jwks": keys, "jwks_uri": "https://client.example/jwks"}),
        ("response_types without the grant type", {"grant_types": ["refresh_token"], "response_types": ["code"]}),
    ):
        exchange = server.try_register(**change)
        members = registered(exchange)
        if members and all(members.get(name) == value for name, value in change.items()):
            raise BadMetadataRegistered(
                "metadata that contradicts itself was registered",
                evidence=exchange,
                expected="400 invalid_client_metadata",
                got=exchange.summary,
                counterexample=what,
            )


@requirement("REG-004")
def test_clients_choose_no_identity(authorization_server: AuthorizationServer) -> None:
    """RFC 7591 §3.2.1, §5: ids and secrets are the server's, and fresh. Ids that pass for users are for TOK-022."""
    server = authorization_server
    first = server.register()
    second = server.register()
    if first.client_id == second.client_id:
        raise IdentityChosen(
            "two registrations got one client id",
            evidence=[one.exchange for one in (first, second) if one.exchange is not None],
            expected="an id for each",
            got="the same id",
        )
    for name, value in (
        ("client_secret", SECRET),
        ("client_id", first.client_id),
        ("registration_access_token", SECRET),
    ):
        exchange = server.try_register(token_endpoint_auth_method="client_secret_basic", **{name: value})
        if registered(exchange).get(name) == value:
            raise IdentityChosen(
                f"a client chose its own {name}",
                evidence=exchange,
                expected="one that the server made",
                got="the one that was sent",
                counterexample=f"{name} in the registration request",
            )
    exchange = server.try_register(software_statement=STATEMENT)
    if "conformance statement" in str(registered(exchange).get("client_name")):
        raise StatementBelieved(
            "what an unsigned software statement says was registered",
            evidence=exchange,
            expected="400 invalid_software_statement, or the statement ignored",
            got="its client_name",
        )


@requirement("REG-005")
def test_public_clients_have_no_secret(authorization_server: AuthorizationServer) -> None:
    """RFC 7591 §2: none is none; the code flow works with PKCE alone."""
    server = authorization_server
    client = server.register(token_endpoint_auth_method="none")
    if client.client_secret or client.members.get("token_endpoint_auth_method", "none") != "none":
        raise PublicClientWithSecret(
            "a client that asked for no authentication got a secret, or another method",
            evidence=[] if client.exchange is None else client.exchange,
            expected="token_endpoint_auth_method none, and no client_secret",
            got=f"{client.members.get('token_endpoint_auth_method', 'no method')}, "
            f"{'a secret' if client.client_secret else 'no secret'}",
        )
    exchange = server.redeem(server.grant(client))
    if not issued_tokens(exchange):
        raise Inconclusive(f"the code flow of a public client does not work: {outcome_of(exchange)}")


@requirement("REG-006")
def test_native_clients_are_welcome(authorization_server: AuthorizationServer) -> None:
    """OpenID Connect Registration §2; MCP clients are native, and say so or not."""
    server = authorization_server
    plain = server.try_register(application_type=None)
    if not registered(plain):
        raise Inconclusive(f"no client could be registered: {plain.summary}")
    for uri in (REDIRECT_URI, "http://localhost:33418/callback"):
        exchange = server.try_register(application_type="native", redirect_uris=[uri])
        without = exchange if registered(exchange) else server.try_register(application_type=None, redirect_uris=[uri])
        if not registered(exchange) and registered(without):
            raise NativeClientRefused(
                "a native client with a loopback redirect URI is refused, and welcome without application_type",
                evidence=exchange,
                expected="201",
                got=outcome_of(exchange),
                counterexample=f"application_type native, redirect_uris [{uri!r}]",
            )


@requirement("REG-007")
def test_registrations_are_bounded(authorization_server: AuthorizationServer, probe: Probe) -> None:
    """A registration is stored for whoever asks."""
    server = authorization_server
    require_open(server)
    large = json.dumps({**ASKED, "conformance_check": "x" * LARGE_BYTES}).encode()
    uris = [f"https://client.example/{number}" for number in range(MANY_URIS)]
    for what, body in (
        (f"a document of {LARGE_BYTES:,} bytes", large),
        (f"{MANY_URIS:,} redirect URIs", json.dumps({**ASKED, "redirect_uris": uris}).encode()),
    ):
        exchange = posted(server, probe, body)
        if registered(exchange):
            raise RegistrationUnbounded(
                "a registration of any size is accepted",
                evidence=exchange,
                expected="400 or 413",
                got=exchange.summary,
                counterexample=what,
            )
    require_open(server)


@requirement("REG-009")
def test_what_clients_say_of_themselves_is_text(
    authorization_server: AuthorizationServer, probe: Probe, login: Login
) -> None:
    """Pages of the authorization server show it, and browsers must not run it."""
    if login.mode is LoginMode.FOLLOW:
        raise NotRun("the run follows redirects and sees no pages: it needs --mcp-conformance-login=form")
    server = authorization_server
    exchange = server.try_register(client_name=f"check {MARKUP}")
    pages: list[tuple[str, Exchange]] = []
    if registered(exchange):
        outcome = server.authorize(server.registration_from(exchange), browser=Browser(probe))
        pages += [("client_name", page) for page in pages_of(outcome)]
    nobody = server.registration_from(exchange) if registered(exchange) else server.register()
    shown: tuple[tuple[str, dict[str, Any]], ...] = (
        ("client_id", {"client_id": MARKUP}),
        ("redirect_uri", {"redirect_uri": f"https://client.example/{MARKUP}"}),
        ("state", {"state": MARKUP, "scope": MARKUP}),
    )
    for what, overrides in shown:
        outcome = server.authorize(nobody, browser=Browser(probe), **overrides)
        pages += [(what, page) for page in pages_of(outcome)]
    if not pages:
        raise NotApplicable("the authorization server shows no pages")
    for what, page in pages:
        if PLAIN_MARKUP in page.text:
            raise MarkupShown(
                f"a page shows {what} as markup",
                evidence=page,
                expected="the text escaped, or not shown",
                got="the markup as it was sent",
                counterexample=f"{what}={MARKUP}",
            )


@requirement("REG-010")
def test_generated_ids_are_no_urls(authorization_server: AuthorizationServer) -> None:
    """MCP, Client ID Metadata Documents: or a registered client could pass for a document."""
    server = authorization_server
    if server.metadata.get("client_id_metadata_document_supported") is not True:
        raise NotApplicable("the authorization server supports no client-id metadata documents")
    for uri in (REDIRECT_URI, "https://client.example/callback"):
        client = server.register(redirect_uris=[uri], client_uri="https://client.example/")
        if client.client_id.lower().startswith(("https:", "http:")):
            raise IdLooksLikeUrl(
                "a generated client id looks like the URL of a metadata document",
                evidence=[] if client.exchange is None else client.exchange,
                expected="an id that is no URL",
                got="one that begins with http",
            )
