"""The files of the project, as a commit would hold them."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mcp_guard", "pytest_mcp_conformance", "conformance_suites")


@cache
def files() -> tuple[Path, ...]:
    """Every file that is tracked or would be if it were added, as absolute paths, sorted."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = (ROOT / name for name in listing.split("\0") if name)
    return tuple(sorted(path for path in paths if path.is_file()))


def sources(*tops: str) -> list[Path]:
    """The Python files under the top-level folders `tops`."""
    return [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in tops]


def shown(path: Path) -> str:
    """`path` as a reader of a failure wants it: relative to the project."""
    return path.relative_to(ROOT).as_posix()
