"""How often a tool may be called: a window for each user (RFC 6585 §4, RateLimit fields of the HTTPAPI drafts)."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tests.support.model_server.deployment import Deployment
from tests.support.model_server.keys import JSON
from tests.support.model_server.principal import Principal
from tests.support.model_server.protocol import META_CLIENT, RpcError, meta_of, params_of, read_message

LIMITED = "measured"
CALLS = 8
SECONDS = 4
LIMIT_EXCEEDED = -32029


@dataclass(frozen=True)
class Standing:
    """What a request meets: a refusal, or fields for its answer."""

    refusal: Response | None = None
    headers: dict[str, str] = field(default_factory=dict)


class CallLimits:
    """Counts the calls of one tool by user, whatever else a request says."""

    def __init__(self, deployment: Deployment) -> None:
        self._clock = deployment.clock
        self._windows: dict[object, tuple[float, int]] = {}
        self.has = deployment.has

    async def standing(self, request: Request, principal: Principal) -> Standing:
        """Counts a call of the limited tool; everything else goes free."""
        if request.method != "POST":
            return Standing()
        try:
            message = await read_message(request)
        except RpcError:
            return Standing()
        if params_of(message).get("name") != LIMITED or message.get("method") != "tools/call":
            return Standing()
        began, used = self._counted(self._key(request, principal, message))
        resets = math.ceil(began + SECONDS - self._clock())
        headers = self._fields(max(0, self._quota() - used), resets, principal)
        return Standing(self._refusal(message, resets, headers) if used > self._quota() else None, headers)

    def _quota(self) -> int:
        return CALLS * 10 if self.has("calls_limited_late") else CALLS

    def _counted(self, key: object) -> tuple[float, int]:
        """The beginning of the window, and how many calls were counted in it. Refused ones do not count."""
        now = self._clock()
        began, used = self._windows.get(key, (now, 0))
        if now >= began + SECONDS:
            began, used = now, 0
        if not self.has("calls_unlimited"):
            used += 1
        self._windows[key] = began, min(used, self._quota() + 1)
        return self._windows[key]

    def _key(self, request: Request, principal: Principal, message: JSON) -> object:
        """Who the calls of a request are counted for."""
        has, headers = self.has, request.headers
        if has("limit_shared_by_all"):
            return "everybody"
        if has("limit_shared_by_client"):
            return principal.client_id
        for fault, part in (
            ("limit_follows_forwarded_for", headers.get("x-forwarded-for")),
            ("limit_follows_forwarded", headers.get("forwarded")),
            ("limit_follows_session", headers.get("mcp-session-id")),
            ("limit_follows_user_agent", headers.get("user-agent")),
            ("limit_follows_client_info", str(meta_of(message).get(META_CLIENT))),
            ("limit_follows_token", principal.token),
        ):
            if has(fault):
                return principal.identity, part
        return principal.issuer, principal.subject

    def _fields(self, left: int, resets: int, principal: Principal) -> dict[str, str]:
        has = self.has
        secret = principal.subject if has("limits_name_the_user") else "c2VjcmV0"
        key = base64.b64encode(secret.encode()).decode()
        left = left + CALLS if has("remaining_above_quota") else left
        if has("ratelimit_unquoted"):
            return {
                "RateLimit-Policy": f"calls;q={self._quota()};w={SECONDS}",
                "RateLimit": f"calls;r={left};t={resets}",
            }
        policy = "other" if has("ratelimit_names_differ") else "calls"
        return {
            "RateLimit-Policy": f'"{policy}";q={self._quota()};w={SECONDS};pk=:{key}:',
            "RateLimit": f'"calls";r={left};t={resets + 60 if has("reset_after_retry") else resets};pk=:{key}:',
        }

    def _refusal(self, message: JSON, resets: int, headers: dict[str, str]) -> Response:
        has, status = self.has, 503 if self.has("limit_refused_with_503") else 429
        after = 0 if has("retry_after_zero") else resets
        sent = dict(headers) if has("limit_without_retry_after") else {**headers, "Retry-After": str(after)}
        if has("retry_too_early"):
            sent["Retry-After"] = "1"
            del sent["RateLimit"]
        if has("limit_refused_as_text"):
            return PlainTextResponse("slow down", status, headers=sent)
        body = RpcError(LIMIT_EXCEEDED, "the tool was called too often").body(message.get("id"))
        return JSONResponse(body, status, headers=sent)
