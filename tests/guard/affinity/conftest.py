"""What the tests of workers share: a directory with a short path, since a socket's path is."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory of ours alone, for sockets."""
    with tempfile.TemporaryDirectory(prefix="mcp-") as made:
        yield Path(made)
