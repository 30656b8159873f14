"""A browser reduced to what an authorization code flow needs: cookies, redirects, and forms somebody fills in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlencode, urljoin, urlsplit

from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.pages import Form, read_forms
from pytest_mcp_conformance.probe import SECRET_LENGTH, Probe

LONGEST_WALK = 12

Filler = Callable[[Form], list[tuple[str, str]] | None]


@dataclass(frozen=True)
class Walk:
    """The pages visited.

    `landed` is the redirect URI as it came back, or empty; the last exchange then redirects to it.
    """

    exchanges: tuple[Exchange, ...]
    landed: str = ""

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]


@dataclass
class Browser:
    """Keeps cookies by host, path and name. One browser is one person at one machine."""

    probe: Probe
    cookies: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def walk(self, url: str, redirect_uri: str, fill: Filler | None) -> Walk:
        """Open `url`, follow redirects and send the forms `fill` can fill, until a redirect leads to `redirect_uri`
        (which is not visited), or nothing more can be done. Without `fill`, redirects are followed and no form is
        sent.

        Raises:
            Inconclusive: a redirect leads where the run may not go.
        """
        exchanges: list[Exchange] = []
        request = Request("GET", url)
        while len(exchanges) < LONGEST_WALK:
            exchange = self.open(request)
            exchanges.append(exchange)
            location = exchange.header("location")
            if 300 <= exchange.status < 400 and location:
                there = urljoin(exchange.request.url, location)
                if is_at(there, redirect_uri):
                    return Walk(tuple(exchanges), there)
                request = Request("GET", there)
                continue
            step = None if fill is None else _next_step(self, exchange, fill)
            if step is None:
                break
            request = step
        return Walk(tuple(exchanges))

    def open(self, request: Request) -> Exchange:
        """Send with the cookies that belong to it, and keep those that come back."""
        cookies = self._cookies_for(request.url)
        headers: list[Header] = [("Accept", "text/html,*/*;q=0.5")]
        if cookies:
            headers.append(("Cookie", cookies))
        exchange = self.probe.send(request.adding(*headers))
        self._keep(exchange)
        return exchange

    def _cookies_for(self, url: str) -> str:
        parts = urlsplit(url)
        path = parts.path or "/"
        pairs = [
            f"{name}={value}"
            for (host, prefix, name), value in self.cookies.items()
            if host == parts.hostname and (path == prefix or path.startswith(prefix.rstrip("/") + "/"))
        ]
        return "; ".join(pairs)

    def _keep(self, exchange: Exchange) -> None:
        parts = urlsplit(exchange.request.url)
        for line in exchange.header_lines("set-cookie"):
            try:
                jar = SimpleCookie(line)
            except CookieError:
                continue
            for name, morsel in jar.items():
                path = morsel["path"] or (parts.path.rpartition("/")[0] or "/")
                key = (parts.hostname or "", path, name)
                if morsel["max-age"] == "0" or not morsel.value:
                    self.cookies.pop(key, None)
                else:
                    self.cookies[key] = morsel.coded_value


def is_at(url: str, redirect_uri: str) -> bool:
    """Whether `url` is `redirect_uri` with an answer appended to its query or put into its fragment."""
    return url == redirect_uri or url.startswith((redirect_uri + "?", redirect_uri + "#", redirect_uri + "&"))


def submit(form: Form, pairs: list[tuple[str, str]], page_url: str) -> Request:
    """The request a browser sends for a filled form, with the Origin and Referer a same-origin page has."""
    encoded = urlencode(pairs)
    if form.method != "post":
        return Request("GET", form.action.partition("?")[0] + f"?{encoded}", (("Referer", page_url),))
    page = urlsplit(page_url)
    headers: tuple[Header, ...] = (
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Origin", f"{page.scheme}://{page.netloc}"),
        ("Referer", page_url),
    )
    return Request("POST", form.action, headers, encoded.encode())


def _next_step(browser: Browser, exchange: Exchange, fill: Filler) -> Request | None:
    if exchange.media_type not in {"text/html", "application/xhtml+xml"}:
        return None
    for form in read_forms(exchange.text, exchange.request.url):
        pairs = fill(form)
        if pairs is not None:
            for control in form.fields:
                if control.kind == "hidden" and len(control.value) >= SECRET_LENGTH:
                    browser.probe.secrets.add(control.value, "FORM_FIELD")
            return submit(form, pairs, exchange.request.url)
    return None
