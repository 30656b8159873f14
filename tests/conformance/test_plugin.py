from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_mcp_conformance.engine import EXIT_NOT_ASSESSED
from tests.conformance.running import ROOT, certify, run_pytest
from tests.conformance.scripted import reply, scripted
from tests.support.model_server import ModelServer
from tests.support.serving import serving

HEAVY = (
    "hypothesis",
    "httpx",
    "cryptography",
    "ssl",
    "pytest_mcp_conformance.engine",
    "pytest_mcp_conformance.catalogue",
)


@pytest.fixture(scope="module")
def sound() -> Iterator[str]:
    with serving(ModelServer) as server:
        yield f"{server.url}/mcp"


def test_the_plugin_imports_the_standard_library_and_pytest_alone() -> None:
    program = (
        "import sys, pytest; before = set(sys.modules); import pytest_mcp_conformance.plugin; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["pytest_mcp_conformance"]


def test_without_a_target_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import sys\n"
        "def test_mine(request):\n"
        f"    loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    assert not [name for name in loaded if name.startswith(('pytest_mcp', 'hypothesis', 'httpx', 'crypto'))]\n"
        "    assert not request.config.pluginmanager.hasplugin('mcp_conformance_engine')\n"
        "def test_names_are_free(request):\n"
        "    import pytest\n"
        "    with pytest.raises(pytest.FixtureLookupError):\n"
        "        request.getfixturevalue('target')\n"
    )
    ended = run_pytest(tmp_path, "--strict-markers")
    assert ended.code == 0, ended.output
    assert "2 passed" in ended.output
    assert "MCP conformance" not in ended.output


def test_a_run_with_a_target_collects_the_bundled_suites_and_nothing_else(tmp_path: Path, sound: str) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine(): raise SystemExit('collected')\n")
    ended = run_pytest(tmp_path, f"--mcp-target={sound}", "--collect-only", "-q", "-o", "python_files=check_*.py")
    collected = {line.partition("::")[0] for line in ended.output.splitlines() if "::" in line}
    assert collected == {path.name for path in (ROOT / "conformance_suites").glob("test_*.py")}
    assert ended.code == 0


def test_paths_given_with_a_target_are_collected_in_place_of_the_suites(tmp_path: Path, sound: str) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from pytest_mcp_conformance import requirement\n"
        "@requirement('PRM-001')\n"
        "def test_mine(target):\n"
        "    assert target.protected\n"
    )
    ended = certify(tmp_path, sound, "test_mine.py")
    assert ended.code == 0, ended.output
    assert "1 passed" in ended.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--mcp-target=nonsense"],
            "--mcp-target must be an http or https URL such as https://host/mcp, not 'nonsense'",
        ),
        (["--mcp-target=http://127.0.0.1:99999/mcp"], "--mcp-target is not a URL"),
        (["--mcp-target=http://a:b@127.0.0.1/mcp"], "without user name, password, fragment or spaces"),
        (
            ["--mcp-target=https://mcp.example.com/mcp"],
            '--mcp-conformance-authorized="I am authorized to test mcp.example.com"',
        ),
        (["--mcp-target=http://127.0.0.1/mcp", "--mcp-conformance-authorized=yes"], "-authorized must read"),
        (["--mcp-target=http://127.0.0.1/mcp", "--mcp-conformance-rate=0"], "-rate must be more than 0"),
        (["--mcp-target=http://127.0.0.1/mcp", "--mcp-conformance-max-requests=0"], "-max-requests must be at least 1"),
        (
            ["--mcp-target=http://127.0.0.1/mcp", "--mcp-conformance-only=PRM;x"],
            "-only takes areas (PRM) and requirement ids",
        ),
        (
            ["--mcp-target=http://127.0.0.1/mcp", "--mcp-conformance-token-file=nowhere"],
            "-token-file: there is no file 'nowhere'",
        ),
        (["--mcp-target=http://127.0.0.1/mcp", "--mcp-conformance-token-command=false"], "-token-command failed"),
        (
            ["--mcp-target=http://127.0.0.1/mcp", "--mcp-conformance-waivers=nowhere"],
            "-waivers: there is no file 'nowhere'",
        ),
        (["--mcp-target=http://127.0.0.1/mcp", "--mcp-conformance-report=taken"], "-report: taken cannot be made"),
    ],
)
def test_a_setting_that_cannot_work_gets_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "taken").write_text("a file")
    ended = run_pytest(tmp_path, *arguments)
    assert ended.code == pytest.ExitCode.USAGE_ERROR, ended.output
    (error,) = ended.errors
    assert sentence in error
    assert "Traceback" not in ended.output


