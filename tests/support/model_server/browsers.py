"""Host, Origin and CORS (MCP transports, DNS rebinding; Fetch §3.2)."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.deployment import Deployment

METHODS = "GET, POST, DELETE, OPTIONS"
REQUEST_HEADERS = (
    "authorization, content-type, accept, dpop, last-event-id, mcp-method, mcp-name, mcp-protocol-version,"
    " mcp-session-id"
)
EXPOSED = "WWW-Authenticate, Mcp-Session-Id, DPoP-Nonce"


class BrowserRules:
    """What a request may say about where it comes from, and what a browser is told in return."""

    def __init__(self, deployment: Deployment) -> None:
        self._hosts = deployment.hosts
        self._origins = frozenset(f"{urlsplit(deployment.base).scheme}://{host}" for host in deployment.hosts)
        self._base = deployment.base
        self.has = deployment.has

    def host_allowed(self, request: Request) -> bool:
        """Whether the request names this server, exactly and once (RFC 9110 §7.2)."""
        has, hosts = self.has, request.headers.getlist("host")
        if has("host_unchecked"):
            return True
        if len(hosts) != 1:
            return False
        host = hosts[0].lower()
        if has("host_localhost_refused") and host.startswith("localhost"):
            return False
        if has("host_prefix") and any(host.startswith(allowed) for allowed in self._hosts):
            return True
        if has("host_port_ignored") and host.rpartition(":")[0] in {one.rpartition(":")[0] for one in self._hosts}:
            return True
        return host in self._hosts

    def refusal(self, request: Request) -> Response | None:
        """The answer to a foreign origin, or None when the request may go on."""
        if self._unchecked(request) or self._origins_allowed(request.headers.getlist("origin")):
            return None
        status = 400 if self.has("foreign_origin_is_400") else 403
        return JSONResponse({"error": "origin_not_allowed"}, status, headers={"Cache-Control": "no-store"})

    def _unchecked(self, request: Request) -> bool:
        has = self.has
        return (
            has("origin_unchecked")
            or (has("origin_unchecked_on_get") and request.method == "GET")
            or (has("origin_unchecked_on_delete") and request.method == "DELETE")
            or (has("origin_unchecked_with_token") and "authorization" in request.headers)
            or (has("sse_origin_unchecked") and request.scope["path"] == "/sse")
            or (has("preflight_allows_anything") and request.method == "OPTIONS")
        )

    def _origins_allowed(self, origins: list[str]) -> bool:
        if not origins:
            return not self.has("origin_required")
        if self.has("origin_list_searched"):
            origins = [one.strip() for origin in origins for one in origin.split(",")]
            return any(self._allowed(one) for one in origins)
        return len(origins) == 1 and self._allowed(origins[0])

    def _allowed(self, origin: str) -> bool:
        has = self.has
        if has("own_origin_refused") and origin == self._base:
            return False
        spelled = _lower_host(origin)
        if spelled in self._origins:
            return True
        if has("origin_prefix") and any(spelled.startswith(one) for one in self._origins):
            return True
        if has("origin_suffix") and any(spelled.endswith(host) for host in self._hosts):
            return True
        if has("origin_null_allowed") and origin == "null":
            return True
        if has("origin_file_allowed") and origin.startswith("file:"):
            return True
        if has("origin_empty_allowed") and origin == "":
            return True
        return self._allowed_in_part(spelled)

    def _allowed_in_part(self, origin: str) -> bool:
        has = self.has
        scheme, _, authority = origin.partition("://")
        ours = urlsplit(self._base).scheme
        names = {host.rpartition(":")[0] for host in self._hosts}
        if has("origin_scheme_ignored") and authority in self._hosts:
            return True
        if scheme != ours:
            return False
        if has("origin_port_ignored") and (authority in names or authority.rpartition(":")[0] in names):
            return True
        if has("origin_userinfo_ignored") and authority.rpartition("@")[2] in self._hosts:
            return True
        name, colon, port = authority.rpartition(":")
        return has("origin_dot_ignored") and f"{name.removesuffix('.')}{colon}{port}" in self._hosts

    def preflight(self, request: Request) -> Response | None:
        """The answer to a CORS preflight, or None when the request is none."""
        asked = request.headers.get("access-control-request-method")
        if request.method != "OPTIONS" or asked is None or "origin" not in request.headers:
            return None
        methods, names = METHODS, REQUEST_HEADERS
        if self.has("preflight_allows_anything"):
            methods, names = asked, request.headers.get("access-control-request-headers", "*")
        return Response(
            status_code=204,
            headers={"Access-Control-Allow-Methods": methods, "Access-Control-Allow-Headers": names},
        )

    def decorate(self, request: Request, response: Response) -> None:
        """Add what a page of an allowed origin needs to read the response."""
        has, origin = self.has, request.headers.get("origin")
        if not has("cors_without_vary"):
            response.headers.append("Vary", "Origin")
        if origin is None:
            return
        if has("cors_star_with_credentials"):
            response.headers["Access-Control-Allow-Origin"] = "*"
            response.headers["Access-Control-Allow-Credentials"] = "true"
        elif self._origins_allowed([origin]) or has("cors_reflects_any_origin"):
            response.headers["Access-Control-Allow-Origin"] = origin
        else:
            return
        if not has("challenge_hidden_from_browsers"):
            response.headers["Access-Control-Expose-Headers"] = EXPOSED


def _lower_host(origin: str) -> str:
    scheme, separator, authority = origin.partition("://")
    return f"{scheme}{separator}{authority.lower()}"
