"""Every refusal on one page: what it is called, its status, what the client reads, and which text says so.

The slug is the name of a refusal everywhere: in the audit record, in tests and in the documentation. `error` is the
OAuth error code on the wire (several slugs share `invalid_token`: the client may do no more than get a new token, the
operator wants to know why). `description` is all the client reads; the reason stays in the audit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_guard.asgi import RawHeaders


class Rejection(Exception):
    """A request that does not go further, and why.

    `reason` is for the operator; it names what was wrong and never holds a credential. `headers` go on the response.
    `request_id` is echoed in a JSON-RPC body when no `Call` is known yet, `data` is its `error.data`.
    """

    def __init__(
        self,
        kind: "Kind",
        reason: str,
        headers: Sequence[tuple[bytes, bytes]] = (),
        *,
        request_id: str | int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{kind.slug}: {reason}")
        self.kind = kind
        self.reason = reason
        self.headers: RawHeaders = list(headers)
        self.request_id = request_id
        self.data = data


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of refusal. `code` is the JSON-RPC error code of its body; without one the body is an OAuth error."""

    slug: str
    status: int
    description: str
    source: str
    error: str = ""
    code: int | None = None

    def because(
        self,
        reason: str,
        headers: Sequence[tuple[bytes, bytes]] = (),
        *,
        request_id: str | int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Rejection:
        """The rejection to raise: `raise rejections.TOKEN_EXPIRED.because("exp was 30 s ago")`."""
        return Rejection(self, reason, headers, request_id=request_id, data=data)


PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022
RATE_LIMITED = -32010
"""In the range JSON-RPC leaves to servers; MCP 2026-07-28 reserves -32020 to -32099 and defines none for limits.

SEP-3304, which is a draft, proposes -32023; its `error.data` is sent already, see `limited`.
"""
SCOPE_MISSING = -32011
"""In the same range, for the same reason."""

# The request line and the header fields.
PATH_NOT_CANONICAL = Kind("path_not_canonical", 400, "The path has more than one reading", "RFC 3986 §6.2")
TARGET_TOO_LONG = Kind("target_too_long", 414, "The request target is too long", "RFC 9110 §15.5.15")
METHOD_NOT_ALLOWED = Kind("method_not_allowed", 405, "Method not allowed", "RFC 9110 §15.5.6")
HEADERS_TOO_LARGE = Kind("headers_too_large", 431, "Header fields are too large", "RFC 6585 §5")
HEADER_REPEATED = Kind("header_repeated", 400, "A header field is repeated", "RFC 9110 §5.3")
HEADER_MALFORMED = Kind("header_malformed", 400, "A header field is malformed", "RFC 9110 §5.5")
FRAMING_AMBIGUOUS = Kind("framing_ambiguous", 400, "The message framing is ambiguous", "RFC 9112 §6.1")
SCOPE_NOT_GUARDED = Kind("scope_not_guarded", 403, "This kind of connection is not served", "ASGI 3")

# Where the connection comes from and what it is for.
FORWARDED_MALFORMED = Kind("forwarded_malformed", 400, "Forwarding headers are malformed", "RFC 7239 §4")
CLEARTEXT = Kind("cleartext", 403, "Only https is served", "OAuth 2.1 §1.5")
CREDENTIAL_OVER_CLEARTEXT = Kind(
    "credential_over_cleartext", 403, "A credential was sent over http and must be replaced", "RFC 6750 §5.3"
)
HOST_NOT_ALLOWED = Kind("host_not_allowed", 421, "This host is not served here", "RFC 9110 §15.5.20")
ORIGIN_NOT_ALLOWED = Kind(
    "origin_not_allowed", 403, "This origin is not allowed", "MCP 2026-07-28 basic/transports/streamable-http"
)
NOT_FOUND = Kind("not_found", 404, "Not found", "RFC 9110 §15.5.5")

# Who is asking (RFC 6750 §3.1). The description must stay inside the character set of RFC 6750 §3.
CREDENTIALS_MISSING = Kind("credentials_missing", 401, "An access token is required", "RFC 6750 §3.1")
CREDENTIALS_MALFORMED = Kind(
    "credentials_malformed", 400, "The Authorization header is malformed", "RFC 6750 §3.1", "invalid_request"
)
CREDENTIALS_REPEATED = Kind(
    "credentials_repeated", 400, "More than one credential was sent", "RFC 6750 §2", "invalid_request"
)
SCHEME_NOT_SUPPORTED = Kind(
    "scheme_not_supported", 401, "The authentication scheme is not accepted", "RFC 9110 §11.6.1"
)
TOKEN_MALFORMED = Kind("token_malformed", 401, "The token is malformed", "RFC 7519 §7.2", "invalid_token")
TOKEN_TYPE = Kind("token_type", 401, "The token is not an access token", "RFC 9068 §4", "invalid_token")
TOKEN_ALGORITHM = Kind(
    "token_algorithm", 401, "The token's algorithm is not accepted", "RFC 8725 §3.1", "invalid_token"
)
TOKEN_ISSUER = Kind("token_issuer", 401, "The token is from another issuer", "RFC 9068 §4", "invalid_token")
TOKEN_KEY = Kind("token_key", 401, "The token is signed by an unknown key", "RFC 7515 §4.1.4", "invalid_token")
TOKEN_SIGNATURE = Kind("token_signature", 401, "The token's signature is wrong", "RFC 7515 §5.2", "invalid_token")
TOKEN_EXPIRED = Kind("token_expired", 401, "The token has expired", "RFC 7519 §4.1.4", "invalid_token")
TOKEN_NOT_YET_VALID = Kind("token_not_yet_valid", 401, "The token is not valid yet", "RFC 7519 §4.1.5", "invalid_token")
TOKEN_LIFETIME = Kind(
    "token_lifetime", 401, "The token lives longer than is accepted", "RFC 8725 §3.10", "invalid_token"
)
TOKEN_AUDIENCE = Kind("token_audience", 401, "The token is for another resource", "RFC 9068 §4", "invalid_token")
TOKEN_CLAIMS = Kind(
    "token_claims", 401, "A claim of the token is missing or malformed", "RFC 9068 §2.2", "invalid_token"
)
TOKEN_INACTIVE = Kind("token_inactive", 401, "The token is not active", "RFC 7662 §2.2", "invalid_token")
TOKEN_BOUND = Kind(
    "token_bound", 401, "The token is bound to a key and is no bearer token", "RFC 9449 §7.2", "invalid_token"
)
TOKEN_UNBOUND = Kind(
    "token_unbound", 401, "Only tokens that are bound to a key are accepted so", "RFC 9449 §7.1", "invalid_token"
)
TOKEN_REVOKED = Kind("token_revoked", 401, "The token was revoked", "RFC 7009 §2", "invalid_token")

# Whether the sender has the key that the token is bound to (RFC 9449 §7.1).
_PROOF = "invalid_dpop_proof"
PROOF_MISSING = Kind("proof_missing", 401, "A DPoP proof is required", "RFC 9449 §7.1", _PROOF)
PROOF_REPEATED = Kind("proof_repeated", 401, "More than one DPoP proof was sent", "RFC 9449 §4.3", _PROOF)
PROOF_MALFORMED = Kind("proof_malformed", 401, "The DPoP proof is malformed", "RFC 9449 §4.3", _PROOF)
PROOF_CLAIMS = Kind("proof_claims", 401, "A claim of the DPoP proof is missing or malformed", "RFC 9449 §4.2", _PROOF)
PROOF_TYPE = Kind("proof_type", 401, "The DPoP proof is of another type", "RFC 9449 §4.2", _PROOF)
PROOF_ALGORITHM = Kind("proof_algorithm", 401, "The DPoP proof's algorithm is not accepted", "RFC 9449 §4.3", _PROOF)
PROOF_KEY = Kind("proof_key", 401, "The DPoP proof's key is not accepted", "RFC 9449 §4.3", _PROOF)
PROOF_SIGNATURE = Kind("proof_signature", 401, "The DPoP proof's signature is wrong", "RFC 9449 §4.3", _PROOF)
PROOF_METHOD = Kind("proof_method", 401, "The DPoP proof is for another method", "RFC 9449 §4.3", _PROOF)
PROOF_URL = Kind("proof_url", 401, "The DPoP proof is for another URL", "RFC 9449 §4.3", _PROOF)
PROOF_TIME = Kind("proof_time", 401, "The DPoP proof is too old, or from the future", "RFC 9449 §11.1", _PROOF)
PROOF_TOKEN = Kind("proof_token", 401, "The DPoP proof is for another token", "RFC 9449 §4.3", _PROOF)
PROOF_REPLAYED = Kind("proof_replayed", 401, "The DPoP proof was used before", "RFC 9449 §11.1", _PROOF)
PROOF_NONCE = Kind("proof_nonce", 401, "The DPoP proof needs the server's nonce", "RFC 9449 §9", "use_dpop_nonce")
PROOF_BINDING = Kind(
    "proof_binding", 401, "The DPoP proof is by another key than the token's", "RFC 9449 §7.1", "invalid_token"
)

# Whether the sender has the certificate that the token is bound to.
CERTIFICATE_MISSING = Kind(
    "certificate_missing", 401, "The token needs its client certificate", "RFC 8705 §3", "invalid_token"
)
CERTIFICATE_BINDING = Kind(
    "certificate_binding", 401, "The client certificate is another than the token's", "RFC 8705 §3", "invalid_token"
)
CERTIFICATE_TIME = Kind(
    "certificate_time",
    401,
    "The client certificate has expired, or is not valid yet",
    "RFC 5280 §4.1.2.5",
    "invalid_token",
)

INSUFFICIENT_SCOPE = Kind(
    "insufficient_scope", 403, "The token lacks a scope", "RFC 6750 §3.1", "insufficient_scope", SCOPE_MISSING
)

# What is asked (JSON-RPC bodies; the request id is echoed where it is known).
MEDIA_TYPE = Kind("media_type", 415, "Content-Type must be application/json", "RFC 9110 §15.5.16")
ENCODING = Kind("content_encoding", 415, "Content-Encoding is not accepted", "RFC 9110 §15.5.16")
BODY_TOO_LARGE = Kind("body_too_large", 413, "The body is too large", "RFC 9110 §15.5.14")
BODY_TIMEOUT = Kind("body_timeout", 408, "The body did not arrive in time", "RFC 9110 §15.5.9")
BODY_NOT_JSON = Kind("body_not_json", 400, "The body is not acceptable JSON", "RFC 8259 §2", code=PARSE_ERROR)
NOT_JSON_RPC = Kind("not_json_rpc", 400, "The body is not a JSON-RPC message", "JSON-RPC 2.0 §4", code=INVALID_REQUEST)
BATCH = Kind(
    "batch",
    400,
    "Batches are not accepted in this revision",
    "MCP 2025-06-18 changelog",
    code=INVALID_REQUEST,
)
HEADER_BODY_MISMATCH = Kind(
    "header_body_mismatch",
    400,
    "A header field contradicts the body",
    "MCP 2026-07-28 basic/transports/streamable-http §Server Validation",
    code=HEADER_MISMATCH,
)
REVISION = Kind(
    "revision",
    400,
    "The protocol version is not supported",
    "MCP 2026-07-28 basic/transports/streamable-http §Protocol Version Header",
    code=UNSUPPORTED_VERSION,
)
SESSION_NOT_FOUND = Kind(
    "session_not_found",
    404,
    "Session not found",
    "MCP 2025-11-25 basic/transports §Session Management",
    code=INVALID_REQUEST,
)
EVENT_NOT_FOUND = Kind(
    "event_not_found",
    404,
    "Event not found",
    "MCP 2025-11-25 basic/transports §Resumability and Redelivery",
    code=INVALID_REQUEST,
)
STATE_INVALID = Kind(
    "state_invalid",
    400,
    "Invalid or expired requestState",
    "MCP 2026-07-28 basic/patterns/mrtr",
    code=INVALID_PARAMS,
)
TASK_NOT_FOUND = Kind(
    "task_not_found",
    200,
    "Task not found",
    "MCP 2025-11-25 basic/utilities/tasks §Task Isolation and Access Control",
    code=INVALID_PARAMS,
)
HANDLE_NOT_FOUND = Kind(
    "handle_not_found",
    200,
    "Handle not found",
    "MCP 2026-07-28 security best practices §State Handle Hijacking",
    code=INVALID_PARAMS,
)
LIMIT_EXCEEDED = Kind("limit_exceeded", 429, "Too many requests", "RFC 6585 §4", code=RATE_LIMITED)


def limited(reason: str, wait_seconds: float, headers: Sequence[tuple[bytes, bytes]] = ()) -> Rejection:
    """The `limit_exceeded` for a client that may come back after `wait_seconds`.

    Said twice: in whole seconds as `Retry-After` (RFC 9110 §10.2.3), and in milliseconds as `retryAfterMs` in
    `error.data` (SEP-3304), since what reads the JSON-RPC error often does not see the header fields. Both are rounded
    up, and at least 1.
    """
    milliseconds = max(1, math.ceil(round(wait_seconds * 1000, 3)))
    seconds = (b"retry-after", str(-(-milliseconds // 1000)).encode())
    return LIMIT_EXCEEDED.because(reason, [seconds, *headers], data={"retryAfterMs": milliseconds})


# Our own fault, or that of something we depend on.
UNAVAILABLE = Kind("unavailable", 503, "The service cannot decide now", "RFC 9110 §15.6.4")
GUARD_FAULT = Kind("guard_fault", 503, "The service cannot decide now", "RFC 9110 §15.6.4")
APP_FAULT = Kind("app_fault", 500, "Internal error", "RFC 9110 §15.6.1")

KINDS = {kind.slug: kind for kind in list(vars().values()) if isinstance(kind, Kind)}
"""Every kind by its slug."""
