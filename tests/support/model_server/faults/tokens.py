"""Faults in reading, issuing, revoking and keeping tokens."""

from __future__ import annotations

from tests.support.model_server.faults.fault import Fault

_CLAIMS = (
    Fault("expiry_ignored", "TOK-001", "exp is not looked at."),
    Fault("expiry_leeway_of_a_day", "TOK-001", "A token lives a day past exp."),
    Fault("missing_expiry_accepted", "TOK-001", "A token without exp is accepted."),
    Fault("text_expiry_accepted", "TOK-001", "An exp that is text counts as not expired."),
    Fault("negative_expiry_accepted", "TOK-001", "An exp below zero counts as never."),
    Fault("not_before_ignored", "TOK-002", "nbf is not looked at."),
    Fault("future_issue_accepted", "TOK-002", "An iat far in the future is accepted."),
    Fault("issuer_ignored", "TOK-006", "iss is not looked at."),
    Fault("issuer_prefix", "TOK-006", "An iss that begins with the issuer is accepted."),
    Fault("issuer_slash_ignored", "TOK-006", "A trailing slash in iss is ignored."),
    Fault("issuer_any_case", "TOK-006", "iss is compared without regard to case."),
    Fault("issuer_port_ignored", "TOK-006", "The port of iss is ignored."),
    Fault("type_ignored", "TOK-007", "typ is not looked at."),
    Fault("missing_type_accepted", "TOK-007", "A token without typ is accepted."),
    Fault("type_suffix", "TOK-007", "Any typ that ends in +jwt is accepted."),
)

_SIGNATURES = (
    Fault("signature_ignored", "TOK-003", "The signature is not verified."),
    Fault("empty_signature_accepted", "TOK-003", "A token whose signature was dropped is accepted."),
    Fault("signature_padding_tolerated", "TOK-003", "A padded signature is accepted."),
    Fault("signature_spare_bits_tolerated", "TOK-003", "The unused bits of the last signature character are ignored."),
    Fault("alg_none_accepted", "TOK-004", "alg none is accepted with an empty signature."),
    Fault("alg_none_in_odd_case", "TOK-004", "none is forbidden by exact spelling, so nonE passes."),
    Fault("alg_none_with_garbage", "TOK-004", "alg none is accepted with any signature."),
    Fault("hs256_keyed_with_pem", "TOK-004", "HS256 is accepted with the public key's PEM as secret."),
    Fault("hs256_keyed_with_der", "TOK-004", "HS256 is accepted with the public key's DER as secret."),
    Fault("hs256_keyed_with_jwk", "TOK-004", "HS256 is accepted with the public JWK's JSON as secret."),
    Fault("jwk_header_trusted", "TOK-005", "The key in the token's own jwk header is trusted."),
    Fault("jku_header_fetched", "TOK-005", "The key set named by the token's jku header is fetched and trusted."),
    Fault("x5u_header_fetched", "TOK-005", "The certificate named by the token's x5u header is fetched."),
    Fault("x5c_header_trusted", "TOK-005", "The certificate in the token's x5c header is trusted."),
    Fault("kid_is_a_path", "TOK-005", "kid names a file whose content is the HMAC key."),
    Fault("kid_is_sql", "TOK-005", "kid is pasted into a query that an attacker completes."),
    Fault("crit_ignored", "TOK-005", "Unknown crit entries are ignored."),
    Fault("zero_signature_accepted", "TOK-011", "An ECDSA signature of zeros is accepted."),
    Fault("repeated_claims_accepted", "TOK-011", "Of repeated claims the last one counts."),
    Fault("encrypted_token_crashes", "TOK-011", "A token of five segments is answered 500."),
)

