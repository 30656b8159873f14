"""The pages a person sees: no scripts, nothing loaded from elsewhere, everything that came in is escaped."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.web import NO_STORE, Response
from mcp_guard.protocol.redirects import Redirect

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #57606a; --paper: #ffffff; --ground: #f3f4f6;
  --line: #c9d1d9; --act: #0b57d0; --act-ink: #ffffff; --warn: #fff4d6; --warn-ink: #5c4200;
  --bad: #fde8e8; --bad-ink: #8f1414; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --quiet: #a3abb5; --paper: #1c2026; --ground: #111418;
  --line: #4a535e; --act: #8ab4f8; --act-ink: #10213f; --warn: #3a2f10; --warn-ink: #ffe3a1; --bad: #441a1a;
  --bad-ink: #ffc9c9; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1rem; background: var(--ground); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 27rem; margin: 6vh auto 0; padding: clamp(1rem, 6vw, 1.75rem); background: var(--paper);
  border: 1px solid var(--line); border-radius: 0.75rem; overflow-wrap: anywhere; }
h1 { margin: 0 0 0.75rem; font-size: 1.35rem; line-height: 1.3; }
h2 { margin: 1.25rem 0 0.25rem; font-size: 1rem; }
p { margin: 0.5rem 0; }
ul { margin: 0.25rem 0; padding-left: 1.25rem; }
dl { margin: 1rem 0; padding: 0.75rem 0; border: solid var(--line); border-width: 1px 0; }
dt { color: var(--quiet); font-size: 0.875rem; }
dd { margin: 0 0 0.5rem; font-weight: 600; }
code { font-size: 0.875rem; }
label { display: block; margin: 1rem 0 0.25rem; font-weight: 600; }
input { width: 100%; padding: 0.6rem 0.7rem; font: inherit; color: inherit; background: var(--paper);
  border: 1px solid var(--quiet); border-radius: 0.4rem; }
.actions { display: flex; flex-wrap: wrap; gap: 0.75rem; margin-top: 1.25rem; }
button { flex: 1 1 8rem; padding: 0.65rem 1rem; font: inherit; font-weight: 600; border-radius: 0.4rem; cursor: pointer;
  border: 1px solid var(--act); background: var(--act); color: var(--act-ink); }
button.second { background: transparent; color: var(--act); }
input:focus-visible, button:focus-visible, a:focus-visible { outline: 3px solid var(--act); outline-offset: 2px; }
a { color: var(--act); }
.note { padding: 0.7rem 0.9rem; border-radius: 0.4rem; background: var(--warn); color: var(--warn-ink); }
.error { padding: 0.7rem 0.9rem; border-radius: 0.4rem; background: var(--bad); color: var(--bad-ink); }
.quiet { color: var(--quiet); font-size: 0.875rem; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

NAMELESS = "An app without a name"


@dataclass(frozen=True, slots=True)
class LoginForm:
    """What the login page shows. `action` is where the form goes, `error` a sentence about the last attempt.

    `onward` is where somebody who is signed in goes on without signing in anew.
    """

    action: str
    csrf: str
    app: str | None
    redirect: Redirect
    onward: str
    signed_in_as: str | None = None
    name: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ConsentForm:
    """What the consent page shows. `scopes` pairs a scope with its meaning; `switch` is the way to log in anew."""

    action: str
    csrf: str
    transaction: str
    app: str | None
    client_id: str
    redirect: Redirect
    user: str
    resource: str
    scopes: Sequence[tuple[str, str]]
    switch: str


def login_page(deployment: Deployment, form: LoginForm, *, status: int = 200) -> Response:
    """The page where a person signs in."""
    error = f'<p class="error" id="error" role="alert">{escape(form.error)}</p>' if form.error else ""
    described = ' aria-describedby="error" aria-invalid="true"' if form.error else ""
    already = (
        f"<p>You are signed in as <strong>{escape(form.signed_in_as)}</strong>. "
        f'<a href="{escape(form.onward)}">Go on as {escape(form.signed_in_as)}</a></p>'
        if form.signed_in_as
        else ""
    )
    body = f"""<h1>Sign in to {escape(deployment.name)}</h1>
