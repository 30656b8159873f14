"""The real Codex CLI logs in at the demo and calls a tool as the user who logged in."""

from pathlib import Path

import pytest

from tests.end_to_end import headless
from tests.end_to_end.codex_model import scripted_model
from tests.end_to_end.conftest import RunningDemo
from tests.end_to_end.headless import INSTALLED, run

pytestmark = pytest.mark.clients

CODEX = INSTALLED / ".bin" / "codex"


def home(folder: Path, demo: RunningDemo, model_url: str, user: str) -> dict[str, str]:
    """A fresh home for the CLI, with the demo and the model configured and the walker as its browser."""
    codex_home = folder / "codex"
    codex_home.mkdir()
    (codex_home / "config.toml").write_text(
        f"""
model = "scripted"
model_provider = "stub"
mcp_oauth_credentials_store = "file"

[model_providers.stub]
name = "stub"
base_url = "{model_url}"
wire_api = "responses"

[mcp_servers.target]
url = "{demo.mcp}"
"""
    )
    return {**headless.home(folder, user), "CODEX_HOME": str(codex_home)}


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_codex_logs_in_and_whoami_answers_the_user(demo: RunningDemo, tmp_path: Path, user: str) -> None:
    assert CODEX.exists(), "the Codex CLI is installed by: make clients"
    with scripted_model("whoami") as model:
        environment = home(tmp_path, demo, model.url, user)
        run([str(CODEX), "mcp", "login", "target"], environment, tmp_path)
        unattended = "--dangerously-bypass-approvals-and-sandbox"
        run([str(CODEX), "exec", "--skip-git-repo-check", unattended, "call whoami"], environment, tmp_path)
        outputs = model.tool_outputs()
    assert outputs, "no tool answered"
    assert user in outputs[0]
