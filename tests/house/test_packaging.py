"""What a user installs: one wheel with two packages and the suites, and a pytest plugin that costs nothing unused."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.tree import PACKAGES, ROOT, files

HEAVY = ("hypothesis", "httpx", "cryptography", "mcp_guard", "mcp", "joserfc", "authlib", "jwt")

OPTIONAL = ("argon2", "authlib", "mcp", "fastmcp", "starlette", "uvicorn", "valkey", "hypothesis", "pytest")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (built,) = folder.glob("mcp_guard-*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_every_file_of_the_packages_and_the_suites(wheel: zipfile.ZipFile) -> None:
    tracked = {path.relative_to(ROOT).as_posix() for path in files() if path.relative_to(ROOT).parts[0] in PACKAGES}
    assert tracked - set(wheel.namelist()) == set()


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_each_package_says_that_it_is_typed() -> None:
    assert [name for name in PACKAGES if not (ROOT / name / "py.typed").is_file()] == []


def test_the_guard_needs_no_optional_package() -> None:
    """Everything public is imported, and a layer wraps an app, while the packages of all extras are out of reach."""
    program = f"""
import sys
sys.modules.update(dict.fromkeys({OPTIONAL!r}))
import mcp_guard, mcp_guard.cli, mcp_guard.config
from mcp_guard.layers.bridge import Bridge
Bridge().wrap(lambda scope, receive, send: None)
"""
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("module", HEAVY)
def test_loading_the_pytest_plugin_loads_nothing_heavy(module: str) -> None:
    program = f"import sys, pytest_mcp_conformance.plugin; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=60).returncode == 0


def test_a_run_without_a_target_collects_nothing_of_ours(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("def test_own():\n    assert True\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--collect-only",
        "-c",
        "/dev/null",
        "--rootdir",
        str(tmp_path),
        ".",
    ]
    answer = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert "test_own.py::test_own" in answer.stdout
    assert "1 test collected" in answer.stdout
