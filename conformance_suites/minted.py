"""Tokens made to order after a live one: by the operator's minting command, or by a grant of other scopes."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Collection, Mapping
from typing import Any

from pytest_mcp_conformance import NotApplicable, NotRun
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.forge.jws import Jws, read_jws
from pytest_mcp_conformance.minting import Mint
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.target import Target


class Orders:
    """Mints variations of a live token. Every token it makes is as good as that one but for what was asked."""

    def __init__(self, mint: Mint, pattern: Credential) -> None:
        """Raises: NotRun when the run cannot mint, or access tokens are no JWTs."""
        if not mint.available:
            mint.token({}, {})
        jws = read_jws(pattern.token)
        if jws is None:
            raise NotRun("access tokens are opaque, so there is no pattern to mint by")
        self.pattern: Jws = jws
        self._mint = mint

    def text(
        self,
        claims: Mapping[str, Any] | None = None,
        *,
        header: Mapping[str, Any] | None = None,
        without: Collection[str] = (),
    ) -> str:
        """A token with claims or header members replaced, and those named in `without` left out of both.

        Raises:
            NotRun, Inconclusive: as `Mint.token`.
        """
        merged = {**self.pattern.claims, **(claims or {})}
        if "jti" in merged and "jti" not in (claims or {}):
            merged["jti"] = randomness.token_urlsafe(18)
        head = {**self.pattern.header, **(header or {})}
        return self._mint.token(_but(head, without), _but(merged, without))

    def exact(self, header: Mapping[str, Any] | bytes, claims: Mapping[str, Any] | bytes) -> str:
        """A token of exactly these parts."""
        return self._mint.token(header, claims)

    def good(self) -> Credential:
        """A minted token without a fault: the control of every batch of faulty ones."""
        return Credential("a", self.text())


def _but(members: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in names}


def held_scopes(credential: Credential) -> frozenset[str]:
    """The scopes a JWT says it holds; empty when it does not say."""
    jws = read_jws(credential.token)
    scope = "" if jws is None else jws.claims.get("scope", "")
    return frozenset(scope.split()) if isinstance(scope, str) else frozenset()


def challenged_scopes(target: Target) -> frozenset[str]:
    """The scopes that the first challenge asks for."""
    challenge = target.require_protected().bearer()
    return frozenset("" if challenge is None else challenge.parameters.get("scope", "").split())


def offered_scopes(target: Target, server: AuthorizationServer | None = None) -> frozenset[str]:
    """The scopes that the metadata of the resource, and of its authorization server, list."""
    documents = [target.discovery.resource_document().members, {} if server is None else server.metadata]
    lists = [members.get("scopes_supported") for members in documents]
    return frozenset(scope for found in lists if isinstance(found, list) for scope in found if isinstance(scope, str))


def scopes_not_asked(bench: Bench) -> list[str]:
    """One scope that the first challenge does not ask for; none when a token without any can be minted.

    Raises:
        NotRun: the challenge names no scopes, or there are no others.
    """
    asked = challenged_scopes(bench.target)
    if not asked:
        raise NotRun("the first challenge names no scopes, so which are needed is unknown")
    if bench.mint.available:
        return []
    try:
        others = sorted(offered_scopes(bench.target, bench.authorization_server()) - asked)
    except NotApplicable as judgement:
        raise NotRun(f"no token of other scopes can be had: {judgement.reason}") from None
    if not others:
        raise NotRun("there are no scopes but those that everything needs: nothing is beyond a token's scopes")
    return others[:1]


def with_scopes(bench: Bench, pattern: Credential, scopes: Collection[str]) -> Credential:
    """A token of user A that holds exactly these scopes: minted after `pattern`, else granted.

    Raises:
        NotRun: neither is possible, or the authorization server grants other scopes.
    """
    jws = read_jws(pattern.token)
    text = " ".join(sorted(scopes))
    if bench.mint.available and jws is not None and "scope" in jws.claims:
        return Credential("a", Orders(bench.mint, pattern).text({"scope": text}))
    if not scopes:
        raise NotRun("no token without scopes can be had: it takes a minting command")
    try:
        server = bench.authorization_server()
    except NotApplicable as judgement:
        raise NotRun(f"no token of chosen scopes can be had: {judgement.reason}") from None
    tokens = server.tokens(server.grant(scope=text))
    granted = tokens.members.get("scope", text)
    if not isinstance(granted, str) or set(granted.split()) != set(scopes):
        raise NotRun(f"a token of the scope {text!r} was asked for, and another was granted")
    return Credential("a", tokens.access_token)
