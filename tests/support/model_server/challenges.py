"""WWW-Authenticate challenges (RFC 6750 §3, RFC 9728 §5.1) and the HTTP answer to a refusal."""

from __future__ import annotations

import itertools
import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.deployment import BASE_SCOPE, SCOPES, SSE_PATH, Deployment
from tests.support.model_server.possession import comes_with_a_proof
from tests.support.model_server.principal import Refused
from tests.support.model_server.proofs import ALGORITHM
from tests.support.model_server.resource_metadata import ResourceMetadata

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class Challenges:
    """Builds the answer to a request that was refused for its credentials."""

    def __init__(self, deployment: Deployment, metadata: ResourceMetadata) -> None:
        self._deployment = deployment
        self._metadata = metadata
        self._turns = itertools.count()
        self.has = deployment.has

    def answer(self, request: Request, path: str, refusal: Refused) -> Response:
        """The refusal as a status, a challenge for the resource at `path`, and a body that says why."""
        has, status = self.has, refusal.status
        if status == 401 and refusal.slug and has("bad_token_is_403"):
            status = 403
        if refusal.nonce and has("nonce_challenge_is_400"):
            status = 400
        if status == 403 and has("missing_scope_is_401"):
            return self._respond(401, self._challenge(request, path, Refused(401, "invalid_token", "refused")), refusal)
        if (status == 403 and has("missing_scope_is_200")) or (
            status == 401 and refusal.slug and has("bad_token_is_200")
        ):
            error = {"code": -32001, "message": refusal.reason}
            return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error})
        bare = has("bare_401_for_bad_tokens") if refusal.slug else has("bare_401")
        if status == 401 and bare:
            return JSONResponse({"error": refusal.slug}, 401)
        response = self._respond(status, self._challenge(request, path, self._of_bearer(request, refusal)), refusal)
        self._add_dpop(request, path, refusal, response)
        return response

    def _of_bearer(self, request: Request, refusal: Refused) -> Refused:
        """What the Bearer challenge says of a refusal: nothing, when the client used the other scheme."""
        alike = self.has("error_in_both_challenges") or self.has("bad_proof_challenged_as_bearer")
        other = comes_with_a_proof(request) and not alike
        return Refused(refusal.status, "", refusal.reason, refusal.scopes) if other else refusal

    def _add_dpop(self, request: Request, path: str, refusal: Refused, response: Response) -> None:
        """The challenge of the DPoP scheme (RFC 9449 §7.1), with the error when the client used it."""
        has, used = self.has, comes_with_a_proof(request)
        if refusal.nonce:
            response.headers["DPoP-Nonce"] = refusal.nonce
        if used and has("bad_proof_challenged_as_bearer"):
            return
        parameters = [] if has("dpop_challenge_without_algs") else [("algs", ALGORITHM)]
        if refusal.slug and (used or has("error_in_both_challenges")):
            parameters += [("error", refusal.slug), ("error_description", refusal.reason)]
        if link := self._link(request, path, refusal):
            parameters.append(("resource_metadata", link))
        response.headers.append(
            "WWW-Authenticate", "DPoP " + ", ".join(f'{name}="{text}"' for name, text in parameters)
        )

    def _respond(self, status: int, challenge: str, refusal: Refused) -> Response:
        body = {"error": refusal.slug or "unauthorized", "error_description": refusal.reason}
        if self.has("token_echoed_in_body"):
            body["error_description"] = f"{refusal.reason}: {refusal.credentials}"
        return JSONResponse(body, status, headers={"WWW-Authenticate": challenge})

    def _challenge(self, request: Request, path: str, refusal: Refused) -> str:
        has = self.has
        if has("challenge_scheme_alone"):
            return "Bearer"
        parameters: list[tuple[str, str]] = []
        if slug := self._slug(refusal):
            parameters += [("error", slug), ("error_description", self._description(refusal))]
        if link := self._link(request, path, refusal):
            parameters.append(("resource_metadata", link))
        if scope := self._scope(refusal):
            parameters.append(("scope", scope))
            if has("challenge_repeats_a_parameter"):
                parameters.append(("scope", scope))
        quote = "" if has("challenge_unquoted") else '"'
        return "Bearer " + ", ".join(f"{name}={quote}{value}{quote}" for name, value in parameters)

    def _slug(self, refusal: Refused) -> str:
        has = self.has
        if not refusal.slug:
            return "invalid_token" if has("error_without_credentials") else ""
        if refusal.status == 401 and has("bad_token_without_error"):
            return ""
        return "" if refusal.status == 403 and has("missing_scope_without_error") else refusal.slug

    def _description(self, refusal: Refused) -> str:
        if self.has("challenge_echoes_the_token"):
            return _UNPRINTABLE.sub("", refusal.credentials or refusal.reason)
        return f"{refusal.reason} \\u2014" if self.has("challenge_outside_alphabet") else refusal.reason

    def _link(self, request: Request, path: str, refusal: Refused) -> str:
        has = self.has
        if has("challenge_without_resource_metadata") and refusal.status == 401:
            return ""
        if has("scope_challenge_without_link") and refusal.status == 403:
            return ""
        if has("prm_link_dead"):
            return f"{self._deployment.base}/.well-known/oauth-protected-resource/elsewhere"
        link = self._metadata.link(SSE_PATH if has("prm_link_of_another_endpoint") else path)
        if has("prm_link_relative"):
            return link.removeprefix(self._deployment.base)
        host = request.headers.get("x-forwarded-host")
        if host and has("challenge_follows_forwarded_host"):
            return link.replace(self._deployment.base, f"http://{host}")
        forwarded = re.search(r'host="?([^";,]+)', request.headers.get("forwarded", ""), re.IGNORECASE)
        if forwarded and has("challenge_follows_forwarded"):
            return link.replace(self._deployment.base, f"http://{forwarded[1]}")
        return link

    def _scope(self, refusal: Refused) -> str:
        has = self.has
        if refusal.status == 403:
            if has("scope_challenge_without_scope"):
                return ""
            scopes = list(refusal.scopes)
            if has("challenge_scope_varies") and next(self._turns) % 2:
                scopes = scopes[:1]
            return " ".join(scopes)
        if has("challenge_without_scope"):
            return ""
        if has("challenge_offers_offline_access"):
            return f"{BASE_SCOPE} offline_access"
        return " ".join(SCOPES) if has("challenge_lists_every_scope") else BASE_SCOPE
