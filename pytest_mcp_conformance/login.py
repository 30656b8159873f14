"""How a run logs in: it fills the pages in, only follows redirects, or asks a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pytest_mcp_conformance.browser import Browser, Walk
from pytest_mcp_conformance.callback import Callback, listening
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

    @contextmanager
    def person(self) -> Iterator[Person]:
        """A person with a browser of their own, and a redirect URI that waits for them."""
        with listening() as callback:
            yield Person(callback, self._announce)


@dataclass(frozen=True)
class Person:
    """Logs in when asked. `redirect_uri` is where their browser comes back to."""

    callback: Callback
    announce: Callable[[str], None]

    @property
    def redirect_uri(self) -> str:
        return self.callback.url

    def walk(self, url: str) -> Walk:
        """Print the URL and wait for the browser to come back.

        Raises:
            Inconclusive: nobody came back in time.
        """
        self.announce(f"Log in with a browser on this machine: {url}")
        landed = self.callback.wait(PERSON_SECONDS)
        if not landed:
            raise Inconclusive(f"nobody came back from the login page within {PERSON_SECONDS:g} seconds")
        return Walk((), landed)


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
