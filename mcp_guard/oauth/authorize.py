"""The authorization endpoint (OAuth 2.1 §4.1.1): reads a request, and asks a person.

Three steps, so that nobody is redirected to a client before it is safe. `identify` finds the client and its redirect
URI; what goes wrong there is shown on a page. Then the person signs in. Then `examine` judges the rest; what goes wrong
there is told to the client (OAuth 2.1 §7.12.2: the person is authenticated first, errors included).

Nothing is stored for a person who has not signed in: the request travels in the URL and is judged anew at each step, so
the URL may be opened as often as one likes. For a person who has, it becomes a transaction that only that browser can
answer.
"""

from dataclasses import dataclass

from mcp_guard.oauth import browser, clients, errors, limits
from mcp_guard.oauth.browser import Browser
from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.errors import PageError, RedirectableError
from mcp_guard.oauth.parameters import ParameterError, Parameters, encode_form, parse_form
from mcp_guard.oauth.records import BrowserSession, Client, Transaction, encode, transaction_key
from mcp_guard.oauth.web import Request, Response, redirect_response
from mcp_guard.protocol import b64url, pkce
from mcp_guard.protocol import scopes as scope_rules
from mcp_guard.protocol.metadata import canonical_resource
from mcp_guard.protocol.redirects import Redirect, find_match, parse_redirect, with_parameters
from mcp_guard.secret import mint_token
from mcp_guard.stores.base import Put

MAX_QUERY = 8192
"""Bytes of a query."""

_OBJECTS = {"request": "request_not_supported", "request_uri": "request_uri_not_supported"}


@dataclass(frozen=True, slots=True)
class Identified:
    """A request whose client and redirect URI are sound. `query` is the whole request in one spelling."""

    client: Client
    redirect: Redirect
    parameters: Parameters

    @property
    def query(self) -> str:
        return encode_form(self.parameters.pairs)

    @property
    def state(self) -> str | None:
        """The state to return; None when there is none, or more than one."""
        return self.parameters.one_or_none("state")


@dataclass(frozen=True, slots=True)
class Examined:
    """What a sound request asks for."""

    scopes: tuple[str, ...]
    resource: str
    challenge: str
    jkt: str | None


async def authorize(deployment: Deployment, request: Request) -> Response:
    """GET: to the login page, to the consent page, or with an error to the client."""
    identified = await identify(deployment, request.query)
    visitor = await browser.recognise(deployment, request)
    if visitor.session is None:
        return redirect_response(302, f"{deployment.issuer.endpoint('login')}?{identified.query}")
    try:
        examined = examine(deployment, identified, visitor.session)
    except RedirectableError as fault:
        request.note(errors.for_audit(302, fault.error, fault.description))
        return redirect_response(
            302, error_location(deployment, identified.redirect.uri, identified.state, fault.error, fault.description)
        )
    transaction_id = await _open(deployment, identified, examined, visitor, visitor.session)
    return redirect_response(302, f"{deployment.issuer.endpoint('consent')}?transaction={transaction_id}")


async def identify(deployment: Deployment, query: bytes) -> Identified:
    """The client and the redirect URI of a request.

    Raises:
        PageError: either cannot be trusted, so nothing is sent there (OAuth 2.1 §4.1.2.1).
    """
    if len(query) > MAX_QUERY:
        raise PageError(400, "This link cannot be used", "The request is too long.")
    try:
        parameters = Parameters(parse_form(query))
        client_id = parameters.one("client_id")
        redirect_uri = parameters.one("redirect_uri")
    except ParameterError as fault:
        raise PageError(400, "This link cannot be used", f"The request is malformed: {fault}.") from None
    if client_id is None or redirect_uri is None:
        raise PageError(400, "This link cannot be used", "The request names no app, or no address to return to.")
    client = await clients.find(deployment, client_id)
    if client is None:
        raise PageError(
            400,
            "This app is not known here",
            "It has not registered, or not used its registration for long. Start again from the app.",
        )
    if not find_match(client.redirect_uris, redirect_uri):
        raise PageError(
            400,
            "This link cannot be used",
            "The address to return to is not one that the app registered, so you are not sent there.",
        )
    return Identified(client, parse_redirect(redirect_uri), parameters)


def examine(deployment: Deployment, identified: Identified, session: BrowserSession) -> Examined:
    """Judge everything else of a request.

    Raises:
        RedirectableError: what the client is to be told.
    """
    parameters = identified.parameters
    if parameters.has("resource") and not parameters.one_or_none("resource"):
        raise RedirectableError(errors.INVALID_TARGET, "The resource must be one absolute URI")
    repeated = parameters.repeated()
    if repeated is not None:
        raise RedirectableError(errors.INVALID_REQUEST, "A parameter is repeated")
    for name, error in _OBJECTS.items():
        if parameters.has(name):
            raise RedirectableError(error, "Request objects are not supported")
    response_type = parameters.one("response_type")
    if response_type is None:
        raise RedirectableError(errors.INVALID_REQUEST, "The response_type is missing")
    if response_type != "code":
        raise RedirectableError(errors.UNSUPPORTED_RESPONSE_TYPE, "The only response_type is code")
    if parameters.one("response_mode") not in {None, "query"}:
        raise RedirectableError(errors.INVALID_REQUEST, "The only response_mode is query")
    return Examined(
        scopes=_scopes(deployment, identified.client, session, parameters.one("scope")),
        resource=_resource(deployment, parameters.one("resource")),
        challenge=_challenge(parameters),
        jkt=_key(deployment, parameters.one("dpop_jkt")),
    )


