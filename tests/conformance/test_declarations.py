"""Declarations are read strictly: a typing error must not turn a check off unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mcp_conformance.declarations import Declarations, LimitedTool, read_declarations

MODEL = Path(__file__).parents[1] / "support" / "model_declarations.toml"


def read(folder: Path, text: str) -> Declarations:
    path = folder / "declared.toml"
    path.write_text(text, "utf-8")
    return read_declarations(path)


def test_no_file_declares_nothing() -> None:
    assert read_declarations(None) == Declarations()


def test_everything_that_can_be_declared_is_read(tmp_path: Path) -> None:
    declared = read(tmp_path, MODEL.read_text("utf-8"))
    assert declared.harmless_tools == ("whoami",)
    assert (declared.scoped_tool, declared.asking_tool) == ("admin_reset", "ask")
    assert declared.implied_scopes == {"mcp:admin": ("mcp:tools",)}
    assert declared.revocation_seconds == 1.0
    assert declared.limited_tool == LimitedTool("measured", 8, 4.0)
    assert declared.object_tools is not None
    assert (declared.object_tools.create, declared.object_tools.read) == ("remember", "recall")
    assert (declared.outbound_tool, declared.outbound_argument) == ("fetch", "url")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("harmless", "is not TOML"),
        ('harmless_tool = ["whoami"]', "no member harmless_tool"),
        ('harmless_tools = "whoami"', "harmless_tools must be a list"),
        ("harmless_tools = [1]", "harmless_tools must be text"),
        ("scoped_tool = 1", "scoped_tool must be text"),
        ('implied_scopes = "all"', "implied_scopes must be a table"),
        ('object_tools = { create = "remember" }', "object_tools has the members"),
        ('outbound_tool = "fetch"', "go together"),
        ("revocation_seconds = -1", "must be a number of seconds"),
        ("revocation_seconds = true", "must be a number of seconds"),
        ('limited_tool = { name = "measured" }', "limited_tool has the members"),
        ('limited_tool = { name = "measured", calls = 51, seconds = 1 }', "calls must be a number from 1 to 50"),
        ('limited_tool = { name = "measured", calls = true, seconds = 1 }', "calls must be a number from 1 to 50"),
        ('limited_tool = { name = "measured", calls = 5, seconds = 0 }', "seconds must be more than 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(pytest.UsageError, match=reason):
        read(tmp_path, text)
