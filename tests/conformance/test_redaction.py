from __future__ import annotations

import base64
import json
import shlex
import subprocess
from urllib.parse import quote

import pytest

from pytest_mcp_conformance.exchange import Exchange, Request
from pytest_mcp_conformance.forge.jws import compact, es256, new_ec_key
from pytest_mcp_conformance.redaction import Secrets

OPAQUE = "canary/+opaque=token~0123456789abcdefghij"


@pytest.fixture(scope="module")
def jwt() -> str:
    return compact({"alg": "ES256"}, {"sub": "alice"}, es256(new_ec_key()))


def test_a_secret_is_replaced_by_the_name_of_its_variable() -> None:
    secrets = Secrets()
    secrets.add(OPAQUE, "TOKEN")
    assert secrets.redact(f"Bearer {OPAQUE}, again {OPAQUE}") == "Bearer $MCP_TOKEN, again $MCP_TOKEN"


@pytest.mark.parametrize(
    "spelled",
    [
        quote(OPAQUE, safe=""),
        quote(OPAQUE),
        json.dumps({"token": OPAQUE}),
        base64.b64encode(OPAQUE.encode()).decode(),
        base64.urlsafe_b64encode(OPAQUE.encode()).decode(),
    ],
)
def test_a_secret_is_found_in_every_spelling_it_travels_in(spelled: str) -> None:
    secrets = Secrets()
    secrets.add(OPAQUE, "TOKEN")
    shown = secrets.redact(f"<{spelled}>")
    assert "$MCP_TOKEN" in shown
    assert spelled not in shown


def test_another_value_of_the_same_name_gets_a_number() -> None:
    secrets = Secrets()
    assert [secrets.add(value, "CODE") for value in ("first-code", "second-code", "first-code")] == [
        "$MCP_CODE",
        "$MCP_CODE_2",
        "$MCP_CODE",
    ]


@pytest.mark.parametrize(
    "bend", [lambda t: t[:-1], lambda t: t + "x", lambda t: t[:-9] + "AAAAAAAAA", lambda t: "q" + t[40:]]
)
def test_a_bent_token_does_not_show_the_signature_it_was_made_from(jwt: str, bend: object) -> None:
    secrets = Secrets()
    secrets.add(jwt, "TOKEN")
    assert callable(bend)
    shown = secrets.redact(f"Authorization: Bearer {bend(jwt)} end")
    signature = jwt.rpartition(".")[2]
    assert not any(signature[at : at + 12] in shown for at in range(len(signature) - 11))
    assert "part of $MCP_TOKEN" in shown or "$MCP_TOKEN" in shown


def test_forged_tokens_are_shown_as_they_are(jwt: str) -> None:
    secrets = Secrets()
    secrets.add(jwt, "TOKEN")
    forged = compact({"alg": "ES256"}, {"sub": "mallory"}, es256(new_ec_key()))
    assert secrets.redact(forged) == forged


def test_a_short_value_does_not_mangle_every_text() -> None:
    secrets = Secrets()
    secrets.add("abc", "TOKEN")
    assert secrets.redact("abcdef") == "abcdef"


def test_the_curl_command_expands_to_what_was_sent() -> None:
    secrets = Secrets()
    secrets.add(OPAQUE, "TOKEN")
    request = Request(
        "POST", "http://127.0.0.1:1/a b?x='1'", (("Authorization", f"Bearer {OPAQUE}"),), b'{"a": "$HOME"}'
    )
    command = Exchange(1, request, None).curl(secrets)
    assert OPAQUE not in command
    printed = subprocess.run(
        ["sh", "-c", command.replace("curl", "printf '%s\\n'", 1)],
        env={"MCP_TOKEN": OPAQUE, "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert f"Authorization: Bearer {OPAQUE}" in printed
    assert '{"a": "$HOME"}' in printed
    assert "http://127.0.0.1:1/a b?x='1'" in printed
    assert shlex.split(command)[0] == "curl"
