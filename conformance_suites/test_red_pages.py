"""RED, what a person sees on the way: login and consent pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from conformance_suites.authorization_pages import is_page, opened, pages_of
from conformance_suites.test_red import WEB, web_client
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, NotRun, requirement
from pytest_mcp_conformance.browser import Browser
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.grants import Registration
from pytest_mcp_conformance.login import Login
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.options import LoginMode
from pytest_mcp_conformance.probe import Probe

KEEPS_METHOD = frozenset({307, 308})
STRICT = frozenset({"no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin", "origin"})
_LOADED = re.compile(
    r"<(?:script|img|iframe|link|source|embed)\b[^>]*?\b(?:src|href)\s*=\s*[\"']?([^\"'\s>]+)", re.IGNORECASE
)
_LOCAL = re.compile(r"127\.0\.0\.1|::1|localhost|(?:this|your|own) (?:computer|device|machine)", re.IGNORECASE)


class CredentialsForwarded(Finding):
    """A redirect after a form with credentials makes the browser send the form on."""


class PageCanBeFramed(Finding):
    """Another site can show a page of the authorization server in a frame."""


class ReferrerLeaks(Finding):
    """A page lets browsers tell other sites its URL."""


class ThirdPartyContent(Finding):
    """A page loads something from another site."""


class RedirectedBeforeLogin(Finding):
    """A browser that nobody is signed in with was sent to the client."""


class ConsentHidesHost(Finding):
    """The consent page does not say where the answer goes."""


class ConsentHidesLocal(Advice):
    """The consent page does not say that the answer goes to a program on the person's own machine."""


class SilentRepeat(Finding):
    """A client that cannot prove who it is was authorized again without a question."""


@requirement("RED-009")
def test_no_form_is_sent_on_by_a_redirect(
    authorization_server: AuthorizationServer, probe: Probe, login: Login
) -> None:
    """RFC 9700 §4.12: with 307 or 308 the browser would send the password to the client."""
    _need_pages(login)
    outcome = authorization_server.authorize(browser=Browser(probe))
    posts = [exchange for exchange in outcome.walk.exchanges if exchange.request.method == "POST"]
    if not posts:
        raise NotApplicable("no form was sent on the way to a code")
    for exchange in posts:
        if exchange.status in KEEPS_METHOD:
            raise CredentialsForwarded(
                "a redirect after a form makes the browser send the form on",
                evidence=exchange,
                expected="303",
                got=exchange.summary,
            )


@requirement("RED-010")
def test_pages_resist_framing(authorization_server: AuthorizationServer, probe: Probe) -> None:
    """RFC 9700 §4.16: login, consent and error pages."""
    seen = 0
    for what, exchange in _pages(authorization_server, probe):
        seen += 1
        if not _frames_refused(exchange):
            raise PageCanBeFramed(
                f"another site can show {what} in a frame",
                evidence=exchange,
                expected="Content-Security-Policy: frame-ancestors 'none', or X-Frame-Options: DENY",
                got=f"Content-Security-Policy: {exchange.header('content-security-policy') or 'absent'}, "
                f"X-Frame-Options: {exchange.header('x-frame-options') or 'absent'}",
            )
    if not seen:
        raise Inconclusive("the authorization endpoint shows no page")


def _frames_refused(exchange: Exchange) -> bool:
    policies = ",".join(exchange.header_lines("content-security-policy"))
    for policy in policies.split(","):
        for directive in policy.split(";"):
            name, *sources = directive.split()[:20] or [""]
            if name.lower() == "frame-ancestors":
                return bool(sources) and not any(source in {"*", "http:", "https:"} for source in sources)
    return (exchange.header("x-frame-options") or "").strip().upper() in {"DENY", "SAMEORIGIN"}


@requirement("RED-011")
def test_pages_tell_nobody_their_url(authorization_server: AuthorizationServer, probe: Probe) -> None:
    """RFC 9700 §4.2.4: state and codes are in URLs."""
    seen = 0
    for what, exchange in _pages(authorization_server, probe):
        seen += 1
        policy = (exchange.header("referrer-policy") or "").split(",")[-1].strip().lower()
        if policy not in STRICT:
            raise ReferrerLeaks(
                f"{what} does not keep browsers from telling other sites its URL",
                evidence=exchange,
                expected="Referrer-Policy: no-referrer",
                got=f"Referrer-Policy: {policy or 'absent'}",
            )
        for loaded in _LOADED.findall(exchange.text):
            host = urlsplit(urljoin(exchange.request.url, loaded)).netloc
            if host and host != urlsplit(exchange.request.url).netloc:
                raise ThirdPartyContent(
                    f"{what} loads something from another site",
                    evidence=exchange,
                    expected="nothing from elsewhere",
                    got=f"something from {host}",
                )
    if not seen:
        raise Inconclusive("the authorization endpoint shows no page")


