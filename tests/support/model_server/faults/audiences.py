"""Faults in binding a token to one resource, on either side."""

from __future__ import annotations

from tests.support.model_server.faults.fault import Fault

FAULTS = (
    Fault("audience_ignored", "AUD-001", "aud is not looked at."),
    Fault("issuer_as_audience", "AUD-001", "A token for the authorization server itself is accepted."),
    Fault("missing_audience_accepted", "AUD-002", "A token without aud is accepted."),
    Fault("audience_list_as_text", "AUD-003", "An aud list is searched as text."),
    Fault("nested_audience_accepted", "AUD-003", "An aud list nested in a list is flattened."),
    Fault("empty_audience_accepted", "AUD-003", "An empty aud list counts as no restriction."),
    Fault("audience_list_refused", "AUD-003", "An aud list that holds this server is refused."),
    Fault("audience_prefix", "AUD-004", "An aud that begins with this resource is accepted."),
    Fault("audience_parent", "AUD-004", "An aud that this resource begins with is accepted."),
    Fault("audience_suffix", "AUD-004", "An aud that ends with this resource's path is accepted."),
    Fault("audience_any_case", "AUD-004", "The path of aud is compared without regard to case."),
    Fault("audience_query_ignored", "AUD-004", "A query in aud is ignored."),
    Fault("audience_fragment_ignored", "AUD-004", "A fragment in aud is ignored."),
    Fault("audience_port_ignored", "AUD-004", "The port of aud is ignored."),
    Fault("audience_scheme_ignored", "AUD-004", "The scheme of aud is ignored."),
    Fault("audience_userinfo_ignored", "AUD-004", "User information in aud is ignored."),
    Fault("audience_percent_decoded", "AUD-004", "aud is percent-decoded before it is compared."),
    Fault("resource_spelling_strict", "AUD-005", "A resource with an upper-case scheme and host is refused."),
    Fault("audience_origin_only", "AUD-006", "Only the origin of aud is compared."),
    Fault("upstream_tokens_accepted", "AUD-007", "A token of the upstream service is accepted."),
    Fault("token_forwarded", "AUD-008", "A tool that calls out passes the caller's token on."),
    Fault("id_tokens_accepted", "AUD-009", "An ID token of the authorization server is accepted."),
    Fault("logout_tokens_accepted", "AUD-009", "A logout token of the authorization server is accepted."),
    Fault("client_assertions_accepted", "AUD-009", "A JWT of type client-authentication+jwt is accepted."),
    Fault("tokens_for_the_issuer", "AUD-010", "Access tokens name the issuer as audience, whatever was requested."),
    Fault("any_resource_granted", "AUD-011", "Any resource value is granted and becomes the audience."),
    Fault("foreign_resource_granted", "AUD-011", "Any absolute resource without fragment is granted."),
    Fault("token_request_widens", "AUD-012", "The resource of the token request replaces the authorized one."),
    Fault("refresh_widens", "AUD-012", "The resource of a refresh replaces the authorized one."),
    Fault("resource_at_token_refused", "AUD-013", "A token request with a resource is refused."),
    Fault("resource_at_refresh_refused", "AUD-013", "A refresh with a resource is refused."),
    Fault("as_knows_only_a_trailing_slash", "AUD-014", "The authorization server knows another spelling only."),
)
