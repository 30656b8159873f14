"""Faults in redirect URIs, authorization responses and the pages on the way to them."""

from __future__ import annotations

from tests.support.model_server.faults.fault import Fault

_URIS = (
    Fault("redirect_prefix", "RED-001", "A redirect URI that begins with the registered one is accepted."),
    Fault("redirect_host_only", "RED-001", "Any path on the registered host is accepted."),
    Fault("redirect_dots_resolved", "RED-001", "Redirect URIs are compared after dot segments are taken out."),
    Fault("redirect_query_ignored", "RED-001", "Redirect URIs are compared without their query."),
    Fault("redirect_subdomains", "RED-001", "Names below the registered host are accepted."),
    Fault("redirect_any_case", "RED-001", "Redirect URIs are compared without regard to case."),
    Fault("redirect_percent_decoded", "RED-001", "Redirect URIs are compared percent-decoded."),
    Fault("loopback_range", "RED-001", "Any address of 127.0.0.0/8 is taken for the registered loopback address."),
    Fault("loopback_scheme_ignored", "RED-001", "https on loopback is taken for http."),
    Fault("loopback_port_fixed", "RED-002", "A loopback redirect URI is accepted on the registered port alone."),
    Fault("loopback_port_fixed_in_ipv6", "RED-002", "The port of [::1] is not free, that of 127.0.0.1 is."),
    Fault("unknown_client_redirected", "RED-003", "An unknown client gets its error at the URI it names."),
    Fault("errors_redirected_first", "RED-003", "An unsupported response_type is answered at whatever URI is named."),
    Fault("missing_redirect_guessed", "RED-003", "Without redirect_uri the first of several is taken."),
    Fault("redirects_may_be_scripts", "RED-004", "javascript: and data: redirect URIs are registered."),
    Fault("redirects_may_be_files", "RED-004", "file: redirect URIs are registered."),
    Fault("scripts_in_odd_case", "RED-004", "JavaScript: is registered, and javascript: is not."),
    Fault("redirects_may_be_cleartext", "RED-004", "http redirect URIs of any host are registered."),
    Fault("local_lookalikes", "RED-004", "http is registered for hosts that begin with 127.0.0.1 or localhost."),
    Fault("redirects_may_have_fragments", "RED-004", "Redirect URIs with a fragment are registered."),
    Fault("redirects_may_be_relative", "RED-004", "Redirect URIs without a scheme are registered."),
    Fault("redirects_may_have_wildcards", "RED-004", "Redirect URIs with a wildcard are registered."),
    Fault("redirects_may_have_users", "RED-004", "Redirect URIs with user information are registered."),
    Fault("second_redirect_unchecked", "RED-004", "Only the first redirect URI of a registration is looked at."),
    Fault("dotless_schemes", "RED-004", "Private-use schemes without a dot are registered."),
)

_ANSWERS = (
    Fault("state_decoded_twice", "RED-005", "state is percent-decoded once more before it is returned."),
    Fault("state_trimmed", "RED-005", "White space around state is lost."),
    Fault("state_cut", "RED-005", "Only the first 128 characters of state are returned."),
    Fault("state_missing_from_errors", "RED-005", "An error response has no state."),
    Fault("state_twice", "RED-005", "state is returned twice."),
    Fault("iss_neither_promised_nor_sent", "RED-006", "Authorization responses have no iss, as the metadata says."),
    Fault("repeats_at_authorize", "RED-007", "Of a repeated authorization parameter the last one counts."),
    Fault("repeats_at_token", "RED-007", "Of a repeated token parameter the last one counts."),
    Fault("unknown_parameters_refused", "RED-007", "An unknown authorization parameter is an error."),
    Fault("unknown_token_parameters_refused", "RED-007", "An unknown token parameter is an error."),
    Fault("empty_scope_refused", "RED-007", "An empty scope is an error."),
    Fault("implicit_grant", "RED-008", "response_type=token is answered with an access token in the URL."),
    Fault("response_type_has_code", "RED-008", "A response_type with code among others brings a code."),
    Fault("response_type_any_case", "RED-008", "response_type is compared without regard to case."),
    Fault("response_type_ignored", "RED-008", "Any response_type brings a code."),
    Fault("response_type_refused_oddly", "RED-008", "An unsupported response_type is answered server_error."),
)

_PAGES = (
    Fault("consent_redirects_307", "RED-009", "The redirect after the consent form is a 307."),
    Fault("consent_redirects_308", "RED-009", "The redirect after the consent form is a 308."),
    Fault("pages_frameable", "RED-010", "No page forbids being framed."),
    Fault("error_pages_frameable", "RED-010", "Error pages do not forbid being framed."),
    Fault("frames_from_anywhere", "RED-010", "frame-ancestors lists every https origin."),
    Fault("referrer_policy_missing", "RED-011", "Pages have no Referrer-Policy."),
    Fault("referrer_policy_unsafe", "RED-011", "Pages have the Referrer-Policy unsafe-url."),
    Fault("third_party_images", "RED-011", "Pages load an image from another site."),
    Fault("errors_before_login", "RED-012", "Errors are redirected to the client before anybody has signed in."),
    Fault("consent_hides_redirect", "RED-013", "The consent page does not say where the answer goes."),
    Fault("consent_hides_loopback", "RED-013", "The consent page names hosts, and says nothing of loopback ones."),
    Fault("consent_remembered", "RED-014", "A client that was approved once is approved from then on."),
)

FAULTS = (*_URIS, *_ANSWERS, *_PAGES)
