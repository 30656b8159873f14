"""What pytest loads. Without `--mcp-target` it adds its options and does nothing else.

Imports the standard library and pytest only: it is loaded by every pytest run of everybody who has it installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import pytest

from pytest_mcp_conformance import options

SUITES = "conformance_suites"


@pytest.hookimpl
def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    """Raises: pytest.UsageError when the options cannot work together."""
    if config.option.mcp_target is None or config.option.help:
        return
    settings = options.read(config.option)
    if getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--mcp-target: one run talks to its target one request at a time; leave out -n")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(bundled_suites())]
        config.addinivalue_line("python_files", "test_*.py")
        config.addinivalue_line("python_functions", "test_")
    from pytest_mcp_conformance import fixtures
    from pytest_mcp_conformance.bench import Bench
    from pytest_mcp_conformance.engine import Engine

    bench = config.stash[fixtures.BENCH] = Bench(settings, lambda text: _announce(config, text))
    config.pluginmanager.register(fixtures, "mcp_conformance_fixtures")
    config.pluginmanager.register(Engine(config, bench), "mcp_conformance_engine")


def _announce(config: pytest.Config, text: str) -> None:
    """Write to the terminal at once, past the capturing of output."""
    capture, terminal = (config.pluginmanager.getplugin(name) for name in ("capturemanager", "terminalreporter"))
    if terminal is None:
        return
    with contextlib.nullcontext() if capture is None else capture.global_and_fixture_disabled():
        terminal.ensure_newline()
        terminal.write_line(text)


def bundled_suites() -> Path:
    """The folder of the installed suites.

    Raises:
        pytest.UsageError: they are not installed.
    """
    found = importlib.util.find_spec(SUITES)
    folders = [] if found is None else [Path(folder) for folder in found.submodule_search_locations or ()]
    if not folders:
        raise pytest.UsageError(f"--mcp-target: the package {SUITES} with the bundled checks is not installed")
    return folders[0]
