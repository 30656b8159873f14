"""A person at a browser, scripted: follows an authorization URL, signs in, decides, and reads the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx

STEPS = 10


class LoginFailed(RuntimeError):
    """The pages did not lead to a redirect to the client."""


@dataclass
class Form:
    """One HTML form: where it goes, its fields with their values, and its named buttons."""

    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(found.get("action", "")))
        elif self.forms and "name" in found and tag in {"input", "button"}:
            form, name, kind = self.forms[-1], found["name"], found.get("type", "text").lower()
            if tag == "button" or kind == "submit":
                form.buttons.append((name, found.get("value", "")))
            else:
                form.fields[name] = found.get("value", "")
                form.kinds[name] = kind


def forms_of(html: str) -> list[Form]:
    """The forms of a page, in order."""
    parser = _Forms()
    parser.feed(html)
    return parser.forms


def authorize(
    url: str, redirect_uri: str, user: str, password: str, *, approve: bool = True, browser: httpx.Client | None = None
) -> dict[str, str]:
    """The parameters of the redirect that ends the flow started by an authorization URL.

    Raises:
        LoginFailed: no redirect to `redirect_uri` came within a few pages.
    """
    with browser or httpx.Client(follow_redirects=False, timeout=10) as client:
        response = client.get(url)
        for _ in range(STEPS):
            location = response.headers.get("location")
            if location is not None:
                target = urljoin(str(response.url), location)
                if target.startswith(redirect_uri):
                    return dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
                response = client.get(target)
                continue
            forms = forms_of(response.text)
            if not forms:
                break
            filled = _filled(forms[0], user, password, approve=approve)
            response = client.post(urljoin(str(response.url), forms[0].action), data=filled)
    raise LoginFailed(f"the pages ended with status {response.status_code}")


def _filled(form: Form, user: str, password: str, *, approve: bool) -> dict[str, str]:
    values = dict(form.fields)
    if "password" in form.kinds.values():
        for name, kind in form.kinds.items():
            if kind == "password":
                values[name] = password
            elif kind in {"text", "email"}:
                values[name] = user
        return values
    wanted = ("approve", "allow", "yes", "accept") if approve else ("deny", "cancel", "no", "reject")
    for name, value in form.buttons:
        if name.lower() in wanted or value.lower() in wanted:
            values[name] = value
            break
    return values
