"""Faults of sessions on both session transports."""

from __future__ import annotations

from tests.support.model_server.faults.fault import Fault

FAULTS = (
    Fault("session_is_a_credential", "SESS-001", "A POST with a session id needs no token."),
    Fault("session_is_a_credential_on_get", "SESS-001", "A GET with a session id needs no token."),
    Fault("session_is_a_credential_on_delete", "SESS-001", "A DELETE with a session id needs no token."),
    Fault("session_excuses_a_bad_token", "SESS-001", "A session id makes up for a token that is no good."),
    Fault("session_unbound", "SESS-002", "Requests of any user are served in any session."),
    Fault("session_unbound_for_notifications", "SESS-002", "Notifications of any user are taken in any session."),
    Fault("session_unbound_on_get", "SESS-002", "Any user may open the stream of any session."),
    Fault("session_unbound_on_delete", "SESS-002", "Any user may end any session."),
    Fault("stolen_session_is_403", "SESS-002", "Another user's session is told apart from an unknown one."),
    Fault("stolen_session_ends", "SESS-002", "An attempt by another user ends the session."),
    Fault("session_bound_to_the_token", "SESS-003", "A session ends with the token that opened it."),
    Fault("session_bound_to_the_subject", "SESS-003", "Issuer and client are no part of the binding."),
    Fault("session_bound_to_the_client", "SESS-003", "Any user of the same client may use a session."),
    Fault("session_keeps_scopes", "SESS-004", "A session keeps the scopes of the token that opened it."),
    Fault("stream_outlives_revocation", "SESS-004", "A stream stays open after its token was revoked."),
    Fault("session_ids_are_counted", "SESS-005", "Session ids are a counter."),
    Fault("session_ids_are_short", "SESS-005", "Session ids hold 32 random bits."),
    Fault("session_ids_hold_the_user", "SESS-005", "Session ids hold the user's name."),
    Fault("missing_session_is_served", "SESS-006", "A request without a session id is served."),
    Fault("unknown_session_is_served", "SESS-006", "A request with an unknown session id is served."),
    Fault("ended_session_is_served", "SESS-006", "A session is still served after DELETE."),
    Fault("unknown_session_is_400", "SESS-006", "An unknown session id is answered 400."),
    Fault("session_id_adopted", "SESS-007", "initialize adopts the session id the client chose."),
    Fault("events_replayed_to_anyone", "SESS-008", "Event ids are looked up across sessions."),
    Fault("events_replayed_across_streams", "SESS-008", "Events of other streams of the session are replayed."),
    Fault("messages_on_every_stream", "SESS-009", "A message goes to every open stream of its session."),
    Fault("responses_across_sessions", "SESS-010", "A response from any session answers a pending request."),
    Fault("cancels_across_sessions", "SESS-010", "A cancellation from any session cancels by request id."),
    Fault("elicitation_unbound", "SESS-011", "Any user may answer an elicitation with the session id."),
    Fault("messages_unbound", "SESS-012", "Any user may post to the message endpoint.", "/sse"),
    Fault("messages_without_token", "SESS-012", "Anybody may post to the message endpoint.", "/sse"),
    Fault("endpoint_event_follows_host", "SESS-013", "The endpoint event names the request's Host.", "/sse"),
    Fault("endpoint_key_is_counted", "SESS-013", "The key in the endpoint event is a counter.", "/sse"),
    Fault("sessions_unlimited", "SESS-014", "The number of sessions has no bound."),
    Fault("calls_before_initialize", "SESS-015", "Tools run before initialize, without a session."),
    Fault("calls_before_initialize_on_sse", "SESS-015", "Tools run before initialize on the stream.", "/sse"),
)