_CARRIERS = (
    Fault("query_token", "TOK-008", "A token in the access_token query parameter is accepted."),
    Fault("query_token_short_name", "TOK-008", "A token in the token query parameter is accepted."),
    Fault("cookie_token", "TOK-009", "A token in a cookie is accepted."),
    Fault("form_token", "TOK-009", "A token in a form body is accepted."),
    Fault("scheme_case_sensitive", "TOK-010", "Only the spelling Bearer is understood."),
    Fault("scheme_prefix_accepted", "TOK-010", "A scheme that begins with Bearer is accepted."),
    Fault("revocation_ignored", "TOK-012", "A revoked access token goes on working."),
    Fault("unknown_kid_is_fetched", "TOK-013", "Every unknown kid makes everybody wait for a key fetch."),
    Fault("token_echoed_in_body", "TOK-023", "The refusal of a malformed token repeats it."),
    Fault("token_in_log_message", "TOK-023", "A log notification carries the caller's token."),
    Fault("responses_cacheable", "TOK-024", "Authorized responses are public, s-maxage=60."),
    Fault("responses_without_cache_control", "TOK-024", "Authorized responses have no Cache-Control."),
)

_ISSUANCE = (
    Fault("introspection_open", "TOK-014", "Introspection needs no client authentication."),
    Fault("introspection_talks", "TOK-014", "Introspection tells whose a dead token was."),
    Fault("introspection_ignores_revocation", "TOK-015", "Introspection calls revoked tokens active."),
    Fault("introspection_by_get", "TOK-015", "Introspection answers GET with the token in the URL."),
    Fault("revocation_refuses_unknown", "TOK-016", "Revoking an unknown token is answered 400."),
    Fault("revocation_without_effect", "TOK-016", "A revoked refresh token goes on working."),
    Fault("revocation_by_any_client", "TOK-016", "Any client may revoke any token."),
    Fault("refresh_revocation_spares_access", "TOK-017", "Access tokens outlive the revoked refresh token."),
    Fault("token_response_cacheable", "TOK-018", "Token responses lack no-store."),
    Fault("token_response_as_text", "TOK-018", "Token responses are text/plain."),
    Fault("token_response_without_type", "TOK-018", "Token responses lack token_type."),
    Fault("day_long_tokens", "TOK-019", "Access tokens live a day."),
    Fault("lifetime_untold", "TOK-019", "Tokens live a day and the response has no expires_in."),
    Fault("codes_are_counted", "TOK-020", "Authorization codes are a counter."),
    Fault("refresh_tokens_are_short", "TOK-020", "Refresh tokens hold 32 random bits."),
    Fault("tokens_without_jti", "TOK-021", "Access tokens lack jti."),
    Fault("tokens_without_client_id", "TOK-021", "Access tokens lack client_id."),
    Fault("tokens_typed_jwt", "TOK-021", "Access tokens have typ JWT."),
    Fault("clients_choose_their_id", "TOK-022", "A client registers a user's name as its id and gets tokens for it."),
)

_REFRESH = (
    Fault("refresh_tokens_do_not_rotate", "REF-001", "A refresh answers the same refresh token again."),
    Fault("old_refresh_token_valid", "REF-001", "A rotated refresh token goes on working."),
    Fault("refresh_reuse_forgiven", "REF-002", "Replay of a rotated refresh token leaves its family alive."),
    Fault("refresh_reuse_of_the_last_noticed", "REF-002", "Only the replay of the newest but one ends the family."),
    Fault("refresh_without_client", "REF-003", "A refresh that names no client is accepted."),
    Fault("refresh_without_secret", "REF-003", "A confidential client refreshes without its secret."),
    Fault("refresh_by_any_client", "REF-003", "Any client may use any refresh token."),
    Fault("refresh_widens_scope", "REF-004", "A refresh grants whatever scope it asks for."),
    Fault("refresh_narrows_grant", "REF-004", "A refresh for less scope takes the rest away for good."),
    Fault("codes_serve", "REF-005", "The MCP server accepts an authorization code."),
    Fault("refresh_tokens_serve", "REF-005", "The MCP server accepts a refresh token."),
    Fault("bad_refresh_crashes", "REF-006", "An unknown refresh token is answered 500."),
    Fault("long_refresh_crashes", "REF-006", "A refresh token of more than 1,000 characters is answered 500."),
    Fault("refresh_outlives_grant", "REF-007", "A code used twice ends its access token and not its refresh token."),
)

FAULTS = (*_CLAIMS, *_SIGNATURES, *_CARRIERS, *_ISSUANCE, *_REFRESH)
