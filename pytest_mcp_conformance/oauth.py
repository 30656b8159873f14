"""The authorization server behind the target, driven as a client would, with every parameter open to a check.

A parameter override of None leaves the parameter out; a list repeats it.
"""

from __future__ import annotations

import base64
import json
import secrets as randomness
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from pytest_mcp_conformance.browser import Browser, Walk
from pytest_mcp_conformance.credentials import Credential, remember
from pytest_mcp_conformance.discovery import Document
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.failures import Inconclusive, NotApplicable, NotRun
from pytest_mcp_conformance.grants import (
    REDIRECT_URI,
    AuthorizationOutcome,
    Grant,
    Override,
    Pkce,
    Registration,
    Tokens,
    encode_form,
    fresh_pkce,
    s256,
)
from pytest_mcp_conformance.login import Login
from pytest_mcp_conformance.probe import Probe

__all__ = [
    "REDIRECT_URI",
    "AuthorizationOutcome",
    "AuthorizationServer",
    "Grant",
    "Override",
    "Pkce",
    "Registration",
    "Tokens",
    "encode_form",
    "fresh_pkce",
    "s256",
]


class AuthorizationServer:
    """One issuer. Nothing but its metadata is asked of a host the operator did not authorize."""

    def __init__(self, document: Document, issuer: str, resource: str, probe: Probe, login: Login) -> None:
        self.document = document
        self.issuer = issuer
        self.resource = resource
        self.metadata: Mapping[str, Any] = document.members
        self.codes_survive: bool | None = None  # whether a failed attempt leaves a code good; None until a check knows
        self._probe = probe
        self._login = login
        self._registered: list[Registration] = []

    def endpoint(self, name: str) -> str:
        """The URL of `authorization_endpoint`, `token_endpoint`, ….

        Raises:
            NotApplicable: the metadata does not name it. NotRun: it is on a host the operator did not authorize.
        """
        self._probe.cite(self.document.exchange)
        url = self.metadata.get(name)
        if not isinstance(url, str) or not url:
            raise NotApplicable(f"the authorization server names no {name}")
        host = urlsplit(url).hostname or ""
        if not self._probe.egress.is_authorized(host):
            raise NotRun(
                f'{name} is at {host}: testing it needs --mcp-conformance-authorized="I am authorized to test {host}"'
            )
        return url

    # ------------------------------------------------------------------------------------------------- registration

    def register(self, **overrides: object) -> Registration:
        """Register a public client for the code grant; `overrides` are members of the request, None leaves one out.

        Raises:
            NotApplicable: there is no registration endpoint. Inconclusive: registration was refused.
        """
        exchange = self.try_register(**overrides)
        members = exchange.json()
        if exchange.status not in {200, 201} or not isinstance(members, dict) or not members.get("client_id"):
            raise Inconclusive(f"no client could be registered: {exchange.summary}")
        return self.registration_from(exchange)

    def try_register(self, **overrides: object) -> Exchange:
        """The registration request as it is answered, whatever the answer.

        A client that comes of it is cleaned up later.
        """
        wanted: dict[str, object] = {
            "client_name": "conformance check",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "application_type": "native",
        }
        wanted.update(overrides)
        body = json.dumps({name: value for name, value in wanted.items() if value is not None}).encode()
        headers: tuple[Header, ...] = (("Content-Type", "application/json"), ("Accept", "application/json"))
        exchange = self._probe.send(Request("POST", self.endpoint("registration_endpoint"), headers, body))
        if exchange.succeeded and isinstance(exchange.json(), dict):
            self._registered.append(self.registration_from(exchange))
        return exchange

    def registration_from(self, exchange: Exchange) -> Registration:
        """The client in a registration response (RFC 7591 §3.2.1)."""
        members = exchange.json()
        secret = str(members.get("client_secret") or "")
        for name in ("client_secret", "registration_access_token"):
            if isinstance(members.get(name), str):
                self._probe.secrets.add(members[name], name.upper())
        uris = members.get("redirect_uris")
        uri = uris[0] if isinstance(uris, list) and uris and isinstance(uris[0], str) else REDIRECT_URI
        return Registration(str(members.get("client_id", "")), secret, uri, members, exchange)

    @cached_property
    def client(self) -> Registration:
        """One registered public client for the checks that do not care which."""
        return self.register()

    # ------------------------------------------------------------------------------------------------ authorization

    def authorization_url(self, registration: Registration, pkce: Pkce, **overrides: Override) -> str:
        """The URL a client sends the browser to, S256, `resource` and `state` included."""
        endpoint = self.endpoint("authorization_endpoint")
        parameters: dict[str, Override] = {
            "response_type": "code",
            "client_id": registration.client_id,
            "redirect_uri": registration.redirect_uri,
            "code_challenge": pkce.challenge,
            "code_challenge_method": "S256",
            "resource": self.resource,
            "state": randomness.token_urlsafe(12),
        }
        parameters.update(overrides)
        return endpoint + ("&" if "?" in endpoint else "?") + encode_form(parameters)

    def authorize(
        self,
        registration: Registration | None = None,
        *,
        user: str = "a",
        pkce: Pkce | None = None,
        browser: Browser | None = None,
        lands_at: str | None = None,
        **overrides: Override,
    ) -> AuthorizationOutcome:
        """Send an authorization request and log in and consent as `user` where asked.

        `overrides` replace parameters. `lands_at` is the URI that counts as the client's, when it is not the
        registered one.

        Raises:
            NotRun: the run has no login that can be repeated.
        """
        client, pair = registration or self.client, pkce or fresh_pkce()
        self._probe.secrets.add(pair.verifier, "VERIFIER")
        url = self.authorization_url(client, pair, **overrides)
        return self._walk(url, lands_at or client.redirect_uri, user, browser)

    def _walk(self, url: str, redirect_uri: str, user: str, browser: Browser | None = None) -> AuthorizationOutcome:
        return self._outcome(self._login.walk(url, redirect_uri, user=user, browser=browser))

    def grant(
        self,
        registration: Registration | None = None,
        *,
        user: str = "a",
        pkce: Pkce | None = None,
        **overrides: Override,
    ) -> Grant:
        """An authorization code by the regular way.

        Raises:
            NotRun: the run has no login that can be repeated. Inconclusive: no code came back.
        """
        client, pair = registration or self.client, pkce or fresh_pkce()
        self._probe.secrets.add(pair.verifier, "VERIFIER")
        outcome = self._walk(self.authorization_url(client, pair, **overrides), client.redirect_uri, user)
        if not outcome.code:
            raise Inconclusive(f"no authorization code could be obtained: {outcome.summary}")
        resource = overrides.get("resource", self.resource)
        return Grant(outcome.code, pair, client, resource if isinstance(resource, str) else "", outcome)

    def _outcome(self, walk: Walk) -> AuthorizationOutcome:
        parts = urlsplit(walk.landed)
        answer: dict[str, list[str]] = {}
        for name, value in [*parse_qsl(parts.query, True), *parse_qsl(parts.fragment, True)]:
            answer.setdefault(name, []).append(value)
        for name in ("code", "access_token", "id_token"):
            for value in answer.get(name, ()):
                self._probe.secrets.add(value, name.upper())
        return AuthorizationOutcome(walk, answer)

    # ------------------------------------------------------------------------------------------------------- tokens

    def token(self, fields: Mapping[str, Override], *headers: Header, at: str = "token_endpoint") -> Exchange:
        """POST a form to the token endpoint, or the one named by `at`; no token in the answer is ever shown."""
        merged: tuple[Header, ...] = (
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
        )
        request = Request("POST", self.endpoint(at), merged, encode_form(fields).encode())
        exchange = self._probe.send(request.with_headers(*headers) if headers else request)
        members = exchange.json()
        for name in ("access_token", "refresh_token", "id_token"):
            if isinstance(members, dict) and isinstance(members.get(name), str):
                self._probe.secrets.add(members[name], name.upper())
        return exchange

    def redeem(self, grant: Grant, *headers: Header, **overrides: Override) -> Exchange:
        """Redeem a code as its client does; `overrides` replace form fields. Any answer is handed back."""
        fields: dict[str, Override] = {
            "grant_type": "authorization_code",
            "code": grant.code,
            "redirect_uri": grant.registration.redirect_uri,
            "code_verifier": grant.pkce.verifier,
            "resource": grant.resource or None,
        }
        return self.as_client(grant.registration, {**fields, **overrides}, *headers)

    def refresh(self, tokens: Tokens, *headers: Header, **overrides: Override) -> Exchange:
        """Spend a refresh token; any answer is handed back."""
        fields: dict[str, Override] = {
            "grant_type": "refresh_token",
            "refresh_token": tokens.refresh_token,
            "resource": self.resource,
        }
        return self.as_client(tokens.registration, {**fields, **overrides}, *headers)

    def as_client(
        self, registration: Registration, fields: Mapping[str, Override], *headers: Header, at: str = "token_endpoint"
    ) -> Exchange:
        """As `token`, with the client's own authentication (none, basic or post)."""
        if not registration.client_secret:
            return self.token({"client_id": registration.client_id, **fields}, *headers, at=at)
        if registration.members.get("token_endpoint_auth_method") == "client_secret_post":
            secret = {"client_id": registration.client_id, "client_secret": registration.client_secret}
            return self.token({**secret, **fields}, *headers, at=at)
        pair = f"{quote(registration.client_id, safe='')}:{quote(registration.client_secret, safe='')}"
        encoded = base64.b64encode(pair.encode()).decode()
        self._probe.secrets.add(encoded, "CLIENT_BASIC")
        return self.token(fields, ("Authorization", f"Basic {encoded}"), *headers, at=at)

    def tokens(self, grant: Grant | None = None, *, user: str = "a") -> Tokens:
        """The tokens of a grant, or of a fresh one for `user`.

        Raises:
            NotRun, Inconclusive: as `grant`; or the code could not be redeemed.
        """
        held = grant or self.grant(user=user)
        return self.tokens_from(self.redeem(held), held.registration)

    def tokens_from(self, exchange: Exchange, registration: Registration) -> Tokens:
        """Raises: Inconclusive when the answer is no successful token response."""
        members = exchange.json()
        if exchange.status != 200 or not isinstance(members, dict) or not isinstance(members.get("access_token"), str):
            raise Inconclusive(f"no token could be obtained: {exchange.summary}")
        return Tokens(members["access_token"], str(members.get("refresh_token") or ""), members, exchange, registration)

    def credential(self, user: str) -> Credential:
        """An access token for `user`, kept from being shown; a person is asked when the run logs in that way.

        Raises:
            NotRun, Inconclusive: as `tokens`.
        """
        missing = self._login.missing(user)
        if missing:
            raise NotRun(missing)
        tokens = self.tokens(user=user) if self._login.repeatable else self.tokens(self._ask_person())
        return remember(Credential(user, tokens.access_token), self._probe.secrets)

    def _ask_person(self) -> Grant:
        with self._login.person() as person:
            client, pkce = self.register(redirect_uris=[person.redirect_uri]), fresh_pkce()
            outcome = self._outcome(person.walk(self.authorization_url(client, pkce)))
        if not outcome.code:
            raise Inconclusive(f"the login gave no authorization code (error={outcome.error or 'none'})")
        return Grant(outcome.code, pkce, client, self.resource, outcome)

    def close(self) -> None:
        """Delete the clients the run registered, where the server offers it (RFC 7592 §2.3) and the budget allows."""
        for registration in self._registered[: self._probe.requests_left]:
            uri, token = (registration.members.get(f"registration_{name}") for name in ("client_uri", "access_token"))
            if isinstance(uri, str) and isinstance(token, str) and not self._probe.refusal(uri):
                request = Request("DELETE", uri, (("Authorization", f"Bearer {token}"),))
                self._probe.send(request, heed_limits=False)
        self._registered.clear()
