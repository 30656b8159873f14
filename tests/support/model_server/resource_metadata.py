"""OAuth 2.0 protected resource metadata (RFC 9728)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.deployment import BASE_SCOPE, MCP_PATH, SSE_PATH, Deployment
from tests.support.model_server.keys import JSON, SigningKey, b64url, compact_json
from tests.support.model_server.proofs import ALGORITHM

WELL_KNOWN = "/.well-known/oauth-protected-resource"
KEYS_PATH = "/keys"
NO_STORE = {"Cache-Control": "no-store"}


class ResourceMetadata:
    """One document for each protected resource, at its path-inserted URL; `/mcp`'s also at the root URL."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._key = SigningKey()
        self._signed: dict[bytes, str] = {}
        self.has = deployment.has

    def link(self, path: str) -> str:
        """Where the document of the resource at `path` is published."""
        suffix = "" if self.has("prm_only_at_the_root") else path
        return f"{self._deployment.base}{WELL_KNOWN}{suffix}"

    def path_of(self, request_path: str) -> str | None:
        """The resource path that a well-known URL speaks of, or None when there is no such document."""
        if self.has("prm_absent") or not request_path.startswith(WELL_KNOWN):
            return None
        suffix = request_path[len(WELL_KNOWN) :]
        if suffix == "":
            return MCP_PATH
        if suffix in {MCP_PATH, SSE_PATH}:
            return None if self.has("prm_only_at_the_root") else suffix
        return suffix if self.has("prm_for_any_path") and suffix.startswith("/") else None

    def serve(self, request: Request, path: str) -> Response:
        """The document of the resource at `path`, readable by anybody and from any origin."""
        if request.method not in {"GET", "HEAD", "OPTIONS"}:
            return JSONResponse({"error": "method_not_allowed"}, 405, headers={"Allow": "GET, HEAD, OPTIONS"})
        sent = request.headers.get("authorization")
        if (self.has("prm_needs_a_token") and sent is None) or (self.has("prm_refuses_a_bad_token") and sent):
            return JSONResponse(
                {"error": "invalid_token"}, 401, headers={"WWW-Authenticate": 'Bearer scope="mcp:tools"'}
            )
        document = self._document(request, path)
        headers = {**NO_STORE, **self._cors(request)}
        if self.has("prm_is_an_array"):
            return JSONResponse([document], headers=headers)
        return JSONResponse(document, headers=headers, media_type="text/plain" if self.has("prm_as_text") else None)

    def _cors(self, request: Request) -> dict[str, str]:
        if self.has("prm_cors_with_credentials"):
            origin = request.headers.get("origin", "*")
            return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
        return {"Access-Control-Allow-Origin": "*"}

    def _document(self, request: Request, path: str) -> JSON:
        has, base = self.has, self._base(request)
        document: JSON = {
            "resource": self._resource(request, base, path),
            "authorization_servers": [base + self._deployment.prefix],
            "scopes_supported": [BASE_SCOPE],
            "bearer_methods_supported": ["header"],
            "resource_name": "Model server",
            "dpop_signing_alg_values_supported": [ALGORITHM],
            "tls_client_certificate_bound_access_tokens": True,
            "dpop_bound_access_tokens_required": has("dpop_required_in_words_only"),
        }
        if has("prm_without_authorization_servers"):
            del document["authorization_servers"]
        if has("prm_issuer_with_query"):
            document["authorization_servers"].append(f"{base}?tenant=1")
        if has("prm_empty_list"):
            document["authorization_details_types_supported"] = []
        if has("prm_advertises_query_tokens"):
            document["bearer_methods_supported"].append("query")
        if has("prm_offers_offline_access"):
            document["scopes_supported"].append("offline_access")
        if has("prm_offers_an_omnibus_scope"):
            document["scopes_supported"].append("mcp:*")
        if has("prm_copies_disagree") and request.scope["path"] == WELL_KNOWN:
            document["scopes_supported"].append("mcp:admin")
        self._sign(document)
        return document

    def _sign(self, document: JSON) -> None:
        """Name the resource's keys and put a signed copy of the members beside them (RFC 9728 §2.2)."""
        has = self.has
        keys = f"{self._deployment.base}{KEYS_PATH}"
        document["jwks_uri"] = "http://keys.example/jwks" if has("prm_cleartext_keys") else keys
        document["resource_signing_alg_values_supported"] = ["none" if has("prm_signing_alg_none") else "ES256"]
        claims = {"iss": document["resource"], **document}
        if has("prm_signed_metadata_disagrees"):
            claims["authorization_servers"] = ["https://as.example"]
        if has("prm_signed_metadata_unsigned"):
            del claims["iss"]
            document["signed_metadata"] = f"{b64url(compact_json({'alg': 'none'}))}.{b64url(compact_json(claims))}."
            return
        payload = compact_json(claims)
        if payload not in self._signed:
            key = SigningKey() if has("prm_signed_by_a_stranger") else self._key
            header = compact_json({"alg": "ES256", "kid": self._key.kid})
            self._signed[payload] = key.compact(header, payload)
        document["signed_metadata"] = self._signed[payload]

    def keys(self) -> Response:
        """The keys that the resource signs with."""
        return JSONResponse({"keys": [self._key.jwk]}, headers=NO_STORE)

    def _resource(self, request: Request, base: str, path: str) -> str:
        has, resource = self.has, base + path
        if has("prm_names_another_resource") and request.scope["path"] != WELL_KNOWN:
            return base + SSE_PATH
        if has("prm_resource_trailing_slash") or has("as_knows_only_a_trailing_slash"):
            return resource + ("/" if has("prm_resource_trailing_slash") else "")
        if has("prm_resource_with_fragment"):
            return f"{resource}#tools"
        return path if has("prm_resource_relative") else resource

    def _base(self, request: Request) -> str:
        if self.has("prm_follows_host"):
            return f"http://{request.headers.get('host', '')}"
        host = request.headers.get("x-forwarded-host")
        return f"http://{host}" if host and self.has("prm_follows_forwarded_host") else self._deployment.base
