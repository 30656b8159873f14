"""Faults in what a token is bound to: proofs of possession, at the resource and at the token endpoint, certificates."""

from __future__ import annotations

from tests.support.model_server.faults.fault import Fault

FAULTS = (
    Fault("proof_optional", "DPOP-001", "A bound token under the DPoP scheme needs no proof."),
    Fault("bad_proof_challenged_as_bearer", "DPOP-001", "A bad proof is answered with a Bearer challenge."),
    Fault("bound_token_as_bearer", "DPOP-002", "A bound token is taken as a bearer token."),
    Fault("bound_token_as_bearer_with_proof", "DPOP-002", "A bound token with any proof is taken as a bearer token."),
    Fault("first_proof_counts", "DPOP-003", "The first of two DPoP fields counts."),
    Fault("joined_proofs_split", "DPOP-003", "Of proofs joined by a comma any good one serves."),
    Fault("proof_type_ignored", "DPOP-004", "The typ of a proof is not looked at."),
    Fault("proof_time_as_text", "DPOP-004", "A proof may have an iat that is text."),
    Fault("proof_unsigned", "DPOP-005", "A proof may have alg none."),
    Fault("proof_with_private_key", "DPOP-005", "The jwk of a proof may be a private key."),
    Fault("htm_ignored", "DPOP-006", "A proof for another method serves."),
    Fault("htu_prefix", "DPOP-006", "A proof whose htu begins with the URL serves."),
    Fault("htu_spelling_strict", "DPOP-006", "Another spelling of the URL in htu is refused."),
    Fault("proof_age_of_an_hour", "DPOP-007", "A proof may be an hour old."),
    Fault("proof_from_the_future", "DPOP-007", "A proof may be from the future."),
    Fault("ath_ignored", "DPOP-008", "A proof serves with any token of its key."),
    Fault("proof_by_any_key", "DPOP-009", "A proof may be of any key."),
    Fault("session_excuses_the_key", "DPOP-009", "Within a session a proof may be of any key."),
    Fault("proof_replayable_with_another_body", "DPOP-010", "A used proof serves again with another body."),
    Fault("any_nonce_serves", "DPOP-011", "Any nonce serves, as long as there is one."),
    Fault("nonce_challenge_is_400", "DPOP-011", "A proof without a nonce is answered 400."),
    Fault("dpop_challenge_without_algs", "DPOP-012", "The DPoP challenge does not say which algorithms work."),
    Fault("error_in_both_challenges", "DPOP-012", "The challenge of the scheme that was not used has the error too."),
    Fault("dpop_required_in_words_only", "DPOP-013", "Proofs are required by the metadata and not by the server."),
    Fault("bound_audience_ignored", "DPOP-013", "A bound token may be meant for another resource."),
    Fault("dpop_offers_hs256", "DPOP-014", "The issuer lists HS256 for proofs."),
    Fault("dpop_token_says_bearer", "DPOP-014", "A bound token is issued with token_type Bearer."),
    Fault("token_endpoint_takes_any_proof", "DPOP-014", "The token endpoint does not compare htu."),
    Fault("refresh_by_any_key", "DPOP-015", "A bound refresh token serves with a proof of any key."),
    Fault("code_for_any_key", "DPOP-015", "A code that was asked for with dpop_jkt serves with any key."),
    Fault("bound_clients_get_bearer", "DPOP-015", "A client that registered for bound tokens gets a bearer token."),
    Fault("certificate_binding_ignored", "MTLS-001", "A token that is bound to a certificate is a bearer token."),
    Fault("certificate_field_believed", "MTLS-002", "A certificate in the field Client-Cert counts as shown."),
    Fault("user_field_believed", "MTLS-002", "The user named in X-Forwarded-User needs no token."),
)
