"""The tokens a run was given: from the environment, a file or a command; never from the command line."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from pytest_mcp_conformance.exchange import Header
from pytest_mcp_conformance.options import PREFIX, Settings
from pytest_mcp_conformance.redaction import Secrets

COMMAND_SECONDS = 60.0
VARIABLES: Mapping[str, str] = {
    "a": "MCP_CONFORMANCE_TOKEN",
    "b": "MCP_CONFORMANCE_TOKEN_B",
    "expired": "MCP_CONFORMANCE_TOKEN_EXPIRED",
    "upstream": "MCP_CONFORMANCE_TOKEN_UPSTREAM",
}
_NAMES: Mapping[str, str] = {
    "a": "TOKEN",
    "b": "TOKEN_B",
    "expired": "TOKEN_EXPIRED",
    "upstream": "TOKEN_UPSTREAM",
}
_USERS: Mapping[str, tuple[str, str]] = {
    "a": ("MCP_CONFORMANCE_USER", "MCP_CONFORMANCE_PASSWORD"),
    "b": ("MCP_CONFORMANCE_USER_B", "MCP_CONFORMANCE_PASSWORD_B"),
}


@dataclass(frozen=True, repr=False)
class Credential:
    """An access token and whose it is (`a`, `b`, `expired`, `upstream`)."""

    who: str
    token: str

    def __repr__(self) -> str:
        return f"Credential({self.who!r}, …)"

    @property
    def header(self) -> Header:
        return ("Authorization", f"Bearer {self.token}")


@dataclass(frozen=True, repr=False)
class Account:
    """A user name and password for the login page."""

    who: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Account({self.who!r}, …)"


def given_tokens(
    settings: Settings, secrets: Secrets, environment: Mapping[str, str] = os.environ
) -> dict[str, Credential]:
    """The tokens given to the run, by whose they are. A command wins over a file, a file over the environment.

    Raises:
        pytest.UsageError: a command or a file yields no token.
    """
    found: dict[str, Credential] = {}
    for who, variable in VARIABLES.items():
        token = environment.get(variable, "").strip()
        if who in settings.token_files:
            token = _checked(settings.token_files[who].read_text("utf-8"), f"the file {settings.token_files[who]}")
        if who in settings.token_commands:
            token = _checked(_run(settings.token_commands[who]), f"{PREFIX}-token-command")
        if token:
            found[who] = remember(Credential(who, token), secrets)
    return found


def remember(credential: Credential, secrets: Secrets) -> Credential:
    """Make sure the token is never shown, and hand the credential back."""
    secrets.rename(credential.token, _NAMES[credential.who])
    return credential


def given_accounts(secrets: Secrets, environment: Mapping[str, str] = os.environ) -> dict[str, Account]:
    """The accounts for the login page. A user without a password is not an account."""
    found: dict[str, Account] = {}
    for who, (user_variable, password_variable) in _USERS.items():
        user, password = environment.get(user_variable, ""), environment.get(password_variable, "")
        if user and password:
            secrets.add(password, "PASSWORD" if who == "a" else "PASSWORD_B")
            found[who] = Account(who, user, password)
    return found


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if not token or any(c.isspace() for c in token):
        raise pytest.UsageError(f"{where} holds no access token: one word was expected")
    return token


def _run(command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command
            shlex.split(command), capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise pytest.UsageError(f"{PREFIX}-token-command failed: {type(error).__name__}") from None
    return done.stdout
