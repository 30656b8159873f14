"""The checks of the guard that are taken out one at a time, and the tests that have to notice.

The product has no switch: a check is taken out of a copy of its source. What is taken out is said in `checks/*.toml`, a
group for each module and its tests. `if` is a condition that never holds any more; `text` gives way to `instead`.
`refuses` is what the check refuses with: a slug of `mcp_guard.rejections`, or what the authorization server answers.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

CHECKS: Final = Path(__file__).parent / "checks"


class Ablation(NamedTuple):
    """A check, how it is taken out, and which tests defend it. `text` stands in `module` exactly once."""

    id: str
    decides: str
    refuses: str | None
    module: str
    text: str
    instead: str
    tests: tuple[str, ...]


def _read() -> Iterator[Ablation]:
    for file in sorted(CHECKS.glob("*.toml")):
        for group in tomllib.loads(file.read_text())["group"]:
            for check in group["checks"]:
                yield _ablation(group["module"], tuple(group["tests"]), check)


def _ablation(module: str, tests: tuple[str, ...], check: Mapping[str, Any]) -> Ablation:
    text, instead = (f"if {check['if']}:", "if False:") if "if" in check else (check["text"], check["instead"])
    return Ablation(check["id"], check["decides"], check.get("refuses"), module, text, instead, tests)


CATALOGUE: Final = tuple(_read())
