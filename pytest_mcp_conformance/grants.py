"""What an authorization flow is made of: verifiers, clients, outcomes, codes, tokens. Values only; sends nothing."""

from __future__ import annotations

import base64
import hashlib
import secrets as randomness
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from pytest_mcp_conformance.browser import Walk
from pytest_mcp_conformance.exchange import Exchange

Override = str | None | Sequence[str]
REDIRECT_URI = "http://127.0.0.1:33418/callback"


@dataclass(frozen=True, repr=False)
class Pkce:
    """A verifier and its S256 challenge (RFC 7636 §4.1, §4.2)."""

    verifier: str

    @property
    def challenge(self) -> str:
        return s256(self.verifier)


def fresh_pkce() -> Pkce:
    return Pkce(randomness.token_urlsafe(48))


def s256(verifier: str) -> str:
    """RFC 7636 §4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@dataclass(frozen=True, repr=False)
class Registration:
    """A registered client.

    `exchange` is the answer of the registration endpoint, None for a client given to the run.
    """

    client_id: str
    client_secret: str = ""
    redirect_uri: str = REDIRECT_URI
    members: Mapping[str, Any] = field(default_factory=dict)
    exchange: Exchange | None = None


@dataclass(frozen=True, repr=False)
class AuthorizationOutcome:
    """How an authorization request ended: back at the redirect URI with `answer`, or on a page of the server
    (`answer` empty).
    """

    walk: Walk
    answer: Mapping[str, list[str]]

    @property
    def redirected(self) -> bool:
        return bool(self.walk.landed)

    @property
    def exchange(self) -> Exchange:
        """The last one: the redirect, or the page."""
        return self.walk.last

    def value(self, name: str) -> str:
        """The first value of an answer parameter; empty when absent."""
        return (self.answer.get(name) or [""])[0]

    @property
    def code(self) -> str:
        return self.value("code")

    @property
    def error(self) -> str:
        return self.value("error")

    @property
    def summary(self) -> str:
        """What happened, for a person; holds no code."""
        if self.redirected:
            return "a redirect back with " + (
                f"error={self.error}" if self.error else "a code" if self.code else "no code"
            )
        return f"a page of the authorization server ({self.exchange.summary})"


@dataclass(frozen=True, repr=False)
class Grant:
    """An authorization code with everything its redemption needs."""

    code: str
    pkce: Pkce
    registration: Registration
    resource: str
    outcome: AuthorizationOutcome


@dataclass(frozen=True, repr=False)
class Tokens:
    """A successful token response."""

    access_token: str
    refresh_token: str
    members: Mapping[str, Any]
    exchange: Exchange
    registration: Registration


def encode_form(fields: Mapping[str, Override]) -> str:
    """`application/x-www-form-urlencoded`; None leaves a field out, a sequence repeats it."""
    pairs: list[tuple[str, str]] = []
    for name, value in fields.items():
        if isinstance(value, str):
            pairs.append((name, value))
        elif value is not None:
            pairs.extend((name, one) for one in value)
    return urlencode(pairs)
