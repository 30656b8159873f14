"""Reads the forms of a login or consent page, and fills them as a person would."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

_USER_NAMES = re.compile(r"user|login|email|account|name|identifier", re.IGNORECASE)
_APPROVES = re.compile(r"allow|approve|accept|authori[sz]e|consent|grant|continue|yes|agree|confirm", re.IGNORECASE)
_DENIES = re.compile(r"deny|denied|cancel|reject|refuse|decline|no\b|back", re.IGNORECASE)
_TEXTUAL = {"text", "email", "tel", ""}


@dataclass
class Field:
    """One control of a form. `kind` is its lower-case type; `options` are those of a select."""

    kind: str
    name: str
    value: str
    label: str = ""
    checked: bool = False
    options: list[str] = field(default_factory=list)


@dataclass
class Form:
    """A form: where and how it is sent, and its controls in order."""

    action: str
    method: str
    fields: list[Field] = field(default_factory=list)

    @property
    def asks_for_password(self) -> bool:
        return any(control.kind == "password" for control in self.fields)

    def login(self, user: str, password: str) -> list[tuple[str, str]]:
        """The form filled with a user name and a password, everything else as it came."""
        textual = [control for control in self.fields if control.kind in _TEXTUAL and control.name]
        name = next((c.name for c in textual if _USER_NAMES.search(c.name)), textual[0].name if textual else "")
        filled: list[tuple[str, str]] = []
        for control in self._submitted():
            if control.kind == "password":
                filled.append((control.name, password))
            else:
                filled.append(
                    (control.name, user if control.name == name and control.kind in _TEXTUAL else control.value)
                )
        return filled + self._pressed(self._submit_buttons()[:1])

    def consent(self) -> list[tuple[str, str]] | None:
        """The form with everything ticked and the approving button pressed; None when no button approves."""
        buttons = self._submit_buttons()
        approving = [b for b in buttons if _says(b, _APPROVES) and not _says(b, _DENIES)]
        if not approving:
            approving = [b for b in buttons if not _says(b, _DENIES)] if len(buttons) == 1 else []
        if not approving and buttons:
            return None
        return [(control.name, control.value) for control in self._submitted()] + self._pressed(approving[:1])

    def _submitted(self) -> list[Field]:
        quiet = {"submit", "button", "image", "reset", "file"}
        radios: set[str] = set()
        kept = []
        for control in self.fields:
            if not control.name or control.kind in quiet:
                continue
            if control.kind == "radio":
                rivals = [c for c in self.fields if c.kind == "radio" and c.name == control.name]
                if control.name in radios or control is not _chosen(rivals):
                    continue
                radios.add(control.name)
            kept.append(control)
        return kept

    def _submit_buttons(self) -> list[Field]:
        return [control for control in self.fields if control.kind in {"submit", "image"}]

    @staticmethod
    def _pressed(buttons: list[Field]) -> list[tuple[str, str]]:
        return [(button.name, button.value) for button in buttons if button.name]


def read_forms(html: str, base_url: str) -> list[Form]:
    """The forms of a page, with absolute actions. Unclosed forms end with the page."""
    reader = _FormReader(base_url)
    reader.feed(html)
    reader.close()
    return reader.forms


class _FormReader(HTMLParser):
    def __init__(self, base_url: str) -> None:
        super().__init__(convert_charrefs=True)
        self.forms: list[Form] = []
        self._base_url = base_url
        self._form: Form | None = None
        self._button: Field | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            action = urljoin(self._base_url, values.get("action", ""))
            self._form = Form(action, values.get("method", "get").lower())
            self.forms.append(self._form)
        if self._form is None or "disabled" in values:
            return
        name, value = values.get("name", ""), values.get("value", "")
        if tag == "input":
            kind = values.get("type", "text").lower()
            checkable = kind in {"checkbox", "radio"}
            value = value if "value" in values or not checkable else "on"
            self._form.fields.append(Field(kind, name, value, value, checked="checked" in values))
        elif tag == "button":
            self._button = Field(values.get("type", "submit").lower() or "submit", name, value)
            self._form.fields.append(self._button)
        elif tag == "select":
            self._form.fields.append(Field("select", name, ""))
        elif tag == "option" and self._form.fields and self._form.fields[-1].kind == "select":
            select = self._form.fields[-1]
            select.options.append(value)
            if "selected" in values or len(select.options) == 1:
                select.value = value
        elif tag == "textarea":
            self._form.fields.append(Field("textarea", name, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        if tag == "button":
            self._button = None

    def handle_data(self, data: str) -> None:
        if self._button is not None:
            self._button.label += data


def _says(control: Field, words: re.Pattern[str]) -> bool:
    return words.search(f"{control.label} {control.name} {control.value}") is not None


def _chosen(radios: list[Field]) -> Field:
    approving = [r for r in radios if _says(r, _APPROVES) and not _says(r, _DENIES)]
    checked = [r for r in radios if r.checked]
    return (approving or checked or radios)[0]
