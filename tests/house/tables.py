"""The tables of the reference that are made from the code: `python -m tests.house.tables` writes them anew.

A table stands in its page between `<!-- table: NAME -->` and `<!-- end -->`. tests/house/test_docs.py fails while a
page shows another.
"""

import argparse
import dataclasses
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.house.tree import ROOT, shown

REFERENCE = ROOT / "docs" / "reference"
MARKED = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells keep their own mark-up, a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def rejections() -> str:
    """Every kind of refusal, in the order of mcp_guard/rejections.py."""
    from mcp_guard.rejections import KINDS

    head = ("slug", "status", "OAuth error", "JSON-RPC code", "what the client reads", "source")
    return table(
        head,
        (
            (
                code(kind.slug),
                str(kind.status),
                code(kind.error),
                code("" if kind.code is None else str(kind.code)),
                kind.description,
                kind.source,
            )
            for kind in KINDS.values()
        ),
    )


def settings() -> str:
    """Every setting of mcp_guard/config.py."""
    from mcp_guard.config import PREFIX, Settings

    return table(
        ("variable", "kind", "default", "what it says"),
        (
            (
                code(f"{PREFIX}{name.upper()}"),
                kind(info.annotation),
                "required" if info.is_required() else default(info.default),
                str(info.description),
            )
            for name, info in Settings.model_fields.items()
        ),
    )


def kind(annotation: Any) -> str:
    """The type of a setting in an operator's words."""
    options = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(code(str(option)) for option in options)
    if typing.get_origin(annotation) in {types.UnionType, typing.Union}:
        return kind(next(option for option in options if option is not type(None)))
    if typing.get_origin(annotation) is tuple:
        return "list, separated by commas"
    return {str: "text", int: "number", bool: "`true` or `false`", Path: "file"}.get(annotation, "text")


def default(value: object) -> str:
    return "none" if value in (None, ()) else code(str(value))


def commands() -> str:
    """Every command, argument and flag of mcp_guard/cli.py."""
    from mcp_guard.cli import parser

    return table(("command", "argument", "what it does"), _commands(parser(), "mcp-guard", ""))


def _commands(parser: argparse.ArgumentParser, name: str, said: str) -> Iterator[tuple[str, str, str]]:
    yield code(name), "", said or str(parser.description)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: str(choice.help) for choice in action._choices_actions}
            for command, below in action.choices.items():
                yield from _commands(below, f"{name} {command}", helps[command])
        elif not isinstance(action, argparse._HelpAction):
            words = [*action.option_strings[:1]] or [str(action.metavar or action.dest)]
            if action.option_strings and action.nargs != 0:
                words.append(str(action.metavar or action.dest.upper()))
            yield code(name), code(" ".join(words)), action.help or ""


