"""The requirement data is whole and well-formed, and a mistake in it is reported where it was made."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from importlib.resources import files

import pytest

from pytest_mcp_conformance import catalogue
from pytest_mcp_conformance.catalogue import (
    AREAS,
    REVISIONS,
    CatalogueError,
    Condition,
    Level,
    Needs,
    Requirement,
    Role,
    Severity,
    load,
    read,
    source_url,
)

# Ids are stable: an area grows at its end and none is renumbered.
COUNTS = {
    "PRM": 19,
    "AUTHZ": 25,
    "AUD": 14,
    "TOK": 24,
    "PKCE": 9,
    "ASM": 16,
    "RED": 14,
    "REG": 18,
    "REF": 7,
    "CLI": 9,
    "EXT": 4,
    "DPOP": 15,
    "MTLS": 4,
    "SESS": 15,
    "STATE": 24,
    "HTTP": 25,
    "DISC": 4,
    "ORIG": 6,
    "TLS": 5,
    "HSTS": 3,
    "RATE": 8,
    "INP": 14,
    "CSRF": 6,
}

GOOD = """
[[requirement]]
id = "PRM-001"
title = "Metadata is found"
level = "MUST"
severity = "high"
role = "resource-server"
revisions = ["2025-06-18", "2025-11-25"]
sources = ["RFC 9728 §3"]
needs = "none"
applies_when = "authorization"
statement = "The server publishes it."
remedy = "Publish it."
property = true
input_space = "paths"
"""


def each(judge: Callable[[Requirement], bool]) -> list[str]:
    """The ids of the requirements of which `judge` does not hold."""
    return [requirement.id for requirement in load().values() if not judge(requirement)]


# ------------------------------------------------------------------------------------------------------------ the data


def test_every_area_holds_its_ids_from_one_upwards_without_a_gap() -> None:
    assert list(load()) == [f"{area}-{number:03}" for area, count in COUNTS.items() for number in range(1, count + 1)]


def test_there_are_288_requirements() -> None:
    assert len(load()) == sum(COUNTS.values()) == 288


def test_every_requirement_is_filed_under_its_own_id() -> None:
    assert [key for key, requirement in load().items() if requirement.id != key] == []


def test_no_file_is_left_out() -> None:
    folder = files("pytest_mcp_conformance") / "requirements"
    found = {entry.name for entry in folder.iterdir() if entry.name.endswith(".toml")}
    assert found == {f"{area.lower()}.toml" for area in AREAS}


@pytest.mark.parametrize("field", ["title", "statement"])
def test_no_two_requirements_say_the_same(field: str) -> None:
    counts = Counter(getattr(requirement, field).casefold() for requirement in load().values())
    assert [text for text, count in counts.items() if count > 1] == []


def test_every_requirement_says_what_holds_and_what_to_change() -> None:
    assert each(lambda it: 15 <= len(it.title) <= 110 and not it.title.endswith(".")) == []
    assert each(lambda it: len(it.statement) >= 60 and it.statement.endswith(".")) == []
    assert each(lambda it: len(it.remedy) >= 20 and it.remedy.endswith(".")) == []


def test_every_word_comes_from_its_closed_list() -> None:
    kinds = {"level": Level, "severity": Severity, "role": Role, "needs": Needs, "applies_when": Condition}
    found = {name: {type(getattr(it, name)) for it in load().values()} for name in kinds}
    assert found == {name: {kind} for name, kind in kinds.items()}


def test_every_condition_is_used_and_explained() -> None:
    assert {requirement.applies_when for requirement in load().values()} == set(Condition)
    assert [condition for condition in Condition if not re.match("(for|where) ", condition.where)] == []
    assert len({condition.where for condition in Condition}) == len(Condition)


def test_every_requirement_holds_in_known_revisions_oldest_first() -> None:
    assert each(lambda it: bool(it.revisions) and set(it.revisions) <= set(REVISIONS)) == []
    assert each(lambda it: list(it.revisions) == sorted(it.revisions)) == []


def test_an_input_space_goes_with_each_property_and_with_nothing_else() -> None:
    assert each(lambda it: bool(it.input_space) == it.property_based) == []
    assert sum(it.property_based for it in load().values()) == 145


def test_a_requirement_of_two_registrations_says_so_beyond_its_class() -> None:
    assert load()["PKCE-008"].needs is Needs.CLIENT_REGISTRATION
    assert "two clients" in load()["PKCE-008"].fixtures


@pytest.mark.parametrize(("condition", "area"), [(Condition.DPOP, "DPOP"), (Condition.CIMD, "REG")])
def test_a_narrow_condition_stays_in_its_area(condition: Condition, area: str) -> None:
    assert {it.area for it in load().values() if it.applies_when is condition} == {area}


def test_every_reference_to_another_requirement_leads_somewhere() -> None:
    names = re.compile(rf"\b(?:{'|'.join(AREAS)})-\d{{3}}\b")
    mentioned = {name for it in load().values() for name in names.findall(f"{it.statement} {it.remedy} {it.note}")}
    assert mentioned
    assert mentioned - load().keys() == set()


def test_every_requirement_but_one_leads_to_a_source_on_the_web() -> None:
    assert each(lambda it: bool(it.links())) == ["EXT-002"]  # it stands in an extension whose text has no fixed address


def test_the_catalogue_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        load()["PRM-001"].title = "another"  # type: ignore[misc]
    with pytest.raises(TypeError):
        load()["PRM-001"] = load()["PRM-002"]  # type: ignore[index]


def test_reading_the_catalogue_needs_the_standard_library_alone() -> None:
    program = (
        "import sys; from pytest_mcp_conformance.catalogue import load; load();"
        "print(sorted({'hypothesis', 'httpx', 'cryptography', 'mcp_guard', 'yaml'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


# ------------------------------------------------------------------------------------------------------------ mistakes


def test_a_good_entry_is_read_member_by_member() -> None:
    assert read(GOOD, "prm.toml") == (
        Requirement(
            id="PRM-001",
            title="Metadata is found",
            level=Level.MUST,
            severity=Severity.HIGH,
            role=Role.RESOURCE_SERVER,
            revisions=("2025-06-18", "2025-11-25"),
            sources=("RFC 9728 §3",),
            needs=Needs.NONE,
            applies_when=Condition.AUTHORIZATION,
            statement="The server publishes it.",
            remedy="Publish it.",
            property_based=True,
            input_space="paths",
        ),
    )


def test_all_stands_for_every_revision() -> None:
    (requirement,) = read(GOOD.replace('["2025-06-18", "2025-11-25"]', '["all"]'), "prm.toml")
    assert requirement.revisions == REVISIONS


@pytest.mark.parametrize(
    ("before", "after", "field", "problem"),
    [
        ('level = "MUST"', 'level = "must"', "level", "must be one of MUST, SHOULD, MAY, best-practice, not 'must'"),
        ('level = "MUST"', "level = 1", "level", "must be one of"),
        ('level = "MUST"', "", "level", "missing"),
        ('severity = "high"', 'severity = "grave"', "severity", "must be one of critical, high, medium, low"),
        ('role = "resource-server"', 'role = "client"', "role", "must be one of resource-server, authorization-server"),
        ('needs = "none"', 'needs = "one token"', "needs", "must be one of none, token"),
        ('"authorization"', '"sometimes"', "applies_when", "must be one of always, authorization"),
        ('"2025-11-25"', '"2025-11-26"', "revisions", "there is no revision '2025-11-26'; known are 2024-11-05"),
        ('"2025-11-25"', '"all"', "revisions", "there is no revision 'all'"),
        ('"2025-11-25"', '"2025-06-18"', "revisions", "names something twice"),
        ('["2025-06-18", "2025-11-25"]', "[]", "revisions", "must be a list with at least one text"),
        ('["RFC 9728 §3"]', '"RFC 9728 §3"', "sources", "must be a list with at least one text"),
        ('["RFC 9728 §3"]', "[9728]", "sources", "must be text, not 9728"),
        ('"Metadata is found"', '"  "', "title", "must be text"),
        ('"Metadata is found"', '"Metadata\\nis found"', "title", "must be one line without stray blanks"),
        ('"Metadata is found"', '" Metadata is found"', "title", "must be one line without stray blanks"),
        ('remedy = "Publish it."', "", "remedy", "missing"),
        ("property = true", 'property = "yes"', "property", "must be true or false, not 'yes'"),
        ("property = true", "property = false", "input_space", "must be given exactly when property is true"),
        ('input_space = "paths"', "", "input_space", "must be given exactly when property is true"),
        ('needs = "none"', 'needs = "none"\nneed = "none"', "need", "unknown member"),
        ('needs = "none"', 'needs = "none"\nproperty_based = true', "property_based", "unknown member"),
    ],
)
def test_a_mistake_is_reported_with_file_id_and_field(before: str, after: str, field: str, problem: str) -> None:
    assert before in GOOD
    with pytest.raises(CatalogueError) as caught:
        read(GOOD.replace(before, after), "prm.toml")
    assert str(caught.value).startswith(f"prm.toml: PRM-001: {field}: {problem}")
    assert (caught.value.file, caught.value.requirement, caught.value.field) == ("prm.toml", "PRM-001", field)


@pytest.mark.parametrize("id", ["PRM-1", "prm-001", "PRM-0001", "XYZ-001", "PRM001", ""])
def test_an_id_that_is_none_is_reported(id: str) -> None:
    with pytest.raises(CatalogueError, match=r"^prm\.toml: .*id: must be "):
        read(GOOD.replace("PRM-001", id), "prm.toml")


def test_an_id_given_twice_is_reported() -> None:
    with pytest.raises(CatalogueError, match=r"^prm\.toml: PRM-001: id: occurs twice$"):
        read(GOOD + GOOD, "prm.toml")


def test_an_entry_in_the_file_of_another_area_is_reported() -> None:
    with pytest.raises(CatalogueError, match=r"^aud\.toml: PRM-001: id: belongs into the file of its area$"):
        read(GOOD, "aud.toml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id = ", "prm.toml: no valid TOML: "),
        ("title = 'x'", "prm.toml: unknown member, only [[requirement]] may stand here: title"),
        ("requirement = 'x'", "prm.toml: requirement: must be an array of tables"),
        ("requirement = ['x']", "prm.toml: requirement: must be an array of tables"),
    ],
)
def test_a_file_that_holds_something_else_is_reported(text: str, problem: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        read(text, "prm.toml")
    assert str(caught.value).startswith(problem)


def test_the_missing_or_empty_file_of_an_area_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "AREAS", {**AREAS, "NEW": "Something new"})
    with pytest.raises(CatalogueError, match=r"^new\.toml: there is no such file$"):
        load.__wrapped__()
    monkeypatch.setattr(catalogue, "read", lambda text, file: ())
    with pytest.raises(CatalogueError, match=r"^prm\.toml: holds no requirement$"):
        load.__wrapped__()


# ----------------------------------------------------------------------------------------------------------- addresses

SPECIFICATION = "https://modelcontextprotocol.io/specification"


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("RFC 9728 §3.1", "https://www.rfc-editor.org/rfc/rfc9728#section-3.1"),
        ("RFC 9651", "https://www.rfc-editor.org/rfc/rfc9651"),
        ("MCP 2025-11-25 basic/transports §Security Warning", f"{SPECIFICATION}/2025-11-25/basic/transports"),
        ("MCP 2026-07-28 basic/index §_meta", f"{SPECIFICATION}/2026-07-28/basic"),
        ("MCP 2025-06-18 changelog (item 1)", f"{SPECIFICATION}/2025-06-18/changelog"),
        (
            "MCP SBP 2025-11-25 §Session Hijacking",
            "https://modelcontextprotocol.io/docs/2025-11-25/tutorials/security/security_best_practices",
        ),
        ("OAuth 2.1 draft-13 §4.1.1", "https://datatracker.ietf.org/doc/html/draft-ietf-oauth-v2-1-13#section-4.1.1"),
        (
            "CIMD draft-01 §6.5",
            "https://datatracker.ietf.org/doc/html/draft-ietf-oauth-client-id-metadata-document-01#section-6.5",
        ),
        (
            "draft-ietf-httpapi-ratelimit-headers-10 §RateLimit Field",
            "https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-10",
        ),
        ("SEP-985", "https://github.com/modelcontextprotocol/modelcontextprotocol/issues/985"),
        ("GHSA-w48q-cv73-mx4w", "https://github.com/advisories/GHSA-w48q-cv73-mx4w"),
        (
            "OWASP API4:2023 Unrestricted Resource Consumption",
            "https://owasp.org/API-Security/editions/2023/en/0xa4-unrestricted-resource-consumption/",
        ),
        (
            "OWASP Session Management Cheat Sheet §Session Fixation",
            "https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html",
        ),
        (
            "OWASP CSRF Prevention Cheat Sheet",
            "https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html",
        ),
        ("OpenID Connect Discovery 1.0 §4.3", "https://openid.net/specs/openid-connect-discovery-1_0.html"),
        ("JSON-RPC 2.0 §5.1", None),
        ("WHATWG Fetch §CORS protocol", None),
        ("OWASP WSTG-ATHZ-01", None),
        ("ext-auth dpop-extension (draft, SEP-1932) §Algorithm Security", None),
    ],
)
def test_a_source_leads_to_its_address(source: str, address: str | None) -> None:
    assert source_url(source) == address


@pytest.mark.parametrize(
    ("source", "revision", "page"),
    [
        ("MCP 2025-11-25 basic/transports", "2025-06-18", "2025-06-18/basic/transports"),
        ("MCP 2026-07-28 basic/authorization/client-registration", "2025-11-25", "2025-11-25/basic/authorization"),
        ("MCP 2026-07-28 basic/transports/streamable-http", "2024-11-05", "2024-11-05/basic/transports"),
        (
            "MCP 2026-07-28 basic/patterns/cancellation §Timeouts",
            "2025-03-26",
            "2025-03-26/basic/utilities/cancellation",
        ),
        ("MCP 2026-07-28 server/tools §Capabilities", "2024-11-05", "2024-11-05/server/tools"),
        ("MCP 2025-03-26 basic/authorization", "2026-07-28", "2026-07-28/basic/authorization"),
        ("MCP 2025-03-26 basic/authorization", "2025-03-26", "2025-03-26/basic/authorization"),
        # No such page there: the revision that the source names stays.
        ("MCP 2025-11-25 basic/transports", "2026-07-28", "2025-11-25/basic/transports"),
        ("MCP 2025-11-25 basic/utilities/tasks", "2025-06-18", "2025-11-25/basic/utilities/tasks"),
        ("MCP 2026-07-28 basic/authorization", "2024-11-05", "2026-07-28/basic/authorization"),
        ("MCP 2026-07-28 basic/patterns/mrtr", "2025-11-25", "2026-07-28/basic/patterns/mrtr"),
        ("MCP 2026-07-28 server/discover", "2025-11-25", "2026-07-28/server/discover"),
        ("MCP 2026-07-28 client/elicitation", "2025-03-26", "2026-07-28/client/elicitation"),
    ],
)
def test_a_page_is_given_in_the_revision_asked_for_where_it_exists(source: str, revision: str, page: str) -> None:
    assert source_url(source, revision) == f"{SPECIFICATION}/{page}"


def test_a_revision_changes_nothing_but_pages_of_the_specification() -> None:
    assert source_url("RFC 6750 §3", "2025-06-18") == source_url("RFC 6750 §3")


def test_links_leave_out_sources_without_an_address() -> None:
    assert load()["EXT-002"].links() == {}
    authorization = f"{SPECIFICATION}/2025-06-18/basic/authorization"
    assert load()["PRM-003"].links("2025-06-18") == {
        "MCP 2025-06-18 basic/authorization §Authorization Server Location": authorization,
        "RFC 9728 §5.1": "https://www.rfc-editor.org/rfc/rfc9728#section-5.1",
    }
