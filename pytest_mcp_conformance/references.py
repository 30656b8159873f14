"""From the short name of a source, such as `RFC 9728 §3.1`, to its web address. Nothing is looked up."""

from __future__ import annotations

import re
from collections.abc import Callable

_RFC = "https://www.rfc-editor.org/rfc/rfc{}"
_DRAFT = "https://datatracker.ietf.org/doc/html/{}"
_MCP = "https://modelcontextprotocol.io"
_SEP = "https://github.com/modelcontextprotocol/modelcontextprotocol/issues/{}"
_ADVISORY = "https://github.com/advisories/{}"
_OWASP_API = "https://owasp.org/API-Security/editions/{}/en/0xa{}-{}/"
_CHEAT_SHEET = "https://cheatsheetseries.owasp.org/cheatsheets/{}_Cheat_Sheet.html"
_OPENID = "https://openid.net/specs/openid-connect-{}-{}.html"

_DRAFTS = {"OAuth 2.1": "draft-ietf-oauth-v2-1", "CIMD": "draft-ietf-oauth-client-id-metadata-document"}
_SPELLED_OUT = {
    "CSRF Prevention": "Cross-Site Request Forgery Prevention",
    "HSTS": "HTTP Strict Transport Security",
    "SSRF Prevention": "Server Side Request Forgery Prevention",
    "XSS Prevention": "Cross Site Scripting Prevention",
}

# Where a page of 2026-07-28 is found in the revisions before it; None where they have no such page.
_SPLIT = "2026-07-28"
_BEFORE_THE_SPLIT = (
    ("basic/authorization/", "basic/authorization"),
    ("basic/transports/", "basic/transports"),
    ("basic/patterns/cancellation", "basic/utilities/cancellation"),
    ("basic/patterns/progress", "basic/utilities/progress"),
    ("basic/patterns", None),
    ("basic/versioning", None),
    ("server/discover", None),
    ("server/utilities/caching", None),
)
_ENDED_AT_THE_SPLIT = ("basic/lifecycle", "basic/transports", "basic/utilities/tasks")
_FIRST = {
    "basic/authorization": "2025-03-26",
    "changelog": "2025-03-26",
    "client/elicitation": "2025-06-18",
    "basic/utilities/tasks": "2025-11-25",
}


def source_url(source: str, revision: str | None = None) -> str | None:
    """The web address of a source as the catalogue writes it; None where no rule gives one.

    With `revision`, a page of the MCP specification is given in that revision when it exists there under the same or
    its older name, else in the revision the source names.
    """
    for pattern, address in _RULES:
        found = pattern.match(source)
        if found:
            return address(found, revision)
    return None


def _section(base: str, section: str | None) -> str:
    return f"{base}#section-{section}" if section else base


def _rfc(found: re.Match[str], revision: str | None) -> str:
    return _section(_RFC.format(found["number"]), found["section"])


def _draft(found: re.Match[str], revision: str | None) -> str:
    return _section(_DRAFT.format(found["name"]), found["section"])


def _short_draft(found: re.Match[str], revision: str | None) -> str:
    return _section(_DRAFT.format(f"{_DRAFTS[found['name']]}-{found['version']}"), found["section"])


def _mcp_page(found: re.Match[str], revision: str | None) -> str:
    page = found["page"].removesuffix("/index")
    moved = page_in(page, revision) if revision and revision != found["revision"] else None
    if moved is None:
        return f"{_MCP}/specification/{found['revision']}/{page}"
    return f"{_MCP}/specification/{revision}/{moved}"


def page_in(page: str, revision: str) -> str | None:
    """The name of a specification page in `revision`; None where that revision has no such page."""
    if revision >= _SPLIT:
        return None if page in _ENDED_AT_THE_SPLIT else page
    for start, older in _BEFORE_THE_SPLIT:
        if page.startswith(start):
            if older is None:
                return None
            page = older
            break
    return page if revision >= _FIRST.get(page, "") else None


def _best_practices(found: re.Match[str], revision: str | None) -> str:
    return f"{_MCP}/docs/{found['revision']}/tutorials/security/security_best_practices"


def _proposal(found: re.Match[str], revision: str | None) -> str:
    return _SEP.format(found["number"])


def _advisory(found: re.Match[str], revision: str | None) -> str:
    return _ADVISORY.format(found["id"])


def _owasp_api(found: re.Match[str], revision: str | None) -> str:
    return _OWASP_API.format(found["year"], found["number"], found["name"].lower().replace(" ", "-"))


def _cheat_sheet(found: re.Match[str], revision: str | None) -> str:
    return _CHEAT_SHEET.format(_SPELLED_OUT.get(found["name"], found["name"]).replace(" ", "_"))


def _openid(found: re.Match[str], revision: str | None) -> str:
    return _OPENID.format(found["name"].lower(), found["version"].replace(".", "_"))


_SECTION = r"(?: §(?P<section>\d+(?:\.\d+)*))?"
_DATE = r"(?P<revision>\d{4}-\d\d-\d\d)"
_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str | None], str]], ...] = (
    (re.compile(rf"RFC (?P<number>\d+){_SECTION}"), _rfc),
    (re.compile(rf"MCP SBP {_DATE}"), _best_practices),
    (re.compile(rf"MCP {_DATE} (?P<page>[\w/-]+)"), _mcp_page),
    (re.compile(rf"(?P<name>OAuth 2\.1|CIMD) draft-(?P<version>\d\d){_SECTION}"), _short_draft),
    (re.compile(rf"(?P<name>draft-[a-z0-9-]+){_SECTION}"), _draft),
    (re.compile(r"SEP-(?P<number>\d+)"), _proposal),
    (re.compile(r"(?P<id>GHSA(?:-[a-z0-9]{4}){3})"), _advisory),
    (re.compile(r"OWASP API(?P<number>\d+):(?P<year>\d{4}) (?P<name>[A-Za-z ]+)"), _owasp_api),
    (re.compile(r"OWASP (?P<name>[\w -]+) Cheat Sheet"), _cheat_sheet),
    (re.compile(r"OpenID Connect (?P<name>\w+) (?P<version>\d\.\d)"), _openid),
)
