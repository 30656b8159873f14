"""What becomes of the attacks of the areas that are executable, of those of them that are outside the corpus.

`ELSEWHERE` are decided by tests that need limits, a fault or a clock of their own: for each the file and the test.
`PENDING` are not covered yet: for each the reason. `IDS` are all of these areas, so that nothing is forgotten.
"""

from collections.abc import Mapping

DOS = "tests/guard/attacks/test_dos.py"
DPOP = "tests/guard/attacks/test_dpop.py"
KEYSOURCES = "tests/guard/test_keysources.py"
RATE = "tests/guard/attacks/test_rate.py"
TLS = "tests/guard/attacks/test_tls_proxy.py"
STREAMS = "tests/guard/layers/test_streams.py"

FAULTS: Mapping[str, tuple[int, ...]] = {
    "tests/guard/faults/test_starts.py": (1, 6),
    "tests/guard/faults/test_outages.py": (2, 3, 5, 7, 12, 14),
    "tests/guard/faults/test_failover.py": (4,),
    "tests/guard/faults/test_cluster.py": (8,),
    "tests/guard/faults/test_errors.py": (9,),
    "tests/guard/faults/test_records.py": (10, 11, 15, 16),
    "tests/guard/faults/test_clock.py": (18,),
}

ELSEWHERE: Mapping[str, tuple[str, str]] = {
    "csrf-07": ("tests/guard/oauth/test_consent.py", "csrf-07"),
    "dos-04": ("tests/guard/oauth/test_authorize.py", "dos-04"),
    "dos-01": ("tests/guard/load/test_slow_bodies.py", "dos-01"),
    "dos-02": ("tests/guard/test_serving.py", "dos-02"),
    "dos-03": (STREAMS, "dos-03"),
    "dos-08": ("tests/guard/load/test_slow_clients.py", "dos-08"),
    "dos-09": ("tests/guard/load/test_idle_streams.py", "dos-09"),
    "dos-10": ("tests/guard/load/test_shutdown.py", "dos-10"),
    "dos-11": ("tests/guard/load/test_endurance.py", "dos-11"),
    "dos-05": (DOS, "test_dos_05_"),
    "dos-06": (DOS, "test_dos_06_"),
    "dpop-05": ("tests/end_to_end/test_bound_tokens.py", "test_dpop_05_"),
    "dpop-07": (DPOP, "test_dpop_07_"),
    "dpop-23": (DPOP, "test_dpop_23_"),
    "http-03": ("tests/guard/layers/test_wire.py", "http-03"),
    "http-26": ("tests/guard/test_exchange.py", "test_an_unknown_kind_of_scope_is_never_passed_on"),
    "http-29": ("tests/guard/wire/test_aborts.py", "http-29"),
    "http-30": ("tests/guard/test_exchange.py", "test_an_app_that_raises_before_its_response_is_answered_with_a_plain"),
    "http-31": ("tests/guard/test_stack.py", "test_while_it_cannot_start_every_request_is_refused_and_audited"),
    "jwks-01": (KEYSOURCES, "test_good_keys_stay_in_force_through_an_outage_until_the_grace_ends"),
    "jwks-02": (KEYSOURCES, "test_a_start_may_go_on_without_the_issuer_and_recovers"),
    "jwks-03": (KEYSOURCES, "test_a_thousand_waiting_requests_make_one_fetch"),
    "jwks-04": (KEYSOURCES, "test_garbage_never_replaces_good_keys"),
    "jwks-05": (KEYSOURCES, "test_an_endless_answer_is_read_to_its_bound"),
    "jwks-06": (KEYSOURCES, "test_no_redirect_is_followed"),
    "jwks-07": (KEYSOURCES, "test_bad_members_are_ignored_and_said_once"),
    "jwks-08": (KEYSOURCES, "test_a_new_key_is_found_at_its_first_token"),
    "jwt-06": (KEYSOURCES, "test_a_thousand_unknown_keys_cost_two_fetches_in_ten_seconds"),
    "jwt-30": ("tests/end_to_end/test_workers.py", "test_what_is_revoked_is_refused_by_every_worker"),
    "jwt-37": (KEYSOURCES, "test_a_withdrawn_key_counts_for_five_minutes_at_most"),
    "pkce-12": ("tests/guard/oauth/test_code.py", "pkce-12"),
    **{f"rate-{number:02d}": (RATE, f"test_rate_{number:02d}_") for number in (1, 2, 3, 4, 5, 6, 9, 13)},
    "rate-08": (DOS, "test_rate_08_"),
    "rate-12": (DOS, "test_rate_12_"),
    **{f"ses-{number}": (STREAMS, f"ses-{number}") for number in ("07", "17", "18")},
    "ses-09": ("tests/end_to_end/test_event_ids.py", "test_ses_09_"),
    **{f"ses-{number}": ("tests/end_to_end/test_sealed_state.py", f"test_ses_{number}_") for number in (22, 23, 24)},
    "ses-25": ("tests/end_to_end/test_owned_handles.py", "test_ses_25_"),
    **{f"st-{number:02d}": (file, f"st_{number:02d}_") for file, numbers in FAULTS.items() for number in numbers},
    **{f"tls-0{number}": (TLS, f"tls-0{number}") for number in (1, 2, 3, 4)},
    **{f"tls-0{number}": ("tests/guard/layers/test_tls.py", f"test_tls_0{number}_") for number in (5, 6)},
    "tls-07": ("tests/guard/test_encryption.py", "test_tls_07_"),
    "tls-09": ("tests/guard/load/test_certificate_renewal.py", "test_tls_09_"),
    "st-17": ("tests/guard/test_workers.py", "test_uvicorn_with_two_workers_on_memory_stops_and_says_why"),
    "ws-04": ("tests/guard/attacks/test_websocket.py", "test_ws_04_"),
    "ws-05": ("tests/end_to_end/test_websocket.py", "test_ws_05_"),
    "ses-16": ("tests/guard/layers/test_session.py", "test_a_session_expires_when_it_is_not_used"),
}

PENDING: Mapping[str, str] = {
    "csrf-08": "there is no upstream identity provider in the first form, so there is no callback",
    "jwt-25": "keys of other use or strength are refused by unit tests; the live issuer has one key",
}

NUMBERS: Mapping[str, tuple[int, ...]] = {
    "csrf": (1, 2, 3, 4, 5, 6, 7, 8, 9, 11),
    "disc": (1, 2, 4, 5, 6, 7, 8, 9),
    "dos": (1, 2, 3, 4, 5, 6, 8, 9, 10, 11),
    "dpop": (1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 21, 22, 23, 24, 26, 28),
    "http": (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13, 14, 15, 16, 18, 19, 21, 22, 23, 24, 25, 26, 28, 29, 30, 31, 32, 33),
    "jwks": tuple(range(1, 9)),
    "jwt": (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 19, 20, 22, 23, 24, 25, 26, 29, 30, 31, 32, 33, 34, 36, 37),
    "pkce": (1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 14, 15, 16),
    "rate": (1, 2, 3, 4, 5, 6, 8, 9, 12, 13),
    "res": (1, 2, 3, 4, 5, 6, 8, 11, 12),
    "ses": (1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 27, 28),
    "st": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18),
    "tls": (1, 2, 3, 4, 5, 6, 7, 9),
    "ws": (1, 2, 3, 4, 5),
    "wire": (1, 2, 3, 5, 6, 9, 10),
}

IDS = frozenset(f"{area}-{number:02d}" for area, numbers in NUMBERS.items() for number in numbers)
