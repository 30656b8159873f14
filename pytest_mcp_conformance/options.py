"""The command line of a run: what is offered, and what it means. Loaded by every pytest run, so nothing heavy here."""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import pytest

PREFIX = "--mcp-conformance"
DEFAULT_MAX_REQUESTS = 2500
REMOTE_REQUESTS_PER_SECOND = 20.0
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
CONSENT = "I am authorized to test "
_TOKENS = {
    "": "the user's access token",
    "-b": "a second user's access token",
    "-expired": "an expired access token",
    "-upstream": "an access token of the service behind the target",
}


class LoginMode(StrEnum):
    """How a run obtains authorization codes."""

    NONE = "none"
    PRINT_URL = "print-url"
    FORM = "form"
    FOLLOW = "follow"


class Profile(StrEnum):
    """How many inputs a property tries."""

    QUICK = "quick"
    STANDARD = "standard"
    DEEP = "deep"

    @property
    def examples(self) -> int:
        return {Profile.QUICK: 15, Profile.STANDARD: 30, Profile.DEEP: 200}[self]


@dataclass(frozen=True)
class Settings:
    """One run, validated."""

    target: str
    login: LoginMode
    profile: Profile
    seed: int
    max_requests: int
    requests_per_second: float
    revision: str
    only: frozenset[str]
    authorized_hosts: frozenset[str]
    report: Path | None
    waivers: Path | None
    token_files: Mapping[str, Path]
    token_commands: Mapping[str, str]
    mint_command: str = ""
    declarations: Path | None = None

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.target)

    @property
    def host(self) -> str:
        """Lower case, IPv6 without brackets."""
        return self.parts.hostname or ""

    @property
    def is_local(self) -> bool:
        return is_loopback(self.host)


def add_options(parser: pytest.Parser) -> None:
    """Offer the options. Every one but `--mcp-target` starts with `--mcp-conformance-`."""
    group = parser.getgroup("mcp-conformance", "security conformance of a deployed MCP server")
    group.addoption(
        "--mcp-target", metavar="URL", default=None, help="check the MCP server at URL, and collect nothing else"
    )
    _add(
        group,
        "login",
        choices=[mode.value for mode in LoginMode],
        default=LoginMode.NONE.value,
        help="how to log in for authorization codes",
    )
    _add(group, "report", metavar="DIR", help="write report.json into DIR")
    for suffix, who in _TOKENS.items():
        _add(group, f"token-file{suffix}", metavar="FILE", help=f"read {who} from FILE")
        _add(group, f"token-command{suffix}", metavar="COMMAND", help=f"read {who} from COMMAND's output")
    _add(group, "mint-command", metavar="COMMAND", help="sign test tokens with COMMAND, which has the issuer's key")
    _add(group, "declarations", metavar="FILE", help="TOML file of what only the operator knows: tools, scopes")
    _add(
        group, "revision", choices=REVISIONS, help="judge by this MCP revision only (default: those the target speaks)"
    )
    _add(group, "max-requests", type=int, default=DEFAULT_MAX_REQUESTS, metavar="N", help="requests the run may send")
    _add(group, "rate", type=float, metavar="N", help="requests per second (default: 20, unlimited on loopback)")
    _add(
        group,
        "authorized",
        action="append",
        default=[],
        metavar=f'"{CONSENT}HOST"',
        help="required, in these words, for every host that is not loopback",
    )
    _add(group, "only", metavar="IDS", help="requirement ids or areas to check, comma-separated (PRM,ORIG-001)")
    _add(group, "seed", type=int, default=0, metavar="N", help="seed of the generated inputs (default 0)")
    _add(
        group,
        "profile",
        choices=[profile.value for profile in Profile],
        default=Profile.STANDARD.value,
        help="how many inputs each property tries",
    )
    _add(group, "waivers", metavar="FILE", help="TOML file of accepted failures: id, reason, owner, expires")


def _add(group: pytest.OptionGroup, name: str, **settings: object) -> None:
    settings.setdefault("default", None)
    group.addoption(f"{PREFIX}-{name}", **settings)


