"""The login page: a person proves who they are, and the authorization request goes on.

The request stays in the URL. The form's token is bound to the browser's cookie and to that request, so nobody can be
signed in as somebody else by another site (login CSRF). Attempts are limited for each user and each address before the
password is looked at.
"""

from mcp_guard.events import Event
from mcp_guard.oauth import browser, errors, limits
from mcp_guard.oauth.authorize import Identified, identify
from mcp_guard.oauth.browser import Browser
from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.errors import PageError
from mcp_guard.oauth.pages import LoginForm, login_page
from mcp_guard.oauth.parameters import ParameterError, Parameters, parse_form
from mcp_guard.oauth.web import Request, Response, redirect_response
from mcp_guard.secret import Secret

MAX_FORM = 16384
"""Bytes of a form."""

_PURPOSE = "login"


async def login(deployment: Deployment, request: Request) -> Response:
    """GET: the form. POST: the form again with a sentence, or on to the authorization endpoint with a session."""
    identified = await identify(deployment, request.query)
    visitor = await browser.recognise(deployment, request)
    if request.method != "POST":
        return _form(deployment, identified, visitor)
    browser.refuse_foreign_forms(deployment, request)
    form = await read_form(request)
    name, password = form.one("username") or "", form.one("password") or ""
    is_ours = visitor.accepts(_PURPOSE, identified.query, form.one("csrf"))
    if not is_ours and visitor.session is None:
        return _out_of_date(deployment, request, identified, visitor, name)
    wait = await _wait(deployment, request, name)
    if wait is not None:
        request.note(errors.for_audit(429, "login_limit", "too many sign-in attempts"))
        page = _form(
            deployment, identified, visitor, status=429, name=name, error="Too many attempts. Try again later."
        )
        return page.with_headers((b"retry-after", str(wait).encode()))
    user = await deployment.users.authenticate(name, Secret(password)) if name and password else None
    if user is None:
        request.note(errors.for_audit(403, "login_failed", "name or password is wrong"))
        return _form(deployment, identified, visitor, status=403, name=name, error="Name or password is wrong.")
    onward = redirect_response(303, _onward(deployment, identified))
    if is_ours:
        signed_in = await browser.sign_in(deployment, visitor, user)
        client_id = identified.client.client_id
        request.report(Event("login", deployment.issuer.identifier, user.subject, client_id, user.tenant))
        return onward.with_headers(browser.set_cookie(deployment, signed_in))
    # Another tab signed somebody in since, which changed the cookie. The same person just goes on; nothing changes.
    if visitor.session is not None and visitor.session.subject == user.subject:
        return onward
    return _out_of_date(deployment, request, identified, visitor, name)


def _out_of_date(
    deployment: Deployment, request: Request, identified: Identified, visitor: Browser, name: str
) -> Response:
    """The form again, with a token that this browser has."""
    request.note(errors.for_audit(403, "login_forged", "the form's token is not this browser's"))
    return _form(deployment, identified, visitor, status=403, name=name, error="The page was out of date. Try again.")


def _onward(deployment: Deployment, identified: Identified) -> str:
    """Where the authorization request goes on, for the person who is signed in."""
    return f"{deployment.issuer.endpoint('authorize')}?{identified.query}"


def _form(
    deployment: Deployment,
    identified: Identified,
    visitor: Browser,
    *,
    status: int = 200,
    name: str = "",
    error: str | None = None,
) -> Response:
    form = LoginForm(
        action=f"{deployment.issuer.endpoint('login')}?{identified.query}",
        csrf=visitor.token(_PURPOSE, identified.query),
        app=identified.client.name,
        redirect=identified.redirect,
        onward=_onward(deployment, identified),
        signed_in_as=visitor.session.name if visitor.session else None,
        name=name,
        error=error,
    )
    page = login_page(deployment, form, status=status)
    return page.with_headers(browser.set_cookie(deployment, visitor)) if visitor.is_new else page


async def _wait(deployment: Deployment, request: Request, name: str) -> int | None:
    """Count an attempt. The seconds to wait when there were too many."""
    rates = deployment.limits
    return await limits.seconds_to_wait(
        deployment.store,
        limits.bucket("login-address", rates.logins_per_address, request.address.bucket),
        limits.bucket("login-user-address", rates.logins_per_user_and_address, f"{request.address.bucket} {name}"),
        limits.bucket("login-user", rates.logins_per_user, name),
    )


async def read_form(request: Request) -> Parameters:
    """The fields of a form that a page of ours posted.

    Raises:
        PageError: it is not a form, or a field is repeated.
    """
    if request.media_type() != "application/x-www-form-urlencoded":
        raise PageError(415, "This form cannot be read", "It was not sent by a page of this service.")
    try:
        form = Parameters(parse_form(await request.body(MAX_FORM)))
    except ParameterError as fault:
        raise PageError(400, "This form cannot be read", f"It is malformed: {fault}.") from None
    if form.repeated() is not None:
        raise PageError(400, "This form cannot be read", "A field is repeated.")
    return form
