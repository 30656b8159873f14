"""Faults in PKCE and in the authorization code."""

from __future__ import annotations

from tests.support.model_server.faults.fault import Fault

FAULTS = (
    Fault("pkce_unadvertised", "PKCE-001", "code_challenge_methods_supported is missing."),
    Fault("pkce_only_plain_advertised", "PKCE-001", "code_challenge_methods_supported lists plain alone."),
    Fault("challenge_optional", "PKCE-002", "A public client gets a code without a code_challenge."),
    Fault("verifier_optional", "PKCE-003", "A token request without a verifier is accepted."),
    Fault("empty_verifier_accepted", "PKCE-003", "An empty verifier is accepted."),
    Fault("verifier_ignored", "PKCE-003", "Any verifier is accepted."),
    Fault("verifier_may_be_the_challenge", "PKCE-003", "The challenge itself is accepted as verifier."),
    Fault("verifier_any_case", "PKCE-003", "The verifier's hash is compared without regard to case."),
    Fault("verifier_prefix", "PKCE-003", "Only the first 43 characters of a verifier count."),
    Fault("verifier_without_challenge", "PKCE-004", "A code without challenge is redeemed with any verifier."),
    Fault("short_challenge_accepted", "PKCE-005", "A challenge of any length is accepted."),
    Fault("challenge_alphabet_ignored", "PKCE-005", "A challenge of any characters is accepted."),
    Fault("long_verifier_crashes", "PKCE-005", "A verifier of more than 128 characters is answered 500."),
    Fault("plain_accepted", "PKCE-006", "code_challenge_method plain is accepted."),
    Fault("omitted_method_is_s256", "PKCE-006", "An omitted method is taken for S256."),
    Fault("any_method_is_s256", "PKCE-006", "Any method is taken for S256."),
    Fault("code_reusable", "PKCE-007", "A code is redeemed as often as it is presented."),
    Fault("code_reuse_forgiven", "PKCE-007", "Reuse of a code is refused but what it issued stays alive."),
    Fault("code_reuse_by_strangers_revokes", "PKCE-007", "Replay of a used code with a wrong verifier revokes."),
    Fault("code_race", "PKCE-007", "Two redemptions in flight both succeed."),
    Fault("code_for_any_client", "PKCE-008", "A code is redeemed by a client it was not issued to."),
    Fault("code_for_any_redirect", "PKCE-008", "The redirect_uri of the token request is not compared."),
    Fault("code_holds_the_challenge", "PKCE-009", "The code holds the code_challenge in clear."),
    Fault("redirect_holds_the_challenge", "PKCE-009", "The authorization response repeats the code_challenge."),
)
