"""Faults in judging Origin and Host, and in answering browsers."""

from __future__ import annotations

from tests.support.model_server.faults.fault import Fault

FAULTS = (
    Fault("origin_unchecked", "ORIG-001", "Origin is not looked at."),
    Fault("origin_unchecked_on_get", "ORIG-001", "Origin is not looked at on GET."),
    Fault("origin_unchecked_on_delete", "ORIG-001", "Origin is not looked at on DELETE."),
    Fault("origin_unchecked_with_token", "ORIG-001", "Origin is not looked at when a token is sent."),
    Fault("foreign_origin_is_400", "ORIG-001", "A foreign origin is answered 400."),
    Fault("sse_origin_unchecked", "ORIG-001", "Origin is not looked at on the HTTP+SSE stream.", "/sse"),
    Fault("origin_prefix", "ORIG-002", "An origin that begins with an allowed one is allowed."),
    Fault("origin_suffix", "ORIG-002", "An origin whose host ends with an allowed host is allowed."),
    Fault("origin_null_allowed", "ORIG-002", "The null origin is allowed."),
    Fault("origin_file_allowed", "ORIG-002", "file origins are allowed."),
    Fault("origin_scheme_ignored", "ORIG-002", "The scheme of an origin is ignored."),
    Fault("origin_port_ignored", "ORIG-002", "The port of an origin is ignored."),
    Fault("origin_userinfo_ignored", "ORIG-002", "User information before the host of an origin is ignored."),
    Fault("origin_dot_ignored", "ORIG-002", "A trailing dot of an origin's host is ignored."),
    Fault("origin_list_searched", "ORIG-002", "A list of origins is allowed when one of them is."),
    Fault("origin_empty_allowed", "ORIG-002", "An empty Origin counts as absent."),
    Fault("origin_required", "ORIG-003", "A request without Origin is refused."),
    Fault("own_origin_refused", "ORIG-003", "The server's own origin is refused."),
    Fault("host_unchecked", "ORIG-004", "Host is not looked at."),
    Fault("host_prefix", "ORIG-004", "A Host that begins with an allowed one is allowed."),
    Fault("host_port_ignored", "ORIG-004", "The port of Host is ignored."),
    Fault("host_localhost_refused", "ORIG-004", "localhost is refused although the server is bound to it."),
    Fault("local_callers_need_no_token", "ORIG-006", "A server on loopback asks its callers for no token."),
    Fault("cors_reflects_any_origin", "ORIG-005", "Access-Control-Allow-Origin reflects any origin."),
    Fault("cors_star_with_credentials", "ORIG-005", "Any origin is allowed together with credentials."),
    Fault("cors_without_vary", "ORIG-005", "Access-Control-Allow-Origin differs by origin without Vary."),
    Fault("preflight_allows_anything", "ORIG-005", "A preflight allows whatever methods and headers were asked for."),
)
