"""The two pages a person sees, and the headers that keep other pages away from them."""

from __future__ import annotations

from html import escape
from urllib.parse import urlsplit

from starlette.responses import HTMLResponse

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head><body>{body}</body></html>'
)


def page(title: str, body: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=escape(title), body=body), status, headers=HEADERS)


def problem(text: str, status: int = 400, *, markup: str = "") -> HTMLResponse:
    """A page for an error that must not be sent to a redirect URI. `markup` is shown as it is."""
    body = f"<h1>The request cannot be served</h1><p>{escape(text)}{markup}</p>"
    return page("The request cannot be served", body, status)


def login(action: str, transaction: str, csrf: str, wrong: bool = False) -> HTMLResponse:
    """The form that asks for name and password."""
    complaint = "<p>Name or password is wrong.</p>" if wrong else ""
    body = (
        f'<h1>Sign in</h1>{complaint}<form method="post" action="{escape(action)}">{_hidden(transaction, csrf)}'
        '<label>Name <input type="text" name="username" autocomplete="username" required></label>'
        '<label>Password <input type="password" name="password" autocomplete="current-password" required></label>'
        '<button type="submit">Sign in</button></form>'
    )
    return page("Sign in", body, 401 if wrong else 200)


def consent(
    action: str, transaction: str, csrf: str, user: str, client: str, redirect: str, scope: str, *, raw: bool = False
) -> HTMLResponse:
    """The form that asks for approval, naming the client and where the answer goes. `raw` names it as markup."""
    host = urlsplit(redirect).netloc or redirect
    named = client if raw else escape(client)
    body = (
        f"<h1>Allow access?</h1><p>{named} (answers to {escape(host)}) asks to act for {escape(user)}: "
        f'{escape(scope)}.</p><form method="post" action="{escape(action)}">{_hidden(transaction, csrf)}'
        '<button type="submit" name="decision" value="approve">Approve</button>'
        '<button type="submit" name="decision" value="deny">Deny</button></form>'
    )
    return page("Allow access?", body)


def _hidden(transaction: str, csrf: str) -> str:
    return (
        f'<input type="hidden" name="transaction" value="{escape(transaction)}">'
        f'<input type="hidden" name="csrf" value="{escape(csrf)}">'
    )
