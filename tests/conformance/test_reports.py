from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_mcp_conformance.forge.jws import read_jws
from tests.conformance.running import Ended, certify
from tests.support.model_server import USERS, ModelServer
from tests.support.serving import Serving, serving

CHECKS = '''
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, NotRun, requirement

class Leaky(Finding):
    """Shows whatever it has."""

@requirement("TOK-001")
def test_fails(target, alice, authorization_server):
    tokens = authorization_server.tokens()
    exchange = target.send(target.harmless(), alice)
    refreshed = authorization_server.refresh(tokens)
    raise Leaky("a finding", evidence=(exchange, refreshed), expected="something else",
                got=f"{alice.token} {tokens.access_token} {tokens.refresh_token}", counterexample=alice.token[:-3])

@requirement("PRM-012")
def test_warns(target):
    raise Leaky("a small finding", evidence=target.challenge, expected="x", got="y")

@requirement("PRM-001")
def test_advises(target):
    raise Advice("some advice", evidence=target.challenge, expected="x", got="y")

@requirement("PRM-002")
def test_passes(target):
    target.require_protected()

@requirement("PRM-005")
def test_asks_nothing(target):
    pass

@requirement("PRM-006")
def test_does_not_apply(target):
    raise NotApplicable("there is nothing of the kind")

@requirement("PRM-007")
def test_is_not_run(target):
    raise NotRun("something is missing")

@requirement("PRM-008")
def test_cannot_decide(target):
    raise Inconclusive("it could be either")

@requirement("PRM-009")
def test_breaks(target, alice):
    print("printed", alice.token)
    token = alice.token
    raise KeyError(token)
'''


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving(lambda url: ModelServer(url, minting=True)) as running:
        yield running


@pytest.fixture(scope="module")
def ended(server: Serving, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, str]:
    folder = tmp_path_factory.mktemp("run")
    (folder / "test_mine.py").write_text(CHECKS)
    app = server.app
    assert isinstance(app, ModelServer)
    token = app.mint(subject="alice", claims={"aud": f"{server.url}/mcp"})
    environment = {
        "MCP_CONFORMANCE_TOKEN": token,
        "MCP_CONFORMANCE_USER": "alice",
        "MCP_CONFORMANCE_PASSWORD": USERS["alice"],
    }
    options = ["test_mine.py", "-l", "-ra", "-v", "--junitxml=junit.xml", "--mcp-conformance-login=form", "--tb=long"]
    return certify(folder, f"{server.url}/mcp", *options, environment=environment), token


def test_every_outcome_is_shown_with_its_own_word(ended: tuple[Ended, str]) -> None:
    run, _ = ended
    words = dict(re.findall(r"^test_mine.py::test_(\w+) ([A-Z-]+) ", run.output, re.MULTILINE))
    assert words == {
        "fails": "FAIL",
        "warns": "WARN",
        "advises": "WARN",
        "passes": "PASS",
        "asks_nothing": "INCONCLUSIVE",
        "does_not_apply": "NOT-APPLICABLE",
        "is_not_run": "NOT-RUN",
        "cannot_decide": "INCONCLUSIVE",
        "breaks": "BROKEN",
    }
    assert run.code == pytest.ExitCode.TESTS_FAILED
    assert "4 requirements assessed: 1 fail, 2 warn, 1 pass" in run.output
    for line in (
        "  PRM-005: the check asked the target nothing",
        "  PRM-006: there is nothing of the kind",
        "  PRM-007: something is missing",
        "  PRM-008: it could be either",
        "  PRM-009: the check itself broke (KeyError)",
    ):
        assert line in run.output.splitlines()


def test_a_failure_says_what_why_and_how_to_repeat_it(ended: tuple[Ended, str], server: Serving) -> None:
    run, _ = ended
    block = run.output[run.output.index("TOK-001  MUST") :]
    for name in ("a finding", "counterexample:", "expected:", "got:", "reproduce:", "repeat:", "source:", "remedy:"):
        assert name in block
    assert f"pytest --mcp-target={server.url}/mcp --mcp-conformance-only=TOK-001" in block
    assert re.search(r"reproduce: +curl -sS -i -X POST .*\"\$MCP_\w+\"", block)
    assert re.search(r"source: +\S.* https://", block)


def test_no_secret_is_in_anything_a_run_leaves_behind(ended: tuple[Ended, str]) -> None:
    run, token = ended
    artefacts = [
        run.output,
        *(p.read_text("utf-8") for p in run.folder.rglob("*") if p.is_file() and p.suffix != ".py"),
    ]
    assert any("<testsuite" in text for text in artefacts)
    signature = token.rpartition(".")[2]
    for text in artefacts:
        assert USERS["alice"] not in text
        assert not any(signature[at : at + 12] in text for at in range(len(signature) - 11))
        shown = [read_jws(found) for found in re.findall(r"eyJ[\w-]+\.[\w-]+\.[\w-]{20,}", text)]
        assert not [jws for jws in shown if jws is not None and "sub" in jws.claims]
    assert "$MCP_TOKEN" in run.output
    assert "$MCP_REFRESH_TOKEN" in run.output


def test_the_report_holds_every_requirement_and_the_evidence_of_each_verdict(ended: tuple[Ended, str]) -> None:
    run, _ = ended
    report = run.report
    assert len(report["requirements"]) > 280
    entries = {entry["id"]: entry for entry in report["requirements"]}
    assert entries["PRM-013"]["outcome"] == "not-run"
    assert entries["PRM-013"]["reason"] == "no check yet"
    for requirement in ("PRM-002", "TOK-001", "PRM-012"):
        (check,) = entries[requirement]["checks"]
        assert check["evidence"]
        for number in check["evidence"]:
            assert report["exchanges"][str(number)]["status"]
    failed = entries["TOK-001"]["checks"][0]
    assert (failed["kind"], failed["expected"]) == ("Leaky", "something else")
    assert report["undecided_musts"] == ["PRM-005", "PRM-007", "PRM-008", "PRM-009"]
    assert report["target"]["eras"] == ["modern", "legacy"]
    assert report["target"]["metadata_sha256"]


def test_a_waived_failure_is_told_and_does_not_fail(server: Serving, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from pytest_mcp_conformance import Finding, requirement\n"
        "@requirement('PRM-001')\n"
        "def test_x(target):\n"
        "    raise Finding('bad', evidence=target.challenge, expected='x', got='y')\n"
    )
    (tmp_path / "waivers.toml").write_text(
        '[[waiver]]\nid = "PRM-001"\nreason = "moving"\nowner = "ops"\nexpires = 2999-01-01\n'
    )
    ended = certify(tmp_path, f"{server.url}/mcp", "test_mine.py", "--mcp-conformance-waivers=waivers.toml")
    assert ended.code == 0, ended.output
    assert ended.outcome("PRM-001") == "waived"
    assert "waived PRM-001 (high) by ops until 2999-01-01: moving" in ended.output