def test_a_target_that_does_not_answer_gets_one_sentence(tmp_path: Path) -> None:
    with scripted(None, None, None) as script:
        silent = certify(tmp_path, script.url)
    dead = certify(tmp_path, script.url)
    for ended, words in ((silent, "closed without an answer"), (dead, "Connection refused")):
        assert ended.code == pytest.ExitCode.USAGE_ERROR
        assert len(ended.errors) == 1
        assert f"--mcp-target: {script.url} does not answer" in ended.errors[0]
        assert words in ended.errors[0]
        assert "Traceback" not in ended.output


def test_an_area_the_catalogue_does_not_know_is_refused(tmp_path: Path, sound: str) -> None:
    ended = certify(tmp_path, sound, "--mcp-conformance-only=NOPE")
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert ended.errors == ["--mcp-conformance-only: the catalogue knows no NOPE"]


def test_a_run_that_judged_nothing_is_not_assessed(tmp_path: Path) -> None:
    error = reply("500 Internal Server Error")
    with scripted(*[error] * 400) as script:
        ended = certify(tmp_path, script.url, "--mcp-conformance-only=PRM")
    assert ended.code == EXIT_NOT_ASSESSED, ended.output
    assert "NOT ASSESSED: no requirement was judged" in ended.output
    assert ended.report["not_assessed"]
    assert ended.report["assessed"] == 0


def test_a_run_whose_every_good_request_is_refused_is_not_assessed(tmp_path: Path, sound: str) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from pytest_mcp_conformance import requirement\n"
        "@requirement('PRM-001')\n"
        "def test_public(target):\n"
        "    target.require_protected()\n"
        "@requirement('TOK-001')\n"
        "def test_controlled(target, alice):\n"
        "    with target.controlled(alice):\n"
        "        raise SystemError('a batch without its control')\n"
    )
    ended = certify(tmp_path, sound, "test_mine.py", environment={"MCP_CONFORMANCE_TOKEN": "no-longer-valid"})
    assert ended.code == EXIT_NOT_ASSESSED, ended.output
    assert "is the token still valid?" in ended.output
    assert ended.outcome("TOK-001") == "inconclusive"


def test_only_the_selected_requirements_are_checked(tmp_path: Path, sound: str) -> None:
    ended = certify(tmp_path, sound, "--mcp-conformance-only=PRM-001,prm-005")
    assert ended.code == 0, ended.output
    checked = [entry["id"] for entry in ended.report["requirements"] if entry["checks"]]
    assert checked == ["PRM-001", "PRM-005"]
    reasons = {entry["id"]: entry.get("reason") for entry in ended.report["requirements"]}
    assert reasons["PRM-002"] == "not selected"


def test_a_requirement_of_other_revisions_is_not_applicable(tmp_path: Path, sound: str) -> None:
    options = ["--mcp-conformance-only=PRM-003,PRM-001", "--mcp-conformance-revision=2026-07-28"]
    ended = certify(tmp_path, sound, *options)
    assert ended.outcome("PRM-003") == "not-applicable"
    assert ended.outcome("PRM-001") == "pass"


def test_the_budget_ends_the_run_and_not_in_a_pass(tmp_path: Path, sound: str) -> None:
    ended = certify(tmp_path, sound, "--mcp-conformance-only=PRM", "--mcp-conformance-max-requests=7")
    assert ended.report["requests"] <= 7
    assert ended.report["counts"]["inconclusive"] > 0
    assert "the run's budget of 7 requests is spent" in ended.output
    assert "no certificate" in ended.output


def test_several_processes_at_once_are_refused(tmp_path: Path, sound: str) -> None:
    ended = run_pytest(tmp_path, "-p", "xdist", "-n2", f"--mcp-target={sound}")
    assert ended.code == pytest.ExitCode.USAGE_ERROR
    assert "leave out -n" in ended.errors[0]
