"""Reading and filling in the forms of a login page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

from mcp_guard.secret import Secret


@dataclass
class Form(HTMLParser):
    """The first form of a page that posts: its action, its fields, and its password and name inputs."""

    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    password: str | None = None
    approve: tuple[str, str] | None = None
    found: bool = False
    inside: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def on(cls, page: str) -> "Form | None":
        """The form on `page`, None when there is none."""
        form = cls()
        form.feed(page)
        return form if form.found else None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and not self.found and values.get("method", "").lower() == "post":
            self.found = self.inside = True
            self.action = values.get("action", "")
        elif self.inside and tag in ("input", "button"):
            self._take(tag, values)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.inside = False

    def _take(self, tag: str, values: Mapping[str, str]) -> None:
        name, kind = values.get("name", ""), values.get("type", "submit" if tag == "button" else "text").lower()
        if not name:
            return
        if kind == "password":
            self.password = name
        elif kind in ("text", "email"):
            self.text = name
        elif kind == "submit":
            # The first submit button approves; a page for people puts the expected action first or names it so.
            value = values.get("value", "")
            if self.approve is None or value.lower() in ("approve", "allow", "yes"):
                self.approve = (name, value)
        else:
            self.fields[name] = values.get("value", "")

    def filled(self, user: str, password: Secret) -> dict[str, str]:
        """The fields to post."""
        data = dict(self.fields)
        if self.text is not None:
            data[self.text] = user
        if self.password is not None:
            data[self.password] = password.reveal()
        if self.approve is not None:
            data[self.approve[0]] = self.approve[1]
        return data