<p><strong>{escape(form.app or NAMELESS)}</strong> (<code>{escape(form.redirect.display)}</code>) asks for access in
your name. You decide about it on the next page.</p>
{already}{error}
<form method="post" action="{escape(form.action)}">
<input type="hidden" name="csrf" value="{escape(form.csrf)}">
<label for="username">Name</label>
<input id="username" name="username" value="{escape(form.name)}" autocomplete="username" autocapitalize="none"
 spellcheck="false" required maxlength="256"{described}{"" if form.name else " autofocus"}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required
 maxlength="1024"{described}{" autofocus" if form.name else ""}>
<div class="actions"><button type="submit">Sign in</button></div>
</form>"""
    return _page(status, f"Sign in to {deployment.name}", body, form_action=form.redirect)


def consent_page(deployment: Deployment, form: ConsentForm) -> Response:
    """The page where a person approves or denies what a client asks for."""
    app = escape(form.app or NAMELESS)
    scopes = "".join(f"<li>{escape(text)} <code>{escape(scope)}</code></li>" for scope, text in form.scopes)
    asked = (
        f"<h2>It will be able to</h2><ul>{scopes}</ul>" if scopes else "<p>It asks for no particular permission.</p>"
    )
    body = f"""<h1>Allow {app} to act for you?</h1>
<p>It asks for access to <strong>{escape(deployment.name)}</strong> in your name.</p>
<dl>
<dt>You are signed in as</dt><dd>{escape(form.user)}</dd>
<dt>The answer goes to</dt><dd>{escape(form.redirect.display)}</dd>
<dt>It will reach</dt><dd>{escape(form.resource)}</dd>
</dl>
{asked}
{_warning(form.redirect)}
<p class="quiet">The app gave its name itself and nobody checked it (its id is <code>{escape(form.client_id)}</code>).
Deny if you did not just ask for this.</p>
<form method="post" action="{escape(form.action)}">
<input type="hidden" name="transaction" value="{escape(form.transaction)}">
<input type="hidden" name="csrf" value="{escape(form.csrf)}">
<div class="actions">
<button type="submit" name="decision" value="approve">Approve</button>
<button type="submit" name="decision" value="deny" class="second">Deny</button>
</div>
</form>
<p class="quiet">Not you? <a href="{escape(form.switch)}">Use another account</a></p>"""
    return _page(200, f"Allow {form.app or NAMELESS}?", body, form_action=form.redirect)


def _warning(redirect: Redirect) -> str:
    if redirect.is_loopback:
        return (
            '<p class="note">The answer goes to a program on this device. Any program here could claim to be '
            "this app: approve only if you started it yourself just now.</p>"
        )
    if redirect.host is None:
        return (
            '<p class="note">The answer goes to whichever app on this device opens '
            f"<code>{escape(redirect.display)}</code> links.</p>"
        )
    return ""


def error_page(status: int, title: str, message: str) -> Response:
    """A page that says what went wrong; it leads nowhere."""
    body = f'<h1>{escape(title)}</h1>\n<p role="alert">{escape(message)}</p>'
    return _page(status, title, body)


def _page(status: int, title: str, body: str, *, form_action: Redirect | None = None) -> Response:
    html = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
    # A browser also judges the redirect that answers a form by form-action, so the client's redirect URI is named.
    target = "'none'" if form_action is None else f"'self' {form_action.form_action_source}"
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {target}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    headers = (
        (b"content-type", b"text/html; charset=utf-8"),
        NO_STORE,
        (b"content-security-policy", policy.encode("ascii")),
    )
    return Response(status, html.encode(), headers)
