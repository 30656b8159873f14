"""Accepted failures: who accepted which requirement's failure, why, and until when."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_mcp_conformance.options import PREFIX

_MEMBERS = ("id", "reason", "owner", "expires")


@dataclass(frozen=True)
class Waiver:
    """One `[[waiver]]` table. It holds through the whole day `expires`."""

    id: str
    reason: str
    owner: str
    expires: dt.date

    def holds(self, today: dt.date) -> bool:
        return today <= self.expires


def read_waivers(path: Path | None) -> Mapping[str, Waiver]:
    """The waivers of a file, by requirement id.

    Raises:
        pytest.UsageError: the file is not TOML, or a waiver is incomplete.
    """
    if path is None:
        return {}
    where = f"{PREFIX}-waivers: {path}"
    try:
        tables = tomllib.loads(path.read_text("utf-8")).get("waiver", [])
    except (OSError, ValueError) as error:
        raise pytest.UsageError(f"{where} is not TOML: {error}") from None
    if not isinstance(tables, list) or not tables:
        raise pytest.UsageError(f"{where} holds no [[waiver]] table")
    return {waiver.id: waiver for waiver in (_read(table, where) for table in tables)}


def _read(table: object, where: str) -> Waiver:
    if not isinstance(table, dict) or set(table) != set(_MEMBERS):
        raise pytest.UsageError(f"{where}: every waiver has exactly the members {', '.join(_MEMBERS)}")
    texts = {name: table[name] for name in _MEMBERS[:3]}
    for name, value in texts.items():
        if not isinstance(value, str) or not value.strip():
            raise pytest.UsageError(f"{where}: {name} of a waiver must be text")
    expires = table["expires"]
    if not isinstance(expires, dt.date) or isinstance(expires, dt.datetime):
        raise pytest.UsageError(f"{where}: expires of the waiver of {texts['id']} must be a date such as 2027-01-31")
    return Waiver(texts["id"], texts["reason"], texts["owner"], expires)
