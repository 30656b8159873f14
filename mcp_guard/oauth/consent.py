"""The consent page: a person approves or denies. It is always shown; no earlier answer is remembered.

What is granted comes from the stored transaction alone. The form carries its id, the token against forgery and the
answer; the transaction answers to the browser it was opened in, once.
"""

from dataclasses import dataclass

from mcp_guard.events import Event
from mcp_guard.oauth import browser, clients, errors, grants
from mcp_guard.oauth.authorize import error_location, success_location
from mcp_guard.oauth.browser import Browser
from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.errors import PageError
from mcp_guard.oauth.login import read_form
from mcp_guard.oauth.pages import ConsentForm, consent_page
from mcp_guard.oauth.parameters import ParameterError, Parameters, parse_form
from mcp_guard.oauth.records import BrowserSession, Client, Transaction, decode, transaction_key
from mcp_guard.oauth.web import Request, Response, redirect_response
from mcp_guard.protocol.redirects import parse_redirect
from mcp_guard.stores.base import Get, Take

MAX_QUERY = 256

_PURPOSE = "consent"


@dataclass(frozen=True, slots=True)
class _Pending:
    """A transaction that this browser may answer."""

    id: str
    visitor: Browser
    session: BrowserSession
    transaction: Transaction
    client: Client


async def consent(deployment: Deployment, request: Request) -> Response:
    """GET: the page. POST: on to the client, with a code or with `access_denied`."""
    if request.method != "POST":
        return _page(deployment, await _pending(deployment, request, _query(request)))
    browser.refuse_foreign_forms(deployment, request)
    form = await read_form(request)
    pending = await _pending(deployment, request, form)
    if not pending.visitor.accepts(_PURPOSE, pending.id, form.one("csrf")):
        raise PageError(403, "This form is not valid", "It does not belong to this browser. Start again from the app.")
    decision = form.one("decision")
    if decision not in {"approve", "deny"}:
        raise PageError(400, "This form cannot be read", "It holds no decision.")
    response = await _answer(deployment, pending, approved=decision == "approve")
    name, person = ("consent" if decision == "approve" else "denial"), pending.session
    asked = pending.transaction
    request.report(Event(name, deployment.issuer.identifier, person.subject, asked.client_id, person.tenant))
    return response


async def _answer(deployment: Deployment, pending: _Pending, *, approved: bool) -> Response:
    (taken,) = await deployment.store.run([Take(transaction_key(pending.id))])
    if taken is None:
        raise _gone()
    asked = pending.transaction
    if approved:
        code = await grants.issue_code(deployment, asked, pending.session)
        location = success_location(deployment, asked.redirect_uri, asked.state, code)
    else:
        location = error_location(
            deployment, asked.redirect_uri, asked.state, errors.ACCESS_DENIED, "The user denied the request"
        )
    return redirect_response(303, location)


async def _pending(deployment: Deployment, request: Request, parameters: Parameters) -> _Pending:
    """The transaction that the parameters name.

    Raises:
        PageError: it is unknown, expired, answered, or another browser's; the two sorts are told apart by status alone.
    """
    transaction_id = parameters.one("transaction")
    if transaction_id is None:
        raise _gone()
    visitor = await browser.recognise(deployment, request)
    (data,) = await deployment.store.run([Get(transaction_key(transaction_id))])
    transaction = decode(Transaction, data)
    if transaction is None or transaction.expires_at <= deployment.clock.wall():
        raise _gone()
    if visitor.session is None or transaction.browser != visitor.binding:
        raise PageError(
            403, "This page belongs to another sign-in", "You are not signed in as its owner. Start again from the app."
        )
    client = await clients.find(deployment, transaction.client_id)
    if client is None:
        raise _gone()
    return _Pending(transaction_id, visitor, visitor.session, transaction, client)


def _query(request: Request) -> Parameters:
    try:
        if len(request.query) > MAX_QUERY:
            raise ParameterError("it is too long")
        parameters = Parameters(parse_form(request.query))
        parameters.one("transaction")
    except ParameterError as fault:
        raise PageError(400, "This link cannot be used", f"The request is malformed: {fault}.") from None
    return parameters


def _gone() -> PageError:
    return PageError(
        400, "This request is over", "It was answered already, or it has expired. Start again from the app."
    )


def _page(deployment: Deployment, pending: _Pending) -> Response:
    asked = pending.transaction
    form = ConsentForm(
        action=deployment.issuer.endpoint("consent"),
        csrf=pending.visitor.token(_PURPOSE, pending.id),
        transaction=pending.id,
        app=pending.client.name,
        client_id=pending.client.client_id,
        redirect=parse_redirect(asked.redirect_uri),
        user=pending.session.name,
        resource=asked.resource,
        scopes=[(scope, deployment.scopes.get(scope, scope)) for scope in asked.scopes],
        switch=f"{deployment.issuer.endpoint('login')}?{asked.query}",
    )
    return consent_page(deployment, form)
