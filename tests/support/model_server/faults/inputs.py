"""Faults in reading what clients send, and in what becomes of it."""

from __future__ import annotations

from tests.support.model_server.faults.fault import Fault

FAULTS = (
    Fault("bad_json_is_500", "INP-001", "A body that is no JSON is answered 500."),
    Fault("text_behind_json_ignored", "INP-001", "What follows the first JSON value of a body is ignored."),
    Fault("jsonrpc_member_ignored", "INP-001", "A message needs no jsonrpc member, or any."),
    Fault("error_id_made_up", "INP-001", "The answer to an unreadable body has an id."),
    Fault("ids_become_text", "INP-002", "A numeric id comes back as text."),
    Fault("any_id_is_served", "INP-002", "Any JSON value serves as id."),
    Fault("body_unbounded", "INP-003", "Bodies of any length are read."),
    Fault("chunked_body_unbounded", "INP-003", "Bodies without Content-Length are read at any length."),
    Fault("deep_json_is_500", "INP-003", "Deeply nested JSON is answered 500."),
    Fault("last_duplicate_runs", "INP-004", "The first of repeated members is judged and the last carried out."),
    Fault("first_duplicate_runs", "INP-004", "The last of repeated members is judged and the first carried out."),
    Fault(
        "members_of_other_case_run", "INP-004", "Members are judged by exact name and carried out whatever the case."
    ),
    Fault("utf_16_is_read", "INP-005", "Bodies in UTF-16 are read."),
    Fault("broken_utf_8_is_replaced", "INP-005", "Bytes that are not UTF-8 are replaced."),
    Fault("lone_surrogate_is_500", "INP-005", "An escaped lone surrogate is answered 500."),
    Fault("infinity_is_500", "INP-005", "A number too large for a float is answered 500."),
    Fault("gzip_bombs_expand", "INP-006", "A compressed body is expanded without a bound."),
    Fault("slow_bodies_block", "INP-006", "While a body is slow to come, nobody is served."),
    Fault("missing_arguments_run", "INP-007", "A tool runs without a required argument."),
    Fault("wrong_types_run", "INP-007", "A tool runs with arguments of another type."),
    Fault("structured_content_missing", "INP-008", "A tool with an output schema answers text alone."),
    Fault("structured_content_of_another_type", "INP-008", "A member of the structured content has another type."),
    Fault("templates_evaluated", "INP-010", "A template expression in an argument is evaluated."),
    Fault("urls_in_arguments_fetched", "INP-010", "A URL in an argument is fetched."),
    Fault("errors_hold_a_traceback", "INP-011", "An error holds a traceback."),
    Fault("errors_hold_a_path", "INP-011", "An error names a source file of the server."),
    Fault("path_splits_the_answer", "INP-013", "An encoded line break in the query begins a header of the answer."),
    Fault("odd_traceparent_is_500", "INP-014", "A malformed traceparent is answered 500."),
)
