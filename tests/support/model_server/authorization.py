"""The authorization endpoint with its login and consent steps (OAuth 2.1 §4.1, RFC 7636, RFC 8707, RFC 9207)."""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, replace
from urllib.parse import unquote_plus, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tests.support.model_server import pages
from tests.support.model_server.clients import Client, Clients
from tests.support.model_server.deployment import BASE_SCOPE, MCP_PATH, SCOPES, USERS, Deployment
from tests.support.model_server.dressing import dressed
from tests.support.model_server.grants import Grant, Grants
from tests.support.model_server.redirect_uris import LOOPBACK, owned
from tests.support.model_server.strict import Ambiguous, unique_form

COOKIE = "model_browser"
TRANSACTIONS = 2000
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_ALPHABET = re.compile(r"[A-Za-z0-9._~-]+")


NOBODY = Client("", None, "", ())
KNOWN = frozenset(
    {"response_type", "client_id", "redirect_uri", "state", "scope", "resource", "code_challenge", "prompt"}
    | {"code_challenge_method", "request", "request_uri", "response_mode", "dpop_jkt"}
)


@dataclass(frozen=True)
class AuthorizationRequest:
    """A request whose client and redirect URI are known to be right. `error` is what the client is told in the end."""

    client: Client
    redirect_uri: str
    state: str | None
    scope: str = ""
    resource: str = ""
    challenge: str = ""
    method: str = ""
    jkt: str = ""
    error: str = ""
    implicit: bool = False


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
        self._approved: set[tuple[str, str]] = set()
        self.has = deployment.has

    async def authorize(self, request: Request) -> Response:
        """Check the request, then ask who is there."""
        response = dressed(await self._authorize(request), self.has)
        if self.has("authorize_allows_cors"):
            response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    async def _authorize(self, request: Request) -> Response:
        if request.method != "GET":
            return pages.problem("Only GET is served here.", 405)
        try:
            parameters = self._parameters(request)
        except Ambiguous:
            return await self._repeated(request)
        if self.has("errors_redirected_first") and parameters.get("response_type") != "code":
            anywhere = AuthorizationRequest(NOBODY, parameters.get("redirect_uri", ""), parameters.get("state"))
            return self._redirect(anywhere, error="unsupported_response_type")
        asked = await self._identify(
            parameters.get("client_id", ""), parameters.get("redirect_uri"), parameters.get("state")
        )
        if isinstance(asked, Response):
            return asked
        try:
            asked = self._validated(asked, parameters)
        except RequestError as error:
            asked = replace(asked, error=error.code)
            if parameters.get("prompt") == "none":
                return self._redirect(asked, error="login_required")
        return self._ask(request, asked)

    def _parameters(self, request: Request) -> dict[str, str]:
        """Raises: Ambiguous, when one is repeated."""
        if self.has("repeats_at_authorize"):
            return dict(request.query_params)
        return unique_form(request.scope["query_string"].decode("latin-1"))

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
        asked = replace(asked, error="invalid_target" if repeated_resource else "invalid_request")
        return self._ask(request, asked)

    async def _identify(
        self, client_id: str, redirect_uri: str | None, state: str | None
    ) -> AuthorizationRequest | Response:
        client = await self._clients.find(client_id)
        if client is None:
            if self.has("unknown_client_redirected") and redirect_uri:
                return self._redirect(AuthorizationRequest(NOBODY, redirect_uri, state), error="unauthorized_client")
            return pages.problem("The client is not known.", markup=self._told(client_id))
        if redirect_uri is None and self.has("missing_redirect_guessed"):
            redirect_uri = client.redirect_uris[0]
        if redirect_uri is None or not owned(redirect_uri, client.redirect_uris, self.has):
            markup = redirect_uri or "" if self.has("redirect_errors_unescaped") else ""
            return pages.problem("The redirect URI is not registered for this client.", markup=markup)
        return AuthorizationRequest(client, redirect_uri, state)

    def _told(self, client_id: str) -> str:
        """What an error page says of a client that is not known, beyond that."""
        if self.has("fetch_errors_told") and self._clients.silent:
            return " Nobody answers there."
        return client_id if self.has("errors_unescaped") else ""

    def _validated(self, asked: AuthorizationRequest, parameters: dict[str, str]) -> AuthorizationRequest:
        if parameters.get("request") or parameters.get("request_uri"):
            raise RequestError("request_not_supported")
        self._check_response_type(parameters.get("response_type", ""))
        if parameters.get("prompt") == "none":
            raise RequestError("login_required")
        if self.has("unknown_parameters_refused") and not parameters.keys() <= KNOWN:
            raise RequestError("invalid_request")
        if self.has("empty_scope_refused") and parameters.get("scope") == "":
            raise RequestError("invalid_scope")
        challenge, method = self._challenge(asked.client, parameters)
        scope = " ".join(parameters.get("scope", BASE_SCOPE).split()) or BASE_SCOPE
        if not set(scope.split()) <= set(SCOPES):
            raise RequestError("invalid_scope")
        resource = self._resource(parameters.get("resource"))
        implicit = self.has("implicit_grant") and parameters["response_type"] == "token"
        jkt = parameters.get("dpop_jkt", "")
        asked = replace(asked, scope=scope, resource=resource, challenge=challenge, method=method)
        return replace(asked, jkt=jkt, implicit=implicit)

    def _check_response_type(self, text: str) -> None:
        has = self.has
        if has("response_type_ignored") or (has("implicit_grant") and text == "token"):
            return
        if (has("response_type_has_code") and "code" in text.split()) or (
            has("response_type_any_case") and text.lower() == "code"
        ):
            return
        if not text:
            raise RequestError("invalid_request")
        if text != "code":
            odd = has("response_type_refused_oddly")
            raise RequestError("server_error" if odd else "unsupported_response_type")

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
        """Ask who is there, before anything is told to the client (OAuth 2.1 §7.12.2)."""
        if asked.error and self.has("errors_before_login"):
            return self._redirect(asked, error=asked.error)
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
        if browser.user and asked.error:
            return self._redirect(asked, error=asked.error)
        if browser.user and (browser.user, asked.client.client_id) in self._approved:
            return self._granted(browser.user, asked)
        if browser.user:
            response = pages.consent(
                f"{prefix}/consent",
                transaction,
                browser.csrf,
                browser.user,
                asked.client.name,
                self._shown(asked.redirect_uri),
                asked.scope,
                raw=self.has("client_names_unescaped"),
            )
        else:
            response = pages.login(f"{prefix}/login", transaction, browser.csrf, wrong)
        response.set_cookie(COOKIE, cookie, httponly=True, samesite="lax", path="/")
        return response

    def _shown(self, redirect_uri: str) -> str:
        """What the consent page makes the host it names of."""
        local = (urlsplit(redirect_uri).hostname or "") in LOOPBACK
        hidden = self.has("consent_hides_redirect") or (local and self.has("consent_hides_loopback"))
        return "its own address" if hidden else redirect_uri

    async def login(self, request: Request) -> Response:
        """POST /login: name and password, then the consent page. The browser session gets a new id."""
        return dressed(await self._login(request), self.has)

    async def _login(self, request: Request) -> Response:
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
        user = self._browsers[cookie].user
        if self.has("consent_remembered"):
            self._approved.add((user, asked.client.client_id))
        return self._granted(user, asked)

    def _granted(self, user: str, asked: AuthorizationRequest) -> Response:
        grant = Grant(user, asked.client.client_id, asked.resource, asked.scope)
        code = self._grants.issue_code(grant, asked.redirect_uri, asked.challenge, asked.method, asked.jkt)
        if asked.implicit:
            return self._redirect(asked, access_token=code, token_type="Bearer")
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
        withheld = withheld or has("iss_neither_promised_nor_sent")
        if asked.state is not None and not ("error" in parameters and has("state_missing_from_errors")):
            parameters["state"] = self._returned(asked.state)
        if not withheld:
            parameters["iss"] = self._deployment.issuer
        query = urlencode(parameters)
        if has("state_twice") and "state" in parameters:
            query += f"&{urlencode({'state': parameters['state']})}"
        separator = "&" if urlsplit(asked.redirect_uri).query else "?"
        status = 307 if has("consent_redirects_307") else 308 if has("consent_redirects_308") else 303
        return RedirectResponse(f"{asked.redirect_uri}{separator}{query}", status, headers={**pages.HEADERS})

    def _returned(self, state: str) -> str:
        if self.has("state_decoded_twice"):
            return unquote_plus(state)
        if self.has("state_trimmed"):
            return state.strip()
        return state[:128] if self.has("state_cut") else state
