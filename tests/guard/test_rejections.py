"""Every refusal on one page: its name, its status and what the client reads."""

import json
import re

import pytest

from mcp_guard import rejections
from mcp_guard.facts import Call, MessageKind, RpcMessage
from mcp_guard.failures import StoreUnavailable
from mcp_guard.refusal import body_of, unavailable
from mcp_guard.rejections import KINDS, Kind

ALL = sorted(KINDS.values(), key=lambda kind: kind.slug)
CALL = Call((RpcMessage(MessageKind.REQUEST, "tools/call", "id-1", "add"),), None, False)


def test_every_kind_of_the_page_is_known_by_its_slug() -> None:
    declared = [value for value in vars(rejections).values() if isinstance(value, Kind)]
    assert len(declared) == len(KINDS) >= 40
    assert all(KINDS[kind.slug] is kind for kind in declared)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.slug)
def test_a_kind_is_well_formed(kind: Kind) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", kind.slug)
    # Handles of a JSON-RPC method are answered as servers answer them: see mcp_guard/layers/tasks.py.
    assert 400 <= kind.status < 600 or (kind.status == 200 and kind.code == rejections.INVALID_PARAMS)
    assert kind.source
    # RFC 6750 §3: what error_description and error may hold.
    assert re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]+", kind.description)
    assert re.fullmatch(r"[a-z_]*", kind.error)
    assert kind.code is None or -32768 <= kind.code <= -32000


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.slug)
def test_the_body_tells_the_description_and_never_the_reason(kind: Kind) -> None:
    content = json.loads(body_of(kind.because("canary reason", request_id=3), None))
    assert "canary" not in json.dumps(content)
    if kind.code is None:
        assert content == {"error": kind.error or kind.slug, "error_description": kind.description}
    else:
        assert content == {"jsonrpc": "2.0", "id": 3, "error": {"code": kind.code, "message": kind.description}}


def test_the_status_and_error_of_refused_tokens_are_those_of_rfc_6750() -> None:
    for slug, kind in KINDS.items():
        if kind.error == "invalid_token":
            assert kind.status == 401, slug
        if kind.error == "invalid_request":
            assert kind.status == 400, slug
        if kind.error == "insufficient_scope":
            assert kind.status == 403, slug
    assert rejections.CREDENTIALS_MISSING.error == ""
    assert rejections.SESSION_NOT_FOUND.status == 404
    assert rejections.LIMIT_EXCEEDED.status == 429


def test_codes_of_json_rpc_errors_are_in_the_range_left_to_servers_or_defined() -> None:
    defined = {-32700, -32600, -32602, -32020, -32021, -32022}
    for kind in ALL:
        assert kind.code is None or kind.code in defined or -32019 <= kind.code <= -32000


def test_the_id_of_a_known_call_is_echoed_before_that_of_the_rejection() -> None:
    rejection = rejections.SESSION_NOT_FOUND.because("gone", request_id="other")
    assert json.loads(body_of(rejection, CALL))["id"] == "id-1"
    batch = Call(CALL.messages * 2, None, False, batch=True)
    assert json.loads(body_of(rejection, batch))["id"] is None


def test_the_data_of_a_rejection_is_part_of_its_error() -> None:
    rejection = rejections.REVISION.because("too old", data={"supported": ["2026-07-28"]})
    assert json.loads(body_of(rejection, None))["error"]["data"] == {"supported": ["2026-07-28"]}


def test_the_reason_is_for_the_operator() -> None:
    rejection = rejections.TOKEN_EXPIRED.because("exp was 30 s ago", [(b"x", b"1")])
    assert str(rejection) == "token_expired: exp was 30 s ago"
    assert rejection.headers == [(b"x", b"1")]


def test_an_unavailability_says_when_to_come_back() -> None:
    rejection = unavailable(StoreUnavailable("no connection", retry_after_seconds=12))
    assert rejection.kind is rejections.UNAVAILABLE
    assert rejection.headers == [(b"retry-after", b"12")]
    assert rejection.reason == "no connection"
