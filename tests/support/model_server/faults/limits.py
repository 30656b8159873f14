"""Faults of limits."""

from __future__ import annotations

from tests.support.model_server.faults.fault import Fault

FAULTS = (
    Fault("calls_unlimited", "RATE-001", "A tool may be called without end."),
    Fault("calls_limited_late", "RATE-001", "A tool is limited at ten times what was declared."),
    Fault("limit_without_retry_after", "RATE-002", "A refusal for rate does not say when to return."),
    Fault("limit_refused_with_503", "RATE-002", "A refusal for rate is a 503."),
    Fault("limit_refused_as_text", "RATE-002", "A refusal for rate is plain text."),
    Fault("retry_after_zero", "RATE-002", "Retry-After is 0."),
    Fault("retry_too_early", "RATE-002", "After the time that Retry-After names the call is refused again."),
    Fault("ratelimit_unquoted", "RATE-003", "Policies are named with tokens."),
    Fault("ratelimit_names_differ", "RATE-003", "RateLimit names a policy that RateLimit-Policy does not."),
    Fault("remaining_above_quota", "RATE-003", "More is left than the quota holds."),
    Fault("reset_after_retry", "RATE-004", "RateLimit names a later time than Retry-After does."),
    Fault("limit_follows_forwarded_for", "RATE-005", "Calls are counted by what X-Forwarded-For says."),
    Fault("limit_follows_forwarded", "RATE-005", "Calls are counted by what Forwarded says."),
    Fault("limit_follows_session", "RATE-005", "Each session has calls of its own."),
    Fault("limit_follows_user_agent", "RATE-005", "Each User-Agent has calls of its own."),
    Fault("limit_follows_client_info", "RATE-005", "Each name that a client gives itself has calls of its own."),
    Fault("limit_follows_token", "RATE-005", "Each token of a user has calls of its own."),
    Fault("limit_shared_by_all", "RATE-006", "All users share one limit."),
    Fault("limit_shared_by_client", "RATE-006", "All users of one client share a limit."),
    Fault("limits_name_the_user", "RATE-006", "The partition key is the user's name."),
)
