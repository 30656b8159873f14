"""Finding the one bearer token of a request (RFC 6750 §2.1: the Authorization header and nothing else)."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from starlette.requests import Request

from tests.support.model_server.deployment import Deployment
from tests.support.model_server.principal import Refused
from tests.support.model_server.verification import Crashed

_CREDENTIALS = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?: +(.*))?", re.DOTALL)
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
FORM = "application/x-www-form-urlencoded"


class BearerCredentials:
    """Reads the token of a request."""

    def __init__(self, deployment: Deployment) -> None:
        self.has = deployment.has

    async def tokens(self, request: Request) -> list[str]:
        """The token to judge, or nothing when none was sent. (A fault may offer several: any good one serves.)

        Raises:
            Refused: 400 `invalid_request` when the header is malformed or comes with a second credential.
        """
        headers = self._chosen(request.headers.getlist("authorization"))
        if not headers:
            return await self._elsewhere(request)
        if len(headers) > 1 or self._second_carrier(request):
            raise Refused(400, "invalid_request", "more than one credential was sent")
        if self.has("joined_credentials_split") and "," in headers[0]:
            return [part.strip()[len("Bearer ") :].strip() for part in headers[0].split(",")]
        return self._bearer(headers[0])

    def _chosen(self, headers: list[str]) -> list[str]:
        if self.has("first_credentials_win"):
            return headers[:1]
        return headers[-1:] if self.has("last_credentials_win") else headers

    def _bearer(self, value: str) -> list[str]:
        has = self.has
        parts = _CREDENTIALS.fullmatch(value)
        if parts is None:
            if has("odd_credentials_crash"):
                raise Crashed("credentials outside the grammar")
            raise Refused(400, "invalid_request", "the Authorization header is malformed")
        scheme, token = parts[1], parts[2] or ""
        if not token and has("bare_scheme_is_500"):
            raise Crashed("credentials without a value")
        if not self._is_bearer(scheme):
            raise Refused(401, "", "the authentication scheme is not understood")
        if not _B64TOKEN.fullmatch(token):
            if has("odd_credentials_crash"):
                raise Crashed("a token outside the grammar")
            raise Refused(400, "invalid_request", "the Authorization header holds no bearer token")
        return [token]

    def _is_bearer(self, scheme: str) -> bool:
        if self.has("scheme_case_sensitive"):
            return scheme == "Bearer"
        if self.has("scheme_prefix_accepted") and scheme.lower().startswith("bearer"):
            return True
        return scheme.lower() in {"bearer", "dpop"} or (self.has("any_scheme_serves") and scheme.lower() == "basic")

    def _second_carrier(self, request: Request) -> bool:
        return "access_token" in request.query_params or request.headers.get("content-type", "").startswith(FORM)

    async def _elsewhere(self, request: Request) -> list[str]:
        has = self.has
        if has("query_token") and "access_token" in request.query_params:
            return [request.query_params["access_token"]]
        if has("query_token_short_name") and "token" in request.query_params:
            return [request.query_params["token"]]
        if has("cookie_token") and request.cookies:
            return list(request.cookies.values())
        if has("form_token") and request.headers.get("content-type", "").startswith(FORM):
            return parse_qs((await request.body()).decode("latin-1")).get("access_token", [])
        return []
