"""How a run logs in: it fills the pages in, only follows redirects, or asks a person."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from pytest_mcp_conformance.browser import Browser, Walk
from pytest_mcp_conformance.credentials import Account
from pytest_mcp_conformance.failures import Inconclusive, NotRun
from pytest_mcp_conformance.options import PREFIX, LoginMode
from pytest_mcp_conformance.pages import Form
from pytest_mcp_conformance.probe import Probe

PERSON_SECONDS = 300.0


class Login:
    """One per run. Each user has a browser of their own that stays logged in."""

    def __init__(
        self, mode: LoginMode, accounts: Mapping[str, Account], probe: Probe, announce: Callable[[str], None]
    ) -> None:
        self.mode = mode
        self._accounts = accounts
        self._probe = probe
        self._announce = announce
        self._browsers: dict[str, Browser] = {}
        self._refused: set[str] = set()

    @property
    def repeatable(self) -> bool:
        """Whether a check may log in as often as it needs."""
        return self.mode in {LoginMode.FORM, LoginMode.FOLLOW}

    def missing(self, user: str) -> str:
        """Why `user` cannot log in; empty when they can."""
        if self.mode is LoginMode.NONE:
            return f"no login: {PREFIX}-login is none"
        if self.mode is LoginMode.FORM and user not in self._accounts:
            suffix = "" if user == "a" else "_B"
            names = f"MCP_CONFORMANCE_USER{suffix} and MCP_CONFORMANCE_PASSWORD{suffix}"
            return f"no login for user {user}: {names} are not set"
        if self.mode in {LoginMode.FOLLOW, LoginMode.PRINT_URL} and user != "a":
            return f"no second user: {PREFIX}-login={self.mode} logs in one"
        if user in self._refused:
            return f"the login of user {user} was refused"
        return ""

    def walk(self, url: str, redirect_uri: str, *, user: str, browser: Browser | None = None) -> Walk:
        """Take a browser through an authorization URL as `user`.

        Raises:
            NotRun: this run has no login that can be repeated for `user`, or the login page refused them.
        """
        missing = self.missing(user)
        if missing:
            raise NotRun(missing)
        if not self.repeatable:
            raise NotRun(f"needs a login that can be repeated: {PREFIX}-login=form or follow")
        chosen = browser or self._browsers.setdefault(user, Browser(self._probe))
        if self.mode is LoginMode.FOLLOW:
            return chosen.walk(url, redirect_uri, None)
        clerk = _Clerk(self._accounts[user])
        walk = chosen.walk(url, redirect_uri, clerk.fill)
        if clerk.refused:
            self._refused.add(user)
            raise NotRun(f"the login of user {user} was refused: the page asked for the password again")
        return walk

    def ask(self, url: str, redirect_uri: str) -> Walk:
        """Print the URL and wait for a person's browser to come back to the loopback redirect URI.

        Raises:
            Inconclusive: nobody came back in time.
        """
        parts = urlsplit(redirect_uri)
        landed = _wait_for_callback((parts.hostname or "127.0.0.1", parts.port or 80), url, self._announce)
        if not landed:
            raise Inconclusive(f"nobody came back from the login page within {PERSON_SECONDS:g} seconds")
        return Walk((), f"{parts.scheme}://{parts.netloc}{landed}")


class _Clerk:
    """Fills login and consent forms, and notices when the same login form comes back."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._logins = 0
        self.refused = False

    def fill(self, form: Form) -> list[tuple[str, str]] | None:
        if not form.asks_for_password:
            return form.consent()
        self._logins += 1
        if self._logins > 1:
            self.refused = True
            return None
        return form.login(self._account.user, self._account.password)


def _wait_for_callback(address: tuple[str, int], url: str, announce: Callable[[str], None]) -> str:
    landed: list[str] = []
    arrived = threading.Event()

    class Callback(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(b"Logged in. You can close this page.\n")
            landed.append(self.path)
            arrived.set()

        def log_message(self, *args: object) -> None:
            """Say nothing: the request line holds the code."""

    with http.server.HTTPServer(address, Callback) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        announce(f"Log in with a browser on this machine: {url}")
        arrived.wait(PERSON_SECONDS)
        server.shutdown()
    return landed[0] if landed else ""
