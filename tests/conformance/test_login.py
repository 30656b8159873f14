from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import parse_qs, urlencode

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from pytest_mcp_conformance import Inconclusive, NotApplicable, NotRun
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.browser import Browser
from pytest_mcp_conformance.credentials import Account
from pytest_mcp_conformance.egress import Egress
from pytest_mcp_conformance.grants import fresh_pkce, s256
from pytest_mcp_conformance.login import Login
from pytest_mcp_conformance.options import LoginMode, Settings
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.redaction import Secrets
from tests.conformance.test_properties import settings
from tests.support.model_server import USERS, ModelServer
from tests.support.serving import serving

ALICE = {"MCP_CONFORMANCE_USER": "alice", "MCP_CONFORMANCE_PASSWORD": USERS["alice"]}
BOB = {"MCP_CONFORMANCE_USER_B": "bob", "MCP_CONFORMANCE_PASSWORD_B": USERS["bob"]}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(ModelServer) as server:
        yield f"{server.url}/mcp"


def bench(
    url: str,
    mode: LoginMode,
    environment: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    announce: Callable[[str], None] = print,
) -> Bench:
    for name in ("TOKEN", "TOKEN_B", "TOKEN_EXPIRED", "USER", "PASSWORD", "USER_B", "PASSWORD_B"):
        monkeypatch.delenv(f"MCP_CONFORMANCE_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    chosen: Settings = settings()
    return Bench(Settings(**{**chosen.__dict__, "target": url, "login": mode}), announce)


def test_form_logs_both_users_in_and_consents(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench(url, LoginMode.FORM, {**ALICE, **BOB}, monkeypatch)
    alice, bob = work.credential("a"), work.credential("b")
    assert alice.token != bob.token
    for credential in (alice, bob):
        work.target.control(credential, "here")
    assert work.credential("a") is alice
    assert work.secrets.redact(f"{alice.token} {bob.token}") == "$MCP_TOKEN $MCP_TOKEN_B"
    assert repr(alice) == "Credential('a', …)"


def test_a_wrong_password_leaves_what_needs_a_login_not_run(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench(url, LoginMode.FORM, {**ALICE, "MCP_CONFORMANCE_PASSWORD": "wrong-password"}, monkeypatch)
    with pytest.raises(NotRun, match="the login of user a was refused"):
        work.credential("a")
    assert (
        sum(b"wrong-password" in (sent.request.body or b"") for sent in work.probe.history) == 1
    )  # or the account might be locked
    sent = work.probe.ledger.requests
    with pytest.raises(NotRun, match="the login of user a was refused"):
        work.authorization_server().grant()
    assert work.probe.ledger.requests == sent


@pytest.mark.parametrize(
    ("mode", "who", "environment", "reason"),
    [
        (LoginMode.NONE, "a", {}, "MCP_CONFORMANCE_TOKEN is not set, and no login: --mcp-conformance-login is none"),
        (LoginMode.FORM, "a", {}, "MCP_CONFORMANCE_USER and MCP_CONFORMANCE_PASSWORD are not set"),
        (LoginMode.FORM, "b", ALICE, "MCP_CONFORMANCE_USER_B and MCP_CONFORMANCE_PASSWORD_B are not set"),
        (LoginMode.FOLLOW, "b", {}, "--mcp-conformance-login=follow logs in one"),
        (LoginMode.FORM, "expired", ALICE, "MCP_CONFORMANCE_TOKEN_EXPIRED is not set"),
    ],
)
def test_a_missing_credential_says_which(
    url: str, monkeypatch: pytest.MonkeyPatch, mode: LoginMode, who: str, environment: Mapping[str, str], reason: str
) -> None:
    with pytest.raises(NotRun, match=reason):
        bench(url, mode, environment, monkeypatch).credential(who)


def test_without_a_login_that_repeats_no_code_can_be_had(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench(url, LoginMode.PRINT_URL, {}, monkeypatch)
    with pytest.raises(NotRun, match="needs a login that can be repeated"):
        work.authorization_server().grant()


def test_print_url_waits_for_a_browser_to_come_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []

    def person(text: str) -> None:
        printed.append(text)
        threading.Thread(target=walk, args=(text.rpartition(" ")[2],), daemon=True).start()

    def walk(where: str) -> None:
        secrets = Secrets()
        probe = Probe(Egress("127.0.0.1", frozenset()), max_requests=9, requests_per_second=1e6, secrets=secrets)
        login = Login(LoginMode.FORM, {"a": Account("a", "alice", USERS["alice"])}, probe, print)
        redirect_uri = parse_qs(where)["redirect_uri"][0]
        landed = login.walk(where, redirect_uri, user="a", browser=Browser(probe)).landed
        probe.get(landed)

    work = bench(url, LoginMode.PRINT_URL, {}, monkeypatch, person)
    work.target.control(work.credential("a"), "here")
    assert len(printed) == 1
    with pytest.raises(NotRun, match="logs in one"):
        work.credential("b")


def test_every_step_of_a_flow_takes_overrides(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = bench(url, LoginMode.FORM, ALICE, monkeypatch).authorization_server()
    no_challenge = server.authorize(code_challenge=None, code_challenge_method=None)
    assert not no_challenge.code
    grant = server.grant()
    assert grant.outcome.redirected
    assert grant.outcome.value("state")
    assert server.redeem(grant, code_verifier="x" * 43).status == 400
    tokens = server.tokens()
    assert server.refresh(tokens).status == 200
    assert server.register(client_name="another").client_id != server.client.client_id
    assert server.try_register(redirect_uris=["javascript:alert(1)"]).status == 400
    with pytest.raises(NotApplicable, match="names no device_authorization_endpoint"):
        server.endpoint("device_authorization_endpoint")


def test_codes_tokens_and_cookies_of_a_flow_are_secrets(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench(url, LoginMode.FORM, ALICE, monkeypatch)
    server = work.authorization_server()
    grant = server.grant()
    tokens = server.tokens(grant)
    for value in (grant.code, grant.pkce.verifier, tokens.access_token, tokens.refresh_token, USERS["alice"]):
        assert value not in work.secrets.redact(f"-{value}-")
    for exchange in grant.outcome.walk.exchanges:
        assert USERS["alice"].replace(" ", "+") not in exchange.curl(work.secrets)


def test_the_challenge_is_the_one_of_the_rfc() -> None:
    """RFC 7636 Appendix B."""
    assert s256("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert 43 <= len(fresh_pkce().verifier) <= 128


class Consenting:
    """A deployment whose authorization server consents by itself, after one redirect of its own."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.app = Starlette(
            routes=[
                Route("/mcp", self.mcp, methods=["GET", "POST"]),
                Route("/.well-known/oauth-protected-resource/mcp", self.resource),
                Route("/.well-known/oauth-authorization-server", self.metadata),
                Route("/register", self.register, methods=["POST"]),
                Route("/authorize", self.authorize),
                Route("/sso", self.sso),
                Route("/token", self.token, methods=["POST"]),
            ]
        )

    async def mcp(self, request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer issued-by-itself":
            return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
        return JSONResponse({"jsonrpc": "2.0", "id": 1, "result": {"tools": []}})

    async def resource(self, request: Request) -> Response:
        return JSONResponse({"resource": f"{self.base}/mcp", "authorization_servers": [self.base]})

    async def metadata(self, request: Request) -> Response:
        endpoints = {f"{name}_endpoint": f"{self.base}/{path}" for name, path in ENDPOINTS.items()}
        return JSONResponse({"issuer": self.base, **endpoints})

    async def register(self, request: Request) -> Response:
        return JSONResponse({**await request.json(), "client_id": "c"}, 201)

    async def authorize(self, request: Request) -> Response:
        return RedirectResponse(f"/sso?{request.url.query}", 303)

    async def sso(self, request: Request) -> Response:
        answer = urlencode({"code": "one-time-code", "state": request.query_params["state"]})
        return RedirectResponse(f"{request.query_params['redirect_uri']}?{answer}", 302)

    async def token(self, request: Request) -> Response:
        fields = parse_qs((await request.body()).decode())
        good = fields["code"] == ["one-time-code"] and fields["client_id"] == ["c"]
        return JSONResponse({"access_token": "issued-by-itself", "token_type": "Bearer"}, 200 if good else 400)


ENDPOINTS = {"authorization": "authorize", "token": "token", "registration": "register"}


def test_follow_needs_no_page_where_the_server_consents_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda base: Consenting(base).app) as server:
        work = bench(f"{server.url}/mcp", LoginMode.FOLLOW, {}, monkeypatch)
        work.target.control(work.credential("a"), "here")


def test_follow_is_inconclusive_where_a_page_wants_filling(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench(url, LoginMode.FOLLOW, {}, monkeypatch)
    with pytest.raises(
        Inconclusive, match="no authorization code could be obtained: a page of the authorization server"
    ):
        work.credential("a")
