"""Authorization server metadata (RFC 8414) and the key set (RFC 7517)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.deployment import SCOPES, Deployment
from tests.support.model_server.keys import JSON, SigningKey, b64url
from tests.support.model_server.proofs import ALGORITHM

OAUTH_FORM = "/.well-known/oauth-authorization-server"
OPENID_FORM = "/.well-known/openid-configuration"
ENDPOINTS = {
    "authorization_endpoint": "/authorize",
    "token_endpoint": "/token",
    "registration_endpoint": "/register",
    "revocation_endpoint": "/revoke",
    "introspection_endpoint": "/introspect",
    "jwks_uri": "/jwks",
}


class ServerMetadata:
    """The document that clients discover, and the public keys."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.has = deployment.has

    def answers(self, path: str) -> bool:
        """Whether this path is one of the document's well-known URLs."""
        has, prefix = self.has, self._deployment.prefix
        if has("asm_absent"):
            return False
        if path == OPENID_FORM + prefix:
            return has("asm_openid_only") or has("asm_copies_disagree")
        return path == OAUTH_FORM + prefix and not has("asm_openid_only")

    def serve(self, request: Request) -> Response:
        document = self._document(request)
        if request.scope["path"].startswith(OPENID_FORM):
            document |= {"subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"]}
            if self.has("asm_copies_disagree"):
                document["token_endpoint"] += "/v2"
        kind = "text/plain" if self.has("asm_as_text") else None
        headers = {"Cache-Control": "no-store", "Access-Control-Allow-Origin": "*"}
        return JSONResponse(document, headers=headers, media_type=kind)

    def _base(self, request: Request) -> str:
        has, base = self.has, self._deployment.base
        if has("asm_follows_host"):
            return f"http://{request.headers.get('host', '')}"
        host, scheme = request.headers.get("x-forwarded-host"), request.headers.get("x-forwarded-proto")
        if host and has("asm_follows_forwarded_host"):
            return f"http://{host}"
        return base.replace("http://", f"{scheme}://", 1) if scheme and has("asm_follows_forwarded_proto") else base

    def _document(self, request: Request) -> JSON:
        base = self._base(request) + self._deployment.prefix
        document: JSON = {
            "issuer": self._deployment.issuer,
            **{member: base + path for member, path in ENDPOINTS.items()},
            "scopes_supported": list(SCOPES),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
            "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
            "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
            "code_challenge_methods_supported": ["S256"],
            "dpop_signing_alg_values_supported": [ALGORITHM],
            "authorization_response_iss_parameter_supported": True,
            "client_id_metadata_document_supported": True,
            "protected_resources": sorted(self._deployment.resources.values()),
        }
        self._leave_out(document)
        self._spoil(document)
        return document

    def _leave_out(self, document: JSON) -> None:
        for fault, member in (
            ("asm_without_token_endpoint", "token_endpoint"),
            ("asm_without_response_types", "response_types_supported"),
            ("asm_omits_grant_types", "grant_types_supported"),
            ("asm_omits_public_clients", "token_endpoint_auth_methods_supported"),
            ("iss_neither_promised_nor_sent", "authorization_response_iss_parameter_supported"),
            ("iss_sent_but_not_promised", "authorization_response_iss_parameter_supported"),
            ("client_documents_unadvertised", "client_id_metadata_document_supported"),
            ("registration_unadvertised", "registration_endpoint"),
            ("pkce_unadvertised", "code_challenge_methods_supported"),
        ):
            if self.has(fault):
                del document[member]

    def _spoil(self, document: JSON) -> None:
        for fault, member, value in (
            ("asm_issuer_trailing_slash", "issuer", f"{document['issuer']}/"),
            ("asm_issuer_upper_case", "issuer", document["issuer"].replace("http", "HTTP", 1)),
            ("asm_empty_list", "ui_locales_supported", []),
            ("asm_endpoint_with_fragment", "authorization_endpoint", f"{document['authorization_endpoint']}#login"),
            ("asm_cleartext_endpoint", "revocation_endpoint", "http://as.example/revoke"),
            ("asm_omits_the_resource", "protected_resources", ["https://other.example/mcp"]),
            ("pkce_only_plain_advertised", "code_challenge_methods_supported", ["plain"]),
        ):
            if self.has(fault):
                document[member] = value
        for fault, member, extra in (
            ("asm_offers_implicit", "response_types_supported", "token"),
            ("dpop_offers_hs256", "dpop_signing_alg_values_supported", "HS256"),
            ("asm_offers_password", "grant_types_supported", "password"),
            ("clients_choose_their_id", "grant_types_supported", "client_credentials"),
            ("asm_jwt_client_auth_without_algs", "token_endpoint_auth_methods_supported", "private_key_jwt"),
        ):
            if self.has(fault):
                document[member].append(extra)

    def keys(self) -> Response:
        """The key set: the one public key that tokens are signed with."""
        has, keys = self.has, [self._deployment.key.jwk]
        if has("jwks_with_private_member"):
            keys[0]["d"] = self._deployment.key.private_member
        if has("jwks_with_symmetric_key"):
            keys.append({"kty": "oct", "k": b64url(bytes(32)), "alg": "HS256", "kid": "shared"})
        if has("jwks_with_repeated_kid"):
            keys.append({**SigningKey().jwk, "kid": keys[0]["kid"]})
        if has("jwks_with_short_rsa"):
            keys.append(_short_rsa())
        return JSONResponse({"keys": keys}, headers={"Access-Control-Allow-Origin": "*"})


def _short_rsa() -> JSON:
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()  # noqa: S505
    modulus = numbers.n.to_bytes(128, "big")
    return {"kty": "RSA", "n": b64url(modulus), "e": "AQAB", "alg": "RS256", "use": "sig", "kid": "short"}