def _pages(server: AuthorizationServer, probe: Probe) -> Iterator[tuple[str, Exchange]]:
    """The pages that can be had without a login: that of a good request, and those of bad ones."""
    client = web_client(server)
    for what, who, uri in (
        ("the page of a good request", client, WEB),
        ("the page for an unknown client", Registration("conformance-nobody"), WEB),
        ("the page for an unregistered redirect URI", client, "https://evil.example/callback"),
    ):
        exchange, _ = opened(probe, server, who, uri)
        if is_page(exchange):
            yield what, exchange


@requirement("RED-012")
def test_nobody_is_redirected_before_they_sign_in(authorization_server: AuthorizationServer, probe: Probe) -> None:
    """OAuth 2.1 §7.12.2: whoever registers a client could otherwise send people anywhere."""
    server = authorization_server
    client = web_client(server)
    page, there = opened(probe, server, client, WEB)
    if there or not is_page(page):
        raise NotApplicable("a good request of nobody in particular brings no page, so nobody signs in here")
    for what, overrides in (
        ("an unknown scope", {"scope": "conformance:nothing"}),
        ("response_type=token", {"response_type": "token"}),
        ("no code_challenge", {"code_challenge": None, "code_challenge_method": None}),
        ("a foreign resource", {"resource": "https://other.example/mcp"}),
    ):
        exchange, there = opened(probe, server, client, WEB, **overrides)
        if there:
            raise RedirectedBeforeLogin(
                "a browser that nobody is signed in with was sent to the client",
                evidence=exchange,
                expected="the login page, or an error page",
                got=exchange.summary,
                counterexample=f"a request with {what}",
            )


@requirement("RED-013")
def test_the_consent_page_says_where_the_answer_goes(
    authorization_server: AuthorizationServer, probe: Probe, login: Login
) -> None:
    """MCP, Localhost Redirect URI Risks: the host of the redirect URI; and that it is the person's own machine."""
    _need_pages(login)
    server = authorization_server
    page = _consent(server, probe, web_client(server), WEB)
    if (urlsplit(WEB).hostname or "") not in page.text:
        raise ConsentHidesHost(
            "the consent page does not name the host that the answer goes to",
            evidence=page,
            expected=f"{urlsplit(WEB).hostname} on the page",
            got="a page without it",
        )
    local = server.register()
    page = _consent(server, probe, local, local.redirect_uri)
    if not _LOCAL.search(page.text):
        raise ConsentHidesLocal(
            "the consent page does not say that the answer goes to a program on the person's own machine",
            evidence=page,
            expected="127.0.0.1, or words to that effect, on the page",
            got="a page without either",
        )


def _consent(server: AuthorizationServer, probe: Probe, client: Registration, uri: str) -> Exchange:
    """The page from which the person went on to the client.

    Raises:
        Inconclusive: no code came back. NotApplicable: nobody was asked.
    """
    outcome = server.authorize(client, browser=Browser(probe), lands_at=uri)
    if not outcome.code:
        raise Inconclusive(f"no authorization code could be obtained: {outcome.summary}")
    pages = pages_of(outcome)
    if not pages:
        raise NotApplicable("no page was shown on the way to a code")
    return pages[-1]


@requirement("RED-014")
def test_a_client_that_proves_nothing_is_asked_about_each_time(
    authorization_server: AuthorizationServer, login: Login
) -> None:
    """OAuth 2.1 §7.3.1: whoever listens on another port may be another program."""
    _need_pages(login)
    server = authorization_server
    client = server.register()
    first = server.authorize(client)
    if not first.code:
        raise Inconclusive(f"no authorization code could be obtained: {first.summary}")
    other = re.sub(r":\d+/", ":49321/", client.redirect_uri)
    again = server.authorize(client, redirect_uri=other, lands_at=other)
    if again.code and not pages_of(again):
        raise SilentRepeat(
            "a public client was authorized again, on another port, without a question",
            evidence=(first.exchange, again.exchange),
            expected="a page that asks the person",
            got=again.summary,
            counterexample=f"redirect_uri={other}",
        )


def _need_pages(login: Login) -> None:
    if login.mode is LoginMode.FOLLOW:
        raise NotRun("the run follows redirects and sees no pages: it needs --mcp-conformance-login=form")
