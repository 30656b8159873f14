"""The tree keeps the shape and the manners of docs/explanation/the-house.md."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.tree import PACKAGES, ROOT, files, shown, sources

TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "LICENSE",
    "Makefile",
    "README.md",
    "conformance_suites",
    "constraints.txt",
    "docs",
    "mcp_guard",
    "pyproject.toml",
    "pytest_mcp_conformance",
    "tests",
}
LONGEST_MODULE_LINES = {"mcp_guard": 300, "pytest_mcp_conformance": 300, "conformance_suites": 600}
"""A suite holds a whole area of requirements, each a short function of its own."""
LONGEST_FUNCTION_LINES = 40
"""Of the body; what a docstring says is not counted."""
GENERIC_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py"}

# Spelled in halves so that this file does not find itself.
EVERYWHERE = ["FIX" + "ME", "TO" + "DO", "XX" + "X:", "pragma: " + "no cover", "NotImplemented" + "Error"]
IN_PACKAGES = ["time." + "sleep(", "print" + "(exc"]
UNEXPLAINED_IGNORE = re.compile(r"# type: " + r"ignore(?!\[)")
REGISTRIES = re.compile(
    "|".join([r"pypi\." + "org", r"python" + r"hosted\.org", r"npm" + r"js\.(org|com)", r"(?<!emit-)index" + "-url"])
)
BINARY = {".png", ".gz", ".zip", ".der", ".p12"}

# Names of imports that differ from the distribution that brings them.
DISTRIBUTIONS = {
    "argon2": "argon2-cffi",
    "jwt": "pyjwt",
    "psycopg": "psycopg",
    "psycopg_pool": "psycopg",
    "python_multipart": "python-multipart",
    "pydantic_settings": "pydantic-settings",
    "sse_starlette": "sse-starlette",
    "opentelemetry": "opentelemetry-api",
    "yaml": "pyyaml",
    "_pytest": "pytest",
}
# Brought by a declared distribution that the project uses together with them.
COMPANIONS = {
    "pydantic": "pydantic-settings",
    "httpx2": "mcp",
    "mcp_types": "mcp",
    "h2": "hypercorn",
    "wsproto": "hypercorn",
}


def text_files() -> list[Path]:
    return [path for path in files() if path.suffix not in BINARY and path.name != "constraints.txt"]


def test_the_top_level_holds_only_what_the_brief_fixes() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in files()} <= TOP_LEVEL


@pytest.mark.parametrize("word", EVERYWHERE)
def test_no_file_holds_a_note_to_oneself_or_an_unfinished_end(word: str) -> None:
    assert [shown(path) for path in text_files() if word in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("word", IN_PACKAGES)
def test_no_package_blocks_the_loop_or_prints_an_exception(word: str) -> None:
    found = [shown(path) for path in sources("mcp_guard", "pytest_mcp_conformance") if word in path.read_text("utf-8")]
    assert found == []


def test_every_ignored_type_error_names_its_code() -> None:
    found = [shown(path) for path in sources(*PACKAGES, "tests") if UNEXPLAINED_IGNORE.search(path.read_text("utf-8"))]
    assert found == []


def test_no_file_names_a_package_registry() -> None:
    found = [
        shown(path) for path in [*text_files(), ROOT / "constraints.txt"] if REGISTRIES.search(path.read_text("utf-8"))
    ]
    assert found == []


def test_the_constraints_hold_hashes_and_no_address() -> None:
    text = (ROOT / "constraints.txt").read_text("utf-8")
    names = re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE | re.IGNORECASE)
    blocks = re.split(r"(?m)^(?=\S)", text)
    assert "://" not in text
    assert "hatchling" in names
    assert [block.split()[0] for block in blocks if block.strip() and "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("package", LONGEST_MODULE_LINES)
def test_no_module_outgrows_its_bound(package: str) -> None:
    lengths = {shown(path): len(path.read_text("utf-8").splitlines()) for path in sources(package)}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE_LINES[package]} == {}


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function from its first statement to its last."""
    first = function.body[int(ast.get_docstring(function) is not None and len(function.body) > 1)]
    return (function.end_lineno or first.lineno) - first.lineno + 1


def test_no_function_outgrows_a_screen() -> None:
    found = {
        f"{shown(path)}:{node.name}": body_lines(node)
        for path in sources(*PACKAGES)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and body_lines(node) > LONGEST_FUNCTION_LINES
    }
    assert found == {}


def test_no_module_is_named_after_nothing() -> None:
    assert [shown(path) for path in sources(*PACKAGES, "tests") if path.name in GENERIC_NAMES] == []


def imported_tops(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    tops = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            tops.add(node.module.split(".")[0])
    return tops


def imported_distributions(path: Path) -> set[str]:
    """The distributions that bring what a file imports; the standard library and the project itself are left out."""
    tops = imported_tops(path)
    own = {*PACKAGES, "tests"}
    foreign = {top for top in tops if top not in sys.stdlib_module_names and top not in own}
    return {COMPANIONS.get(top) or DISTRIBUTIONS.get(top) or top for top in foreign}


def test_only_the_agreement_tests_see_both_products() -> None:
    """The house is the exception: it documents both."""
    guard, certifier = {"mcp_guard"}, {"pytest_mcp_conformance", "conformance_suites"}
    seen: dict[str, set[str]] = {}
    for path in sources("tests"):
        folder = path.relative_to(ROOT).parts[1]
        seen.setdefault(folder, set()).update(imported_tops(path))
    assert {name for name, tops in seen.items() if tops & guard and tops & certifier} <= {"agreement", "house"}


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return {re.split(r"[\[<>=~! ]", line)[0].lower() for line in lines}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("mcp_guard", ["valkey", "postgres", "authserver", "otel", "demo"]),
        ("pytest_mcp_conformance", ["conformance"]),
        ("conformance_suites", ["conformance"]),
        ("tests", ["valkey", "postgres", "authserver", "otel", "demo", "conformance", "dev"]),
    ],
)
def test_every_imported_distribution_is_declared(folder: str, extras: list[str]) -> None:
    undeclared = {shown(path): imported_distributions(path) - declared(*extras) for path in sources(folder)}
    assert {name: missing for name, missing in undeclared.items() if missing} == {}


def test_nothing_is_declared_that_the_guard_does_not_import() -> None:
    used = set().union(*(imported_distributions(path) for path in sources("mcp_guard")))
    assert declared() - used == set()
