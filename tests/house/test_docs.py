"""The documentation says what the code does: nothing public is missing from it, and what it shows works."""

import ast
import importlib
import inspect
import pkgutil
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from tests.house import tables
from tests.house.tree import ROOT, files, shown, sources

DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"MCP_[A-Z]+(_[A-Z]+)*")


@cache
def markdown() -> tuple[Path, ...]:
    return tuple(path for path in files() if path.suffix == ".md")


def prose(path: Path) -> str:
    """A page without its fenced blocks, in which brackets and hashes mean something else."""
    return FENCE.sub("", path.read_text("utf-8"))


@cache
def reference() -> str:
    return "\n".join(path.read_text("utf-8") for path in tables.pages())


@cache
def in_code() -> frozenset[str]:
    """Everything the reference sets in code: `like this`."""
    return frozenset(re.findall(r"`([^`\n]+)`", reference()))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown renderers make them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-") for heading in headings}


def names_in_strings(folder: str, pattern: re.Pattern[str]) -> set[str]:
    """The string constants of a package that match `pattern` as a whole; docstrings do not."""
    nodes = (node for path in sources(folder) for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if pattern.fullmatch(text)}


@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: page.name)
def test_each_table_made_from_the_code_is_up_to_date(page: Path) -> None:
    text = page.read_text("utf-8")
    assert tables.render(text) == text, "run: python -m tests.house.tables"


@pytest.mark.parametrize("name", tables.TABLES)
def test_each_table_stands_in_exactly_one_page_and_has_rows(name: str) -> None:
    assert reference().count(f"<!-- table: {name} -->") == 1
    assert tables.TABLES[name]().count("\n") > 2


def test_every_public_name_is_in_the_reference() -> None:
    public = importlib.import_module("mcp_guard").__all__
    assert public
    assert sorted(set(public) - in_code()) == []


def test_every_public_name_exists() -> None:
    package = importlib.import_module("mcp_guard")
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_every_layer_is_in_the_reference_outermost_first() -> None:
    from mcp_guard import layers

    assert sorted(found.name for found in pkgutil.iter_modules(layers.__path__)) == sorted(tables.LAYERS)
    headings = re.findall(r"^## `(\w+)`$", (tables.REFERENCE / "layers.md").read_text("utf-8"), re.MULTILINE)
    assert headings == [one.__name__ for module in tables.LAYERS for one in tables.layer_classes(module)]


@pytest.mark.parametrize("module", tables.LAYERS)
def test_every_layer_says_what_it_decides_and_what_it_refuses_with(module: str) -> None:
    from mcp_guard.rejections import KINDS

    said = " ".join((inspect.getdoc(importlib.import_module(f"mcp_guard.layers.{module}")) or "").split())
    assert re.search(r"\bDecides: ", said)
    assert re.search(r"\bRefuses(:| with)", said)
    assert re.search(r"\bMust stand ", said)
    source = inspect.getsource(importlib.import_module(f"mcp_guard.layers.{module}"))
    raised = {slug for slug in KINDS if re.search(rf"\b{slug.upper()}\b", source)} - {"guard_fault"}
    families = tuple(re.findall(r"`(\w+_)…`", said))
    assert sorted(slug for slug in raised if f"`{slug}`" not in said and not slug.startswith(families)) == []


def test_every_environment_variable_is_in_the_reference() -> None:
    read = names_in_strings("mcp_guard", VARIABLE) | names_in_strings("pytest_mcp_conformance", VARIABLE)
    assert sorted(read - in_code()) == []


def test_every_option_that_begins_like_ours_exists() -> None:
    from pytest_mcp_conformance.options import add_options

    offered = tables.Offered()
    add_options(offered)  # type: ignore[arg-type]
    known = {re.split(r"[`=]", row[0])[1] for row in offered.rows}
    mentioned = {option for path in markdown() for option in re.findall(r"--mcp-[a-z*…-]+", path.read_text("utf-8"))}
    written = {option for option in mentioned if option[-1].isalpha()}
    assert sorted(written - known) == []


def test_every_checked_requirement_is_in_the_catalogue_and_in_the_reference() -> None:
    from pytest_mcp_conformance.catalogue import load

    checked = tables.checked_requirements()
    assert checked
    assert sorted(checked - load().keys()) == []
    assert sorted(checked - in_code()) == []


def test_every_dependency_has_its_sentence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = {re.split(r"[\[<>=~! ]", line)[0] for line in lines} - {"mcp-guard"}
    bullets = re.findall(r"^- (.*?):", (DOCS / "explanation" / "dependencies.md").read_text("utf-8"), re.MULTILINE)
    explained = {name for bullet in bullets for name in re.findall(r"`([\w.-]+)`", re.sub(r"\(extra.*?\)", "", bullet))}
    assert explained == names


@pytest.mark.parametrize("page", markdown(), ids=shown)
def test_every_internal_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        leads_to = (page.parent / place).resolve() if place else page
        if not leads_to.exists() or (anchor and anchor not in anchors(leads_to)):
            broken.append(target)
    assert broken == []


def test_every_page_can_be_reached_from_the_front_page() -> None:
    reached: set[Path] = set()
    ahead = [DOCS / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            targets = {(page.parent / target.partition("#")[0]).resolve() for target in LINK.findall(prose(page))}
            ahead += [target for target in targets if target in markdown() and DOCS in target.parents]
    assert sorted(shown(page) for page in markdown() if DOCS in page.parents and page not in reached) == []


@pytest.mark.parametrize("page", markdown(), ids=shown)
def test_every_python_block_compiles(page: Path) -> None:
    for language, source in FENCE.findall(page.read_text("utf-8")):
        if language == "python":
            compile(source, shown(page), "exec")


@pytest.mark.parametrize("page", sorted((DOCS / "how-to").glob("*.md")), ids=shown)
def test_every_whole_program_of_a_guide_is_an_example_that_is_run(page: Path) -> None:
    """A block that imports is a program; it stands in docs/examples word for word, where it is run."""
    programs = [
        source
        for language, source in FENCE.findall(page.read_text("utf-8"))
        if language == "python" and re.search(r"^(from|import) ", source, re.MULTILINE)
    ]
    kept = [path.read_text("utf-8") for path in EXAMPLES.glob("*.py")]
    assert [source for source in programs if not any(source.strip() in text for text in kept)] == []


@pytest.mark.parametrize("make", re.findall(r"(?:\$ |`)make ([a-z]+)", (ROOT / "README.md").read_text("utf-8")))
def test_every_target_the_readme_names_is_in_the_makefile(make: str) -> None:
    assert re.search(rf"^{make}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