@dataclass
class Offered:
    """Stands where pytest's parser stands, and keeps what a plugin offers."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def getgroup(self, name: str, description: str = "", after: str | None = None) -> "Offered":
        return self

    def addoption(self, name: str, **said: Any) -> None:
        values = said.get("metavar") or "|".join(str(choice) for choice in said.get("choices") or ())
        preset = said.get("default")
        shown_default = "" if preset is None or preset == [] or preset is False else code(str(preset))
        self.rows.append((code(f"{name}={values}" if values else name), shown_default, str(said["help"])))


def conformance_options() -> str:
    """Every option of the pytest plugin."""
    from pytest_mcp_conformance.options import add_options

    offered = Offered()
    add_options(typing.cast("Any", offered))
    return table(("option", "default", "what it does"), offered.rows)


def checked_requirements() -> set[str]:
    """The ids that a bundled suite checks."""
    named = re.compile(r'^@requirement\("([A-Z]+-\d{3})"\)', re.MULTILINE)
    suites = sorted((ROOT / "conformance_suites").glob("test_*.py"))
    return {found for path in suites for found in named.findall(path.read_text("utf-8"))}


def requirements() -> str:
    """The whole catalogue, one table an area, and which of it is checked now."""
    from pytest_mcp_conformance.catalogue import AREAS, load

    checked, known = checked_requirements(), load()
    parts = [f"{len(checked)} of {len(known)} requirements are checked now.\n"]
    for area, name in AREAS.items():
        rows = [
            (code(one.id), "yes" if one.id in checked else "", one.level, one.severity, one.title)
            for one in known.values()
            if one.area == area
        ]
        parts += [f"## {area}: {name}\n", table(("id", "checked", "level", "severity", "requirement"), rows)]
    return "\n".join(parts)


LAYERS = (
    "audit",
    "wire",
    "proxy",
    "tls",
    "host",
    "shield",
    "beside",
    "origin",
    "metadata",
    "route",
    "token",
    "certificate",
    "dpop",
    "websocket",
    "concurrency",
    "intake",
    "scopes",
    "visibility",
    "revocation",
    "rate_limit",
    "replay",
    "session",
    "streams",
    "tasks",
    "handles",
    "event_ids",
    "request_state",
    "affinity",
    "bridge",
)
"""The modules of mcp_guard/layers, outermost first."""


def layer_classes(module: str) -> list[type[Any]]:
    """The layers that one module of mcp_guard/layers defines."""
    from mcp_guard.check import Layer

    found = importlib.import_module(f"mcp_guard.layers.{module}")
    classes = [one for one in vars(found).values() if inspect.isclass(one) and one.__module__ == found.__name__]
    return [one for one in classes if issubclass(one, Layer)]


def layers() -> str:
    """Every layer, outermost first: what its module and its class say of it, and its settings."""
    return "\n".join(section(module, one) for module in LAYERS for one in layer_classes(module))


def section(module: str, layer: type[Any]) -> str:
    """One layer: a heading, the two docstrings, a table of settings."""
    said = inspect.getdoc(sys.modules[layer.__module__])
    rows = [(code(one.name), code(spelled(one.type)), preset(one)) for one in dataclasses.fields(layer) if one.init]
    parts = [f"## `{layer.__name__}`\n", f"`mcp_guard.layers.{module}`\n", f"{said}\n", f"{inspect.getdoc(layer)}\n"]
    return "\n".join([*parts, *([table(("setting", "type", "default"), rows)] if rows else [])])


def preset(setting: dataclasses.Field[Any]) -> str:
    """The default of a setting as a reader writes it."""
    if setting.default is not dataclasses.MISSING:
        return code(written(setting.default))
    factory: Any = setting.default_factory
    if factory is dataclasses.MISSING:
        return "required"
    if factory in {dict, list, frozenset, tuple}:
        return code(written(factory()))
    return "see above" if factory.__name__.startswith("_") else code(f"{factory.__name__}()")


def spelled(annotation: Any) -> str:
    """A type without the modules it comes from."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def written(value: object) -> str:
    """A default in short: a function by its name, a duration in seconds, sets in a fixed order."""
    if inspect.isfunction(value):
        return value.__name__
    if isinstance(value, timedelta):
        return f"timedelta(seconds={value.total_seconds():g})"
    if isinstance(value, frozenset | set):
        return f"{{{', '.join(sorted(map(repr, value)))}}}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = (written(getattr(value, one.name)) for one in dataclasses.fields(value) if one.init)
        return f"{type(value).__name__}({', '.join(inner)})"
    return repr(value)


def public_names() -> str:
    """Every name that `mcp_guard` offers, with the first sentence of what it says of itself."""
    package = importlib.import_module("mcp_guard")
    found = ((name, getattr(package, name)) for name in sorted(package.__all__, key=str.lower))
    return table(
        ("name", "from", "what it is"), ((code(name), code(origin(one)), sentence(one)) for name, one in found)
    )


def origin(one: object) -> str:
    """The module a public name is defined in."""
    return str(getattr(one, "__module__", ""))


def sentence(one: object) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(one) or "").split("\n\n")[0].split())


def servers() -> str:
    """What becomes of odd requests on each server."""
    from tests.guard.wire.rows import PASSES, ROWS, SERVERS

    def cell(outcome: int | str) -> str:
        return f"server: {outcome}" if isinstance(outcome, int) else outcome if outcome == PASSES else code(outcome)

    head = ("what is sent", *(code("mcp-guard serve") if name == "serve" else name for name in SERVERS), "what passes")
    return table(head, ((row.sent, *map(cell, row.cells), row.handed) for row in ROWS))


def closes() -> str:
    """Every way in which the guard closes a WebSocket, from mcp_guard/closes.py."""
    from mcp_guard.closes import CLOSES

    return table(("code", "reason", "when"), ((str(one.code), code(one.slug), one.description) for one in CLOSES))


TABLES: dict[str, Callable[[], str]] = {
    "rejections": rejections,
    "closes": closes,
    "settings": settings,
    "commands": commands,
    "conformance-options": conformance_options,
    "layers": layers,
    "requirements": requirements,
    "public-names": public_names,
    "servers": servers,
}


def render(page: str) -> str:
    """`page` with each of its tables as the code has it now."""
    return MARKED.sub(lambda found: f"{found.group(1)}\n{TABLES[found.group('name')]()}\n", page)


def pages() -> list[Path]:
    """The pages of the reference."""
    return sorted(REFERENCE.glob("*.md"))


def main() -> int:
    """Write every table anew; says which pages changed."""
    for path in pages():
        before = path.read_text("utf-8")
        after = render(before)
        if after != before:
            path.write_text(after, "utf-8")
            print(f"wrote {shown(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
