"""Access tokens (RFC 9068), right ones for the token endpoint and wrong ones on request for a certifier."""

from __future__ import annotations

import secrets
from typing import Any

from tests.support.model_server.deployment import (
    ACCESS_TOKEN_SECONDS,
    BASE_SCOPE,
    MCP_PATH,
    UPSTREAM_ISSUER,
    Deployment,
)
from tests.support.model_server.keys import JSON, SigningKey, b64url, compact_json

MINTING_CLIENT = "minting-client"


class Minter:
    """Signs with the deployment's key, or with a key nobody trusts."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._stranger = SigningKey()

    def header(self) -> JSON:
        has, key = self._deployment.has, self._deployment.key
        return {"alg": "ES256", "typ": "JWT" if has("tokens_typed_jwt") else "at+jwt", "kid": key.kid}

    def claims(self, subject: str, client_id: str, resource: str, scope: str) -> JSON:
        """The claims of an access token issued now (RFC 9068 §2.2)."""
        has, now = self._deployment.has, int(self._deployment.clock())
        audience = self._deployment.issuer if has("tokens_for_the_issuer") else resource
        lifetime = 24 * 3600 if has("day_long_tokens") or has("lifetime_untold") else ACCESS_TOKEN_SECONDS
        claims: JSON = {
            "iss": self._deployment.issuer,
            "sub": subject,
            "aud": audience,
            "client_id": client_id,
            "scope": scope,
            "iat": now,
            "exp": now + lifetime,
            "jti": secrets.token_urlsafe(18),
        }
        if has("tokens_without_jti"):
            del claims["jti"]
        if has("tokens_without_client_id"):
            del claims["client_id"]
        return claims

    def sign(self, header: JSON, claims: JSON) -> str:
        return self._deployment.key.compact(compact_json(header), compact_json(claims))

    def mint(
        self,
        *,
        subject: str = "alice",
        client_id: str = MINTING_CLIENT,
        scope: str = BASE_SCOPE,
        header: JSON | None = None,
        claims: JSON | None = None,
        raw_header: str | None = None,
        raw_claims: str | None = None,
        trusted_key: bool = True,
    ) -> str:
        """A signed JWT for `/mcp`, with members replaced (or, when None, removed) as asked.

        Args:
            header: JOSE header members to set; a value of None removes the member.
            claims: claims to set; a value of None removes the claim.
            raw_header: the exact text of the header, instead of `header`.
            raw_claims: the exact text of the payload, instead of `claims`.
            trusted_key: False signs with a key that the resource server does not know.
        """
        resource = self._deployment.resources[MCP_PATH]
        head = _replaced(self.header(), header)
        body = _replaced(self.claims(subject, client_id, resource, scope), claims)
        key = self._deployment.key if trusted_key else self._stranger
        return key.compact(
            compact_json(head) if raw_header is None else raw_header.encode("utf-8"),
            compact_json(body) if raw_claims is None else raw_claims.encode("utf-8"),
        )

    def upstream(self, subject: str = "alice") -> str:
        """A genuine access token of the service behind this one, which means nothing here."""
        key = self._deployment.upstream_key
        claims = self.claims(subject, "this-server", "https://upstream.example/api", BASE_SCOPE)
        header = {**self.header(), "kid": key.kid}
        return key.compact(compact_json(header), compact_json({**claims, "iss": UPSTREAM_ISSUER}))

    def signed(self, signing_input: str) -> str:
        """This text with the deployment's signature over it: a token of exactly these parts (RFC 7515 §5.1)."""
        return f"{signing_input}.{b64url(self._deployment.key.sign(signing_input.encode('ascii')))}"


def _replaced(members: JSON, changes: dict[str, Any] | None) -> JSON:
    merged = {**members, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}
