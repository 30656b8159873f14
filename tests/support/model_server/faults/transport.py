"""Faults in the headers of Streamable HTTP, and in how messages are put into requests."""

from __future__ import annotations

from tests.support.model_server.faults.fault import Fault

FAULTS = (
    Fault("missing_version_is_newest", "HTTP-006", "A request without version header is of the newest revision."),
    Fault("version_in_body_ignored", "HTTP-007", "The version in the body may differ from the header's."),
    Fault("method_header_optional", "HTTP-008", "Mcp-Method may be left out."),
    Fault("method_header_case_blind", "HTTP-008", "Mcp-Method is compared without regard to case."),
    Fault("first_of_two_headers_counts", "HTTP-008", "Of two Mcp-Method headers the first counts."),
    Fault("name_header_optional", "HTTP-009", "Mcp-Name may be left out."),
    Fault("encoded_names_refused", "HTTP-011", "An encoded Mcp-Name is compared as it stands."),
    Fault("encoded_names_read_leniently", "HTTP-011", "Characters that are not base64 are skipped in Mcp-Name."),
    Fault("array_of_one_is_served", "HTTP-021", "An array of one message is served."),
)
