"""Whether a presented credential was authenticated, judged apart from the status code.

A forged token answered 403 `insufficient_scope` was accepted: its scopes were read. A server that answers everything
alike proves nothing either way. So an answer is compared with what the same request gets with a good token, and with
none.
"""

from __future__ import annotations

from enum import StrEnum

from pytest_mcp_conformance.exchange import Exchange

Signature = tuple[int, str]


class Acceptance(StrEnum):
    """What became of a credential."""

    AUTHENTICATED = "authenticated"
    REFUSED = "refused"
    UNCLEAR = "unclear"


def signature(exchange: Exchange) -> Signature:
    """What tells kinds of answers apart: the status, and the JSON-RPC result or error code or the challenge's error."""
    challenge = exchange.bearer()
    if challenge is not None:
        return exchange.status, f"challenge {challenge.parameters.get('error', '')}"
    message = exchange.message()
    if message is None:
        return exchange.status, exchange.media_type if exchange.media_type == "text/event-stream" else ""
    return exchange.status, "result" if "error" not in message else f"error {exchange.rpc_error}"


def judge(presented: Exchange, *, anonymous: Exchange, good: Exchange | None) -> Acceptance:
    """Whether the credential in `presented` was authenticated.

    `anonymous` is the same request without a credential, `good` the same with a good one (None when the run has none).

    - 401, or a challenge with `invalid_token` or `invalid_request`: refused.
    - A challenge with `insufficient_scope` that the request without a credential does not get: authenticated.
    - Answered like the good credential and unlike none at all: authenticated. This covers a JSON-RPC error or an
    unknown session that only a request past the gate can meet.
    - A success where none at all is refused with 401 or 403: authenticated.
    - Answered like no credential, where a good one is answered otherwise: refused.
    - Anything else, 429 and 5xx and no answer included: unclear.
    """
    if presented.status in {0, 429} or presented.status >= 500:
        return Acceptance.UNCLEAR
    challenge = presented.bearer()
    error = "" if challenge is None else challenge.parameters.get("error", "")
    if presented.status == 401 or error in {"invalid_token", "invalid_request"}:
        return Acceptance.REFUSED
    seen, nobody = signature(presented), signature(anonymous)
    somebody = None if good is None else signature(good)
    if error == "insufficient_scope":
        return Acceptance.UNCLEAR if seen == nobody else Acceptance.AUTHENTICATED
    if seen == somebody and seen != nobody:
        return Acceptance.AUTHENTICATED
    if presented.succeeded and anonymous.status in {401, 403} and seen[1] in {"result", "text/event-stream", ""}:
        return Acceptance.AUTHENTICATED
    if seen == nobody and somebody is not None and somebody != nobody:
        return Acceptance.REFUSED
    return Acceptance.UNCLEAR
