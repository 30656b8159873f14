"""Wire: what has two readings, or too much of it, goes no further."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard import rejections
from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.wire import INERT, SINGLE, Wire, judge_names, kept_canonical
from mcp_guard.rejections import Kind
from tests.guard.asgi import CountingApp, drive, http_scope
from tests.guard.layers.handshakes import handshake

Headers = list[tuple[bytes, bytes]]
HOST = (b"host", b"mcp.example.com")


async def refused(kind: Kind, layer: Wire | None = None, **request: Any) -> None:
    """Check that the request gets exactly this refusal and no further."""
    app = CountingApp()
    outcome = await drive((layer or Wire()).wrap(app), http_scope(**request))
    assert (outcome.status, app.calls) == (kind.status, 0)
    assert outcome.json()["error"] == kind.slug


async def admitted(layer: Wire | None = None, **request: Any) -> CountingApp:
    app = CountingApp()
    outcome = await drive((layer or Wire()).wrap(app), http_scope(**request))
    assert (outcome.status, app.calls) == (200, 1)
    return app


PATHS = [
    ("http-01", "//mcp", b"//mcp"),
    ("http-01", "/x/../mcp", b"/x/../mcp"),
    ("http-01", "/mcp", b"/mc%70"),
    ("http-01", "/mcp/", b"/mcp%2f"),
    ("http-01", "/mcp\x00", b"/mcp%00"),
    ("http-01", "/mcp;x=1", b"/mcp;x=1"),
    ("http-01", "/mcp\\", b"/mcp\\"),
    ("http-01", "/mcp?x", b"/mcp%3Fx"),
    ("http-01", "/mcp#x", b"/mcp#x"),
    ("http-02", "http://evil.example/mcp", b"http://evil.example/mcp"),
    ("http-02", "/mcp", b"http://evil.example/mcp"),
    ("http-02", "*", b"*"),
    ("http-03", "/healthz/../mcp", b"/healthz%2f..%2fmcp"),
    ("http-03", "/healthz;/mcp", b"/healthz;/mcp"),
    ("disc-04", "/.well-known/oauth-protected-resource/../mcp", b"/.well-known/oauth-protected-resource/..%2fmcp"),
    ("disc-05", "/.well-known/../mcp", b"/.well-known/../mcp"),
    ("disc-05", "/.well-known/../mcp", b"/.well-known/%2e%2e/mcp"),
    ("disc-05", "/.well-known/..;/mcp", b"/.well-known/..;/mcp"),
    ("http-24", "mcp", b"mcp"),
]


@pytest.mark.parametrize(("identifier", "path", "raw_path"), PATHS)
async def test_a_path_with_a_second_reading_is_refused(identifier: str, path: str, raw_path: bytes) -> None:
    await refused(rejections.PATH_NOT_CANONICAL, path=path, raw_path=raw_path)


@pytest.mark.parametrize("query", [b"a=\xff", b"a b", b"a#b", b"a\x00"])
async def test_a_query_outside_its_alphabet_is_refused(query: bytes) -> None:
    await refused(rejections.PATH_NOT_CANONICAL, query=query)


async def test_an_ordinary_request_passes_with_nothing_hidden() -> None:
    headers = [HOST, (b"accept", b"a"), (b"accept", b"b"), (b"x-request-id", b"1")]
    app = await admitted(headers=headers, query=b"session_id=0a%20b&x=[1]")
    assert app.scopes[-1]["headers"] == headers


async def test_a_mounted_app_is_served_on_its_whole_path() -> None:
    await admitted(path="/api/mcp", raw_path=b"/api/mcp", root_path="/api")
    await admitted(path="/api/mcp", raw_path=b"/mcp", root_path="/api")


# http-28
async def test_http_28_the_request_target_is_bounded() -> None:
    await admitted(path="/" + "a" * 4095, query=b"b" * 4096)
    await refused(rejections.TARGET_TOO_LONG, path="/" + "a" * 4096, query=b"b" * 4096)
    await refused(rejections.TARGET_TOO_LONG, path="/" + "a" * 9000, raw_path=None)


async def test_http_28_the_header_fields_are_bounded() -> None:
    await admitted(headers=[(b"x-%d" % n, b"") for n in range(100)])
    await refused(rejections.HEADERS_TOO_LARGE, headers=[(b"x-%d" % n, b"") for n in range(101)])
    await admitted(headers=[(b"x", b"v" * (16 * 1024 - 1))])
    await refused(rejections.HEADERS_TOO_LARGE, headers=[(b"x", b"v" * (16 * 1024))])
    await refused(rejections.HEADERS_TOO_LARGE, headers=[(b"n" * (16 * 1024), b"v")])
    await admitted(headers=[(b"x%d" % n, b"v" * 16_000) for n in range(4)])
    await refused(rejections.HEADERS_TOO_LARGE, headers=[(b"x%d" % n, b"v" * 16_000) for n in range(5)])


@pytest.mark.parametrize("name", [b"", b"Host", b"x y", b"x\n", b"x\ny", b":path", b"x\xff", b"x(", b"x:"])
async def test_http_24_a_field_name_that_is_no_lower_case_token_is_refused(name: bytes) -> None:
    await refused(rejections.HEADER_MALFORMED, headers=[HOST, (name, b"1")])
    await refused(rejections.HEADER_MALFORMED, headers=[(name, b"1")])


CONTROLS = [bytes([byte]) for byte in (*range(0x20), 0x7F) if byte != 0x09]


@pytest.mark.parametrize("value", [b"a\r\nb", b"\n", b"\r", *(b"a%bb" % control for control in CONTROLS)])
async def test_a_value_with_a_control_character_is_refused(value: bytes) -> None:
    await refused(rejections.HEADER_MALFORMED, headers=[HOST, (b"x", value)])
    await refused(rejections.HEADER_MALFORMED, headers=[(b"x", value), HOST])


async def test_what_is_no_ascii_in_a_value_is_handed_on_as_it_is() -> None:
    headers = [HOST, (b"x", b"a\tb \xa0\x85\xff")]
    assert (await admitted(headers=headers)).scopes[-1]["headers"] == headers


@pytest.mark.parametrize("blanks", [b" ", b"\t", b" \t "])
@pytest.mark.parametrize("name", [b"mcp-method", b"host", b"x-anything"])
async def test_blanks_around_a_value_are_taken_off_for_everybody(name: bytes, blanks: bytes) -> None:
    """RFC 9110 §5.5: httptools leaves them at the end."""
    for value in (b"a b" + blanks, blanks + b"a b", blanks + b"a b" + blanks):
        for headers in ([(name, value), (b"y", b"1")], [(b"y", b"1"), (name, value)]):
            app = await admitted(headers=headers)
            assert sorted(app.scopes[-1]["headers"]) == sorted([(name, b"a b"), (b"y", b"1")])
    assert (await admitted(headers=[(name, blanks)])).scopes[-1]["headers"] == [(name, b"")]


async def test_blanks_do_not_bring_back_what_is_hidden() -> None:
    app = await admitted(headers=[HOST, (b"x_y", b"1 "), (b"range", b" 1"), (b"x", b" 1 ")])
    assert app.scopes[-1]["headers"] == [HOST, (b"x", b"1")]


async def test_framing_is_judged_without_the_blanks() -> None:
    for name, value in ((b"content-length", b"2"), (b"transfer-encoding", b"chunked")):
        app = await admitted(headers=[HOST, (name, value + b" ")])
        assert app.scopes[-1]["headers"] == [HOST, (name, value)]
    await refused(rejections.FRAMING_AMBIGUOUS, headers=[HOST, (b"transfer-encoding", b"gzip, chunked ")])


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "1.10", ""])
async def test_a_version_whose_framing_is_not_known_is_refused(version: str) -> None:
    await refused(rejections.FRAMING_AMBIGUOUS, headers=[HOST], http_version=version)
    await refused(rejections.FRAMING_AMBIGUOUS, headers=[], http_version=version)


@pytest.mark.parametrize("version", ["1", "1.0", "2", "3"])
async def test_only_one_version_has_transfer_codings(version: str) -> None:
    """RFC 9112 §6.1, RFC 9113 §8.2.2"""
    await admitted(headers=[HOST, (b"content-length", b"0")], http_version=version)
    await refused(
        rejections.FRAMING_AMBIGUOUS, headers=[HOST, (b"transfer-encoding", b"chunked")], http_version=version
    )


# http-09
@pytest.mark.parametrize("name", sorted(SINGLE))
@pytest.mark.parametrize("values", [(b"1", b"2"), (b"2", b"1"), (b"1", b"1")])
async def test_http_09_a_second_value_of_a_single_field_is_refused(name: bytes, values: tuple[bytes, bytes]) -> None:
    await refused(rejections.HEADER_REPEATED, headers=[(name, values[0]), (b"x", b""), (name, values[1])])


# http-10, http-11
FRAMING: list[tuple[str, Headers]] = [
    ("http-10", [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")]),
    ("http-10", [(b"transfer-encoding", b"chunked"), (b"content-length", b"0")]),
    ("http-10", [(b"transfer-encoding", b"gzip, chunked")]),
    ("http-10", [(b"transfer-encoding", b"identity")]),
    ("http-10", [(b"transfer-encoding", b"")]),
    ("http-11", [(b"content-length", b"1_0")]),
    ("http-11", [(b"content-length", b"+10")]),
    ("http-11", [(b"content-length", b"-1")]),
    ("http-11", [(b"content-length", b"1 0")]),
    ("http-11", [(b"content-length", b"")]),
    ("http-11", [(b"content-length", b"0x10")]),
    ("http-11", [(b"content-length", b"5, 5")]),
    ("http-11", [(b"content-length", b"1" * 20)]),
    ("http-11", [(b"content-length", "\uff11".encode())]),
]


@pytest.mark.parametrize(("identifier", "headers"), FRAMING)
async def test_a_body_of_two_lengths_is_refused(identifier: str, headers: Headers) -> None:
    await refused(rejections.FRAMING_AMBIGUOUS, headers=[HOST, *headers])


@pytest.mark.parametrize(("version", "connection"), [("1.1", b"close"), ("1.0", b"close"), ("2", None)])
async def test_a_connection_on_which_the_end_of_a_request_is_not_known_ends(
    version: str, connection: bytes | None
) -> None:
    """RFC 9112 §6.1; HTTP/2 has no such field, and ends every stream apart."""
    headers = [HOST, (b"content-length", b"5"), (b"transfer-encoding", b"chunked")]
    outcome = await drive(Wire().wrap(CountingApp()), http_scope(headers=headers, http_version=version))
    assert (outcome.status, outcome.value(b"connection")) == (400, connection)


@pytest.mark.parametrize(
    "header", [(b"content-length", b"0"), (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"Chunked")]
)
async def test_clear_framing_passes(header: tuple[bytes, bytes]) -> None:
    await admitted(headers=[HOST, header])


# http-21, disc-06
@pytest.mark.parametrize(
    "method", ["post", "get", "FOO", "TRACE", "CONNECT", "PROPFIND", "PUT", "PATCH", "", "POST ", "GÈT"]
)
async def test_http_21_a_method_that_is_not_let_through_is_answered_with_those_that_are(method: str) -> None:
    app = CountingApp()
    outcome = await drive(Wire().wrap(app), http_scope(method=method))
    assert (outcome.status, app.calls) == (405, 0)
    assert outcome.value(b"allow") == b"DELETE, GET, HEAD, OPTIONS, POST"


async def test_further_methods_may_be_let_through() -> None:
    await admitted(Wire(methods=("GET", "PUT")), method="PUT")
    await refused(rejections.METHOD_NOT_ALLOWED, Wire(methods=("GET", "PUT")), method="POST")


# http-21, http-04, http-33
@pytest.mark.parametrize("name", sorted(INERT))
async def test_http_21_fields_that_ask_for_another_method_url_or_part_are_not_handed_on(name: bytes) -> None:
    app = await admitted(headers=[HOST, (name, b"/healthz")])
    assert app.scopes[-1]["headers"] == [HOST]
    assert app.scopes[-1]["method"] == "POST"


# http-06
@pytest.mark.parametrize("name", [b"x_forwarded_for", b"mcp_session_id", b"x_mcp_subject", b"_", b"x-mcp_subject"])
async def test_http_06_names_with_an_underscore_are_not_handed_on(name: bytes) -> None:
    app = await admitted(headers=[HOST, (name, b"admin"), (b"mcp-session-id", b"1")])
    assert app.scopes[-1]["headers"] == [HOST, (b"mcp-session-id", b"1")]


# http-07
async def test_http_07_a_trailer_that_a_server_adds_to_the_live_list_is_not_seen() -> None:
    headers = [HOST]
    scope = http_scope(headers=())
    scope["headers"] = headers
    app = CountingApp()

    async def receive() -> dict[str, Any]:
        headers.append((b"x-mcp-subject", b"admin"))
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    await Wire().wrap(app)(scope, receive, send)
    assert app.scopes[-1]["headers"] == [HOST]


async def test_many_long_names_are_judged_like_few() -> None:
    long = [(b"x-" + b"a" * 50 + b"-%d" % n, b"") for n in range(60)]
    app = await admitted(headers=[*long, (b"x_y", b"1")])
    assert app.scopes[-1]["headers"] == long
    await refused(rejections.HEADER_REPEATED, headers=[*long, HOST, HOST])


async def test_a_websocket_handshake_is_judged_by_the_same_rules() -> None:
    assert await handshake(Wire(), path="//mcp") == "path_not_canonical"
    assert await handshake(Wire(), headers=[HOST, HOST]) == "header_repeated"


names = st.sampled_from([b"host", b"origin", b"x", b"x_y", b"range", b"content-length", b"X", b"a b", b""]) | st.binary(
    max_size=4
)
fields = st.lists(st.tuples(names, st.binary(max_size=6)), max_size=8)


@given(fields)
async def test_whatever_the_fields_what_the_app_sees_has_one_reading(headers: Headers) -> None:
    app = CountingApp()
    outcome = await drive(Wire().wrap(app), http_scope(headers=headers))
    if not app.calls:
        assert outcome.status in (400, 431)
        return
    seen = app.scopes[-1]["headers"]
    present = [name for name, _ in seen]
    assert all(present.count(name) <= 1 for name in SINGLE)
    assert all(name and name == name.lower() and b"_" not in name and name not in INERT for name in present)
    assert not any(byte in value for _, value in seen for byte in b"\r\n\x00")
    assert seen == [(name, value.strip(b" \t")) for name, value in headers if name in present]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"methods": ()}, "methods"),
        ({"methods": ("get",)}, "methods"),
        ({"methods": ("GET", "TRACE")}, "methods"),
        ({"methods": ("CONNECT",)}, "methods"),
        ({"max_target_bytes": 0}, "max_target_bytes"),
        ({"max_headers": 0}, "max_headers"),
        ({"max_header_bytes": 0}, "max_header_bytes"),
        ({"max_headers_bytes": -1}, "max_headers_bytes"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Wire(**settings)


async def test_what_is_kept_of_earlier_requests_is_bounded_in_size() -> None:
    requests: list[tuple[Any, dict[str, Any]]] = [
        (kept_canonical, {"path": "/" + "a" * 1000}),
        (judge_names, {"headers": [HOST, (b"x-" + b"a" * 3000, b"")]}),
    ]
    for kept, long in requests:
        kept.cache_clear()
        await admitted(**long)
        assert kept.cache_info().currsize == 0
        await admitted(headers=[HOST])
        assert kept.cache_info().currsize == 1
