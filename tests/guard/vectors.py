"""The printed examples of the RFCs, from tests/vectors."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "vectors"


def vectors(name: str, group: str) -> list[dict[str, Any]]:
    """The examples of `group` in the file `name`.json."""
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))[group]
    return found
