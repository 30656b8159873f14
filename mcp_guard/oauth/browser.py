"""The browser of a person: its cookie, the session behind it, and proof that a form was ours.

One cookie of 256 random bits. Before sign-in nothing is stored for it; signing in replaces it, so that a cookie that
was planted is worth nothing. The token against request forgery is a MAC under the cookie over what the form is about,
so it fits one browser and one transaction and needs no storage.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass

from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.errors import PageError
from mcp_guard.oauth.records import BrowserSession, browser_key, decode, encode
from mcp_guard.oauth.users import User
from mcp_guard.oauth.web import Request
from mcp_guard.secret import constant_time_equals, digest, mint_token
from mcp_guard.stores.base import Delete, Get, Put

COOKIE = "mcp-guard-session"

_COOKIE_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Browser:
    """A browser, known by its cookie. `session` is None until a person has signed in."""

    cookie: str
    is_new: bool
    session: BrowserSession | None

    @property
    def binding(self) -> str:
        """What a transaction keeps of the browser it belongs to."""
        return digest(self.cookie)

    def token(self, purpose: str, subject: str) -> str:
        """The token for a form of this browser, about `subject`."""
        message = f"{purpose}\n{subject}".encode()
        return hmac.new(self.cookie.encode(), message, hashlib.sha256).hexdigest()

    def accepts(self, purpose: str, subject: str, presented: str | None) -> bool:
        """Whether `presented` is the token of that form in this browser."""
        return constant_time_equals(self.token(purpose, subject), presented or "")


async def recognise(deployment: Deployment, request: Request) -> Browser:
    """The browser that sent the request; a new one when it has no usable cookie."""
    cookie = _cookie(deployment, request)
    if cookie is None:
        return Browser(mint_token(), is_new=True, session=None)
    (data,) = await deployment.store.run([Get(browser_key(cookie))])
    session = decode(BrowserSession, data)
    if session is not None and session.expires_at <= deployment.clock.wall():
        session = None
    return Browser(cookie, is_new=False, session=session)


async def sign_in(deployment: Deployment, browser: Browser, user: User) -> Browser:
    """A browser with a new cookie and a session for `user`; the old cookie is forgotten."""
    lifetime = deployment.lifetimes.browser_session
    session = BrowserSession(
        subject=user.subject,
        name=user.name,
        tenant=user.tenant,
        scopes=None if user.scopes is None else tuple(sorted(user.scopes)),
        expires_at=deployment.clock.wall() + lifetime.total_seconds(),
    )
    signed_in = Browser(mint_token(), is_new=True, session=session)
    await deployment.store.run(
        [Delete(browser_key(browser.cookie)), Put(browser_key(signed_in.cookie), encode(session), lifetime)]
    )
    return signed_in


def cookie_name(deployment: Deployment) -> str:
    """The prefix keeps other hosts and http from setting it (RFC 6265bis §4.1.3.2); it needs https.

    Servers on other ports of a loopback host share its cookies, so there the port is part of the name.
    """
    if deployment.issuer.is_secure:
        return f"__Host-{COOKIE}"
    return f"{COOKIE}-{deployment.issuer.url.port}"


def set_cookie(deployment: Deployment, browser: Browser) -> tuple[bytes, bytes]:
    """The field that gives the browser its cookie, until it is closed."""
    secure = "; Secure" if deployment.issuer.is_secure else ""
    value = f"{cookie_name(deployment)}={browser.cookie}; Path=/; HttpOnly; SameSite=Lax{secure}"
    return (b"set-cookie", value.encode("ascii"))


def _cookie(deployment: Deployment, request: Request) -> str | None:
    """The value of our cookie; None when it is absent, malformed or sent twice with different values."""
    name = cookie_name(deployment)
    found: set[str] = set()
    for field in request.values(b"cookie"):
        for pair in field.decode("latin-1").split(";"):
            key, _, value = pair.strip(" ").partition("=")
            if key == name:
                found.add(value)
    value = found.pop() if len(found) == 1 else ""
    return value if _COOKIE_VALUE.fullmatch(value) else None


def refuse_foreign_forms(deployment: Deployment, request: Request) -> None:
    """Refuse a form that another site posted.

    Our pages forbid the referrer, so browsers send `Origin: null` with their forms; then `Sec-Fetch-Site` decides where
    the browser knows it, and the form's token in any case.

    Raises:
        PageError: 403.
    """
    origins = request.values(b"origin")
    sites = request.values(b"sec-fetch-site")
    origin_is_ours = origins in ([], [b"null"], [deployment.issuer.url.origin.encode("ascii")])
    if not origin_is_ours or sites not in ([], [b"same-origin"]):
        raise PageError(403, "This form came from elsewhere", "It was not sent by a page of this service.")
