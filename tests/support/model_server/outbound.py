"""The only way out of this server: bounded requests to loopback."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

FETCH_SECONDS = 1.0
FETCH_BYTES = 65536


def fetch_on_loopback(url: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The first bytes of what an http URL on loopback answers.

    Raises:
        ValueError: the URL is elsewhere. OSError: no answer, or none that is a success.
    """
    if urlsplit(url).scheme != "http" or urlsplit(url).hostname not in {"127.0.0.1", "localhost", "::1"}:
        raise ValueError("not on loopback")
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - the scheme was checked
    with urllib.request.urlopen(request, timeout=FETCH_SECONDS) as answer:  # noqa: S310
        body: bytes = answer.read(FETCH_BYTES)
    return body