def _challenge(parameters: Parameters) -> str:
    challenge = parameters.one("code_challenge")
    if challenge is None:
        raise RedirectableError(errors.INVALID_REQUEST, "A code_challenge is required")
    if parameters.one("code_challenge_method") != pkce.METHOD:
        raise RedirectableError(errors.INVALID_REQUEST, "The code_challenge_method must be S256")
    if not pkce.is_challenge(challenge):
        raise RedirectableError(errors.INVALID_REQUEST, "The code_challenge is malformed")
    return challenge


def _key(deployment: Deployment, jkt: str | None) -> str | None:
    """The key that the code is to be bound to (RFC 9449 §10), by its thumbprint."""
    if jkt is None or deployment.proofs.policy == "off":
        return None
    if not b64url.is_sha256(jkt):
        raise RedirectableError(errors.INVALID_REQUEST, "The dpop_jkt is malformed")
    return jkt


def _resource(deployment: Deployment, resource: str | None) -> str:
    """The resource the token will be for; the first one when none is named (RFC 8707 §2)."""
    if resource is None:
        return deployment.resources[0]
    canonical = canonical_resource(resource)
    if canonical not in deployment.resources:
        raise RedirectableError(errors.INVALID_TARGET, "The resource is not served by this authorization server")
    return canonical


def _scopes(deployment: Deployment, client: Client, session: BrowserSession, text: str | None) -> tuple[str, ...]:
    """What is offered, the person's to give, and asked for; if nothing is, what the client named when it registered.

    Scopes beyond that are left out (RFC 6749 §3.3), and the token response says so; when none is left it is an error.
    What a client named when it registered is no bound: it registers itself, and before it knows what it will need
    (MCP 2026-07-28 basic/authorization §Step-Up Authorization Flow). The consent of the person is.
    """
    allowed = [scope for scope in deployment.scopes if session.scopes is None or scope in session.scopes]
    if text is None:
        return tuple(scope for scope in allowed if client.scopes is None or scope in client.scopes)
    try:
        asked = scope_rules.parse(text)
    except scope_rules.ScopeError:
        raise RedirectableError(errors.INVALID_SCOPE, "The scope is malformed") from None
    granted = tuple(scope for scope in allowed if scope in asked)
    if not granted and deployment.scopes:
        raise RedirectableError(errors.INVALID_SCOPE, "None of the scopes can be granted")
    return granted


async def _open(
    deployment: Deployment, identified: Identified, examined: Examined, visitor: Browser, session: BrowserSession
) -> str:
    """Store the transaction that the consent page is about; answers its id."""
    bucket = limits.bucket("transaction", deployment.limits.transactions_per_user, session.subject)
    wait = await limits.seconds_to_wait(deployment.store, bucket)
    if wait is not None:
        raise PageError(
            429,
            "Too many requests",
            "Too many apps asked for access in your name just now. Try again in a few minutes.",
            headers=[(b"retry-after", str(wait).encode())],
        )
    lifetime = deployment.lifetimes.transaction
    transaction = Transaction(
        browser=visitor.binding,
        client_id=identified.client.client_id,
        redirect_uri=identified.redirect.uri,
        state=identified.state,
        scopes=examined.scopes,
        resource=examined.resource,
        challenge=examined.challenge,
        jkt=examined.jkt,
        query=identified.query,
        expires_at=deployment.clock.wall() + lifetime.total_seconds(),
    )
    transaction_id = mint_token()
    await deployment.store.run([Put(transaction_key(transaction_id), encode(transaction), lifetime)])
    return transaction_id


def success_location(deployment: Deployment, redirect_uri: str, state: str | None, code: str) -> str:
    """Where the person goes with a code (OAuth 2.1 §4.1.2, RFC 9207 §2)."""
    return _location(deployment, redirect_uri, state, [("code", code)])


def error_location(deployment: Deployment, redirect_uri: str, state: str | None, error: str, description: str) -> str:
    """Where the person goes with an error (OAuth 2.1 §4.1.2.1, RFC 9207 §2)."""
    return _location(deployment, redirect_uri, state, [("error", error), ("error_description", description)])


def _location(deployment: Deployment, redirect_uri: str, state: str | None, response: list[tuple[str, str]]) -> str:
    returned = [] if state is None else [("state", state)]
    return with_parameters(redirect_uri, [*response, *returned, ("iss", deployment.issuer.identifier)])