def read(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this run.

    Raises:
        pytest.UsageError: an option cannot work; the sentence names it.
    """
    target = _target(str(options.mcp_target))
    host = urlsplit(target).hostname or ""
    authorized = frozenset(_consented(text) for text in options.mcp_conformance_authorized)
    if not is_loopback(host) and host not in authorized:
        raise pytest.UsageError(
            f"{host} is not a loopback address, and testing it needs its owner's permission: "
            f'if you have it, add {PREFIX}-authorized="{CONSENT}{host}"'
        )
    rate = options.mcp_conformance_rate
    if rate is not None and not rate > 0:
        raise pytest.UsageError(f"{PREFIX}-rate must be more than 0 requests per second, not {rate:g}")
    if options.mcp_conformance_max_requests < 1:
        raise pytest.UsageError(f"{PREFIX}-max-requests must be at least 1, not {options.mcp_conformance_max_requests}")
    return Settings(
        target=target,
        login=LoginMode(options.mcp_conformance_login),
        profile=Profile(options.mcp_conformance_profile),
        seed=options.mcp_conformance_seed,
        max_requests=options.mcp_conformance_max_requests,
        requests_per_second=rate or (float("inf") if is_loopback(host) else REMOTE_REQUESTS_PER_SECOND),
        revision=options.mcp_conformance_revision or "",
        only=_selection(options.mcp_conformance_only),
        authorized_hosts=authorized,
        report=_path(options.mcp_conformance_report),
        waivers=_existing(options.mcp_conformance_waivers, "waivers"),
        token_files=_token_files(options),
        token_commands={who: text for who, text in _sources(options, "token_command") if text},
        mint_command=options.mcp_conformance_mint_command or "",
        declarations=_existing(options.mcp_conformance_declarations, "declarations"),
    )


def is_loopback(host: str) -> bool:
    """Whether `host` (no brackets) names this machine: `localhost`, a name under it, or a loopback address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _target(text: str) -> str:
    try:
        parts = urlsplit(text)
        port_is_sane = parts.port is None or parts.port > 0
    except ValueError as error:
        raise pytest.UsageError(f"--mcp-target is not a URL: {text!r} ({error})") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_sane:
        raise pytest.UsageError(f"--mcp-target must be an http or https URL such as https://host/mcp, not {text!r}")
    if parts.username is not None or parts.fragment or not text.isascii() or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise pytest.UsageError("--mcp-target must be plain ASCII, without user name, password, fragment or spaces")
    return text


def _consented(text: str) -> str:
    if not text.startswith(CONSENT) or not text.removeprefix(CONSENT).strip():
        raise pytest.UsageError(f'{PREFIX}-authorized must read "{CONSENT}HOST", not {text!r}')
    return text.removeprefix(CONSENT).strip().lower()


def _selection(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset()
    words = frozenset(word.strip().upper() for word in text.split(",") if word.strip())
    for word in words:
        if not re.fullmatch(r"[A-Z]+(-\d{3})?", word):
            raise pytest.UsageError(f"{PREFIX}-only takes areas (PRM) and requirement ids (PRM-001), not {word!r}")
    return words


def _sources(options: argparse.Namespace, name: str) -> list[tuple[str, str | None]]:
    return [(who, getattr(options, f"mcp_conformance_{name}{suffix}")) for who, suffix in _SUFFIXES.items()]


_SUFFIXES = {"a": "", "b": "_b", "expired": "_expired", "upstream": "_upstream"}


def _token_files(options: argparse.Namespace) -> dict[str, Path]:
    found = {}
    for who, text in _sources(options, "token_file"):
        path = _existing(text, f"token-file{_SUFFIXES[who].replace('_', '-')}")
        if path is not None:
            found[who] = path
    return found


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _existing(text: str | None, name: str) -> Path | None:
    if text is None:
        return None
    path = Path(text)
    if not path.is_file():
        raise pytest.UsageError(f"{PREFIX}-{name}: there is no file {text!r}")
    return path
