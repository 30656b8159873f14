"""What an authorization endpoint shows a browser, page by page."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from pytest_mcp_conformance.browser import Browser
from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.grants import AuthorizationOutcome, Override, Registration, fresh_pkce
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.probe import Probe

HTML = frozenset({"text/html", "application/xhtml+xml"})
LONGEST_WALK = 6


def is_page(exchange: Exchange) -> bool:
    """Whether a person sees it."""
    return exchange.media_type in HTML and not 300 <= exchange.status < 400


def pages_of(outcome: AuthorizationOutcome) -> list[Exchange]:
    """The pages of a walk, in order."""
    return [exchange for exchange in outcome.walk.exchanges if is_page(exchange)]


def opened(
    probe: Probe, server: AuthorizationServer, client: Registration, redirect_uri: str | None, **overrides: Override
) -> tuple[Exchange, str]:
    """An authorization request in a browser that nobody is signed in with: the page it ends on and an empty string, or
    the redirect that leads to `redirect_uri` and where it leads. Redirects of the server to itself are followed, no
    form is sent, and nothing is asked of another host.
    """
    browser = Browser(probe)
    url = server.authorization_url(client, fresh_pkce(), **{"redirect_uri": redirect_uri, **overrides})
    exchange = browser.open(Request("GET", url))
    for _ in range(LONGEST_WALK):
        location = exchange.header("location")
        if not (300 <= exchange.status < 400 and location):
            break
        there = urljoin(exchange.request.url, location)
        if urlsplit(there).netloc != urlsplit(url).netloc:
            return exchange, there
        exchange = browser.open(Request("GET", there))
    return exchange, ""
