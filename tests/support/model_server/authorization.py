"""The authorization endpoint with its login and consent steps (OAuth 2.1 §4.1, RFC 7636, RFC 8707, RFC 9207)."""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tests.support.model_server import pages
from tests.support.model_server.clients import Client, Clients
from tests.support.model_server.deployment import BASE_SCOPE, MCP_PATH, SCOPES, USERS, Deployment
from tests.support.model_server.grants import Grant, Grants
from tests.support.model_server.strict import Ambiguous, unique_form

COOKIE = "model_browser"
TRANSACTIONS = 2000
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_ALPHABET = re.compile(r"[A-Za-z0-9._~-]+")


@dataclass(frozen=True)
class AuthorizationRequest:
    """A request whose client and redirect URI are known to be right."""

    client: Client
    redirect_uri: str
    state: str | None
    scope: str = ""
    resource: str = ""
    challenge: str = ""
    method: str = ""


@dataclass
class Browser:
    """One browser session: its anti-forgery secret and, once signed in, its user."""

    csrf: str
    user: str = ""


class RequestError(Exception):
    """An error that goes to the redirect URI (RFC 6749 §4.1.2.1)."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class AuthorizationEndpoint:
    """GET /authorize, POST /login, POST /consent."""

    def __init__(self, deployment: Deployment, clients: Clients, grants: Grants) -> None:
        self._deployment = deployment
        self._clients = clients
        self._grants = grants
        self._transactions: dict[str, tuple[str, AuthorizationRequest]] = {}
        self._browsers: dict[str, Browser] = {}
        self.has = deployment.has

    async def authorize(self, request: Request) -> Response:
        """Check the request, then ask who is there."""
        response = await self._authorize(request)
        if self.has("authorize_allows_cors"):
            response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    async def _authorize(self, request: Request) -> Response:
        if request.method != "GET":
            return pages.problem("Only GET is served here.", 405)
        try:
            parameters = unique_form(request.scope["query_string"].decode("latin-1"))
        except Ambiguous:
            return await self._repeated(request)
        asked = await self._identify(
            parameters.get("client_id", ""), parameters.get("redirect_uri"), parameters.get("state")
        )
        if isinstance(asked, Response):
            return asked
        try:
            asked = self._validated(asked, parameters)
        except RequestError as error:
            return self._redirect(asked, error=error.code)
        return self._ask(request, asked)

    async def _repeated(self, request: Request) -> Response:
        query = request.query_params
        named = {name: query.getlist(name) for name in ("client_id", "redirect_uri", "state")}
        if any(len(values) > 1 for values in named.values()):
            return pages.problem("A parameter is given twice.")
        single = {name: values[0] if values else None for name, values in named.items()}
        asked = await self._identify(single["client_id"] or "", single["redirect_uri"], single["state"])
        if isinstance(asked, Response):
            return asked
        repeated_resource = len(query.getlist("resource")) > 1
        return self._redirect(asked, error="invalid_target" if repeated_resource else "invalid_request")

    async def _identify(
        self, client_id: str, redirect_uri: str | None, state: str | None
    ) -> AuthorizationRequest | Response:
        client = await self._clients.find(client_id)
        if client is None:
            return pages.problem("The client is not known.")
        if redirect_uri is None or not client.owns(redirect_uri):
            return pages.problem("The redirect URI is not registered for this client.")
        return AuthorizationRequest(client, redirect_uri, state)

    def _validated(self, asked: AuthorizationRequest, parameters: dict[str, str]) -> AuthorizationRequest:
        if parameters.get("request") or parameters.get("request_uri"):
            raise RequestError("request_not_supported")
        if not parameters.get("response_type"):
            raise RequestError("invalid_request")
        if parameters["response_type"] != "code":
            raise RequestError("unsupported_response_type")
        if parameters.get("prompt") == "none":
            raise RequestError("login_required")
        challenge, method = self._challenge(asked.client, parameters)
        scope = " ".join(parameters.get("scope", BASE_SCOPE).split()) or BASE_SCOPE
        if not set(scope.split()) <= set(SCOPES):
            raise RequestError("invalid_scope")
        resource = self._resource(parameters.get("resource"))
        return AuthorizationRequest(asked.client, asked.redirect_uri, asked.state, scope, resource, challenge, method)

    def _challenge(self, client: Client, parameters: dict[str, str]) -> tuple[str, str]:
        has, challenge = self.has, parameters.get("code_challenge")
        if challenge is None:
            confidential = client.secret is not None and has("verifier_without_challenge")
            if has("challenge_optional") or confidential:
                return "", "none"
            raise RequestError("invalid_request")
        method = parameters.get("code_challenge_method")
        if (has("any_method_is_s256") and method) or (has("omitted_method_is_s256") and method is None):
            method = "S256"
        if method == "plain" and has("plain_accepted") and _ALPHABET.fullmatch(challenge):
            return challenge, method
        if method != "S256":
            raise RequestError("invalid_request")
        well_formed = _CHALLENGE.fullmatch(challenge) is not None
        if has("short_challenge_accepted"):
            well_formed = _ALPHABET.fullmatch(challenge) is not None
        if has("challenge_alphabet_ignored"):
            well_formed = 43 <= len(challenge) <= 128
        if not well_formed:
            raise RequestError("invalid_request")
        return challenge, method

    def _resource(self, text: str | None) -> str:
        if text is None:
            return self._deployment.resources[MCP_PATH]
        known = self._deployment.known_resource(text)
        if known is not None:
            return known
        parts = urlsplit(text)
        absolute = bool(parts.scheme and parts.netloc and not parts.fragment and "#" not in text)
        if self.has("any_resource_granted") or (absolute and self.has("foreign_resource_granted")):
            return text
        raise RequestError("invalid_target")

    def _ask(self, request: Request, asked: AuthorizationRequest) -> Response:
        cookie, browser = self._browser(request)
        while len(self._transactions) >= TRANSACTIONS:
            del self._transactions[next(iter(self._transactions))]
        transaction = secrets.token_urlsafe(24)
        self._transactions[transaction] = (cookie, asked)
        return self._page(cookie, browser, transaction, asked)

    def _browser(self, request: Request) -> tuple[str, Browser]:
        cookie = request.cookies.get(COOKIE, "")
        if cookie not in self._browsers:
            while len(self._browsers) >= TRANSACTIONS:
                del self._browsers[next(iter(self._browsers))]
            cookie = secrets.token_urlsafe(32)
            self._browsers[cookie] = Browser(secrets.token_urlsafe(24))
        return cookie, self._browsers[cookie]

    def _page(
        self, cookie: str, browser: Browser, transaction: str, asked: AuthorizationRequest, wrong: bool = False
    ) -> Response:
        prefix, response = self._deployment.prefix, None
        if browser.user:
            response = pages.consent(
                f"{prefix}/consent",
                transaction,
                browser.csrf,
                browser.user,
                asked.client.name,
                asked.redirect_uri,
                asked.scope,
            )
        else:
            response = pages.login(f"{prefix}/login", transaction, browser.csrf, wrong)
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="lax", path="/")
        return response

    async def login(self, request: Request) -> Response:
        """POST /login: name and password, then the consent page. The browser session gets a new id."""
        form, cookie, asked = await self._submitted(request)
        if asked is None:
            return pages.problem("This form is not yours or no longer valid.", 403)
        name, password = form.get("username", ""), form.get("password", "")
        transaction = form["transaction"]
        right = hmac.compare_digest(USERS.get(name, secrets.token_hex(16)).encode(), password.encode())
        if not right:
            return self._page(cookie, self._browsers[cookie], transaction, asked, wrong=True)
        del self._browsers[cookie]
        cookie, browser = secrets.token_urlsafe(32), Browser(secrets.token_urlsafe(24), name)
        self._browsers[cookie] = browser
        self._transactions[transaction] = (cookie, asked)
        return self._page(cookie, browser, transaction, asked)

    async def consent(self, request: Request) -> Response:
        """POST /consent: a code for the client, or access_denied."""
        form, cookie, asked = await self._submitted(request)
        if asked is None or not self._browsers[cookie].user:
            return pages.problem("This form is not yours or no longer valid.", 403)
        del self._transactions[form["transaction"]]
        if form.get("decision") != "approve":
            return self._redirect(asked, error="access_denied")
        grant = Grant(self._browsers[cookie].user, asked.client.client_id, asked.resource, asked.scope)
        code = self._grants.issue_code(grant, asked.redirect_uri, asked.challenge, asked.method)
        if self.has("redirect_holds_the_challenge"):
            return self._redirect(asked, code=code, code_challenge=asked.challenge)
        return self._redirect(asked, code=code)

    async def _submitted(self, request: Request) -> tuple[dict[str, str], str, AuthorizationRequest | None]:
        """The form, the browser's cookie and the request it belongs to; None when the three do not fit together."""
        cookie = request.cookies.get(COOKIE, "")
        origin = request.headers.get("origin", self._deployment.base)
        try:
            form = unique_form((await request.body()).decode("latin-1"))
        except Ambiguous:
            return {}, cookie, None
        owner, asked = self._transactions.get(form.get("transaction", ""), ("", None))
        browser = self._browsers.get(cookie)
        own = urlsplit(origin).netloc in self._deployment.hosts
        if browser is None or owner != cookie or not own or request.method != "POST":
            return form, cookie, None
        return form, cookie, asked if hmac.compare_digest(browser.csrf, form.get("csrf", "")) else None

    def _redirect(self, asked: AuthorizationRequest, **parameters: str) -> Response:
        has = self.has
        withheld = has("iss_promised_but_not_sent") or ("error" in parameters and has("iss_missing_from_errors"))
        if asked.state is not None:
            parameters["state"] = asked.state
        if not withheld:
            parameters["iss"] = self._deployment.issuer
        separator = "&" if urlsplit(asked.redirect_uri).query else "?"
        return RedirectResponse(
            f"{asked.redirect_uri}{separator}{urlencode(parameters)}", 303, headers={**pages.HEADERS}
        )
