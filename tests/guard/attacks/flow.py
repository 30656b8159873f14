"""One person's browser and one client at the live authorization server: the way to a code, with every step in hand."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx

from mcp_guard.forms import Form
from mcp_guard.secret import Secret, mint_token
from tests.guard.attacks.deployment import USERS, Deployment
from tests.guard.attacks.raw import Request

REDIRECT = "https://client.example/callback"


def challenge_of(verifier: str) -> str:
    """RFC 7636 §4.2, S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@dataclass
class Flow:
    """A registered client and a signed-in browser of `user`."""

    live: Deployment
    user: str = "alice"
    redirect_uri: str = REDIRECT
    browser: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=10))
    verifier: str = field(default_factory=mint_token)
    client_id: str = ""

    def __post_init__(self) -> None:
        self.live.until_closed.enter_context(self.browser)
        self.client_id = self.client_id or self.register()

    def register(self, **overrides: object) -> str:
        """A public client; answers its id."""
        members = {"redirect_uris": [self.redirect_uri], "token_endpoint_auth_method": "none", **overrides}
        answer = self.browser.post(f"{self.live.origin}/register", json=members)
        if answer.status_code != 201:
            raise RuntimeError(f"registration is answered {answer.status_code} {answer.text[:200]}")
        return str(answer.json()["client_id"])

    def parameters(self, **overrides: str | None) -> list[tuple[str, str]]:
        """A good authorization request; an override of None leaves a parameter out."""
        good: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "state": "state-of-the-client",
            "code_challenge": challenge_of(self.verifier),
            "code_challenge_method": "S256",
            "resource": self.live.mcp,
            "scope": "mcp:tools",
            **overrides,
        }
        return [(name, value) for name, value in good.items() if value is not None]

    def sign_in(self) -> None:
        """Sign the browser in, without approving anything."""
        page = self.follow(self.browser.get(f"{self.live.origin}/authorize", params=urlencode(self.parameters())))
        form = Form.on(page.text)
        if form is None or form.password is None:
            raise RuntimeError(f"no login page: {page.status_code}")
        self.follow(self.browser.post(urljoin(str(page.url), form.action), data=self.filled(form)))

    def filled(self, form: Form) -> dict[str, str]:
        return form.filled(self.user, Secret(USERS[self.user]))

    def follow(self, page: httpx.Response) -> httpx.Response:
        """Follow redirects within the server."""
        while page.is_redirect and urljoin(str(page.url), page.headers["location"]).startswith(self.live.origin):
            page = self.browser.get(urljoin(str(page.url), page.headers["location"]))
        return page

    def consent(self, **overrides: str | None) -> httpx.Response:
        """The consent page of a new transaction; the browser is signed in."""
        return self.follow(
            self.browser.get(f"{self.live.origin}/authorize", params=urlencode(self.parameters(**overrides)))
        )

    def approve(self, page: httpx.Response) -> dict[str, str]:
        """Approve on a consent page; answers the authorization response."""
        form = Form.on(page.text)
        if form is None:
            raise RuntimeError(f"no consent page: {page.status_code} {page.text[:200]}")
        answer = self.browser.post(urljoin(str(page.url), form.action), data=self.filled(form))
        return dict(parse_qsl(urlsplit(answer.headers["location"]).query))

    def code(self, **overrides: str | None) -> str:
        """A new code."""
        answer = self.approve(self.consent(**overrides))
        self.live.secrets.add(answer["code"])
        return answer["code"]

    def fields(self, code: str, **overrides: str | None) -> list[tuple[str, str]]:
        """A good token request for `code`."""
        good: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "client_id": self.client_id,
            "code_verifier": self.verifier,
            "resource": self.live.mcp,
            **overrides,
        }
        return [(name, value) for name, value in good.items() if value is not None]

    def redeem(self, fields: list[tuple[str, str]]) -> httpx.Response:
        """Send a token request; what it yields is remembered as secret."""
        answer = self.browser.post(
            f"{self.live.origin}/token",
            content=urlencode(fields),
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        if answer.status_code == 200:
            tokens = answer.json()
            self.live.secrets.update(tokens[name] for name in ("access_token", "refresh_token") if name in tokens)
        return answer

    def cookies(self) -> bytes:
        """The browser's cookies as a Cookie field."""
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.browser.cookies.jar).encode()

    def get(self, path: str, query: list[tuple[str, str]] | Mapping[str, str], *, raw: str = "") -> Request:
        """A navigation of this browser as a raw request; `raw` is appended to the query as it stands."""
        target = f"{path}?{urlencode(query)}{raw}".encode()
        return Request(b"GET", target, ((b"Host", self.live.host), (b"Cookie", self.cookies())))

    def post(self, path: str, fields: list[tuple[str, str]], *headers: tuple[bytes, bytes]) -> Request:
        """A form of this browser as a raw request."""
        common = (
            (b"Host", self.live.host),
            (b"Content-Type", b"application/x-www-form-urlencoded"),
            (b"Cookie", self.cookies()),
        )
        return Request(b"POST", path.encode(), (*common, *headers), urlencode(fields).encode())


def signed_in(live: Deployment, user: str = "alice") -> Flow:
    """A client and a signed-in browser."""
    flow = Flow(live, user)
    flow.sign_in()
    return flow
