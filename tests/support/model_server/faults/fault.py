"""What a fault is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Endpoint = Literal["/mcp", "/sse"]


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a server.

    `name` turns it on, `requirement` is the catalogue id it violates, `sentence` says what the server does,
    and `endpoint` is where it shows.
    """

    name: str
    requirement: str
    sentence: str
    endpoint: Endpoint = "/mcp"
