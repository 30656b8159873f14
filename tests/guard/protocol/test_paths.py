"""Paths: one reading or none, and that reading is the router's."""

import contextlib
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Mount, Route

from mcp_guard.protocol.paths import PathError, canonical

PLAIN = ["/", "/mcp", "/mcp/", "/a/b/c", "/.well-known/oauth-protected-resource/mcp", "/a...b/..c", "/a!$&'()*+,=:@b"]
ENCODED = [
    (b"/caf%C3%A9", "/café"),
    (b"/a%20b/c", "/a b/c"),
    (b"/%E2%82%AC/", "/€/"),
    (b"/a%2Bb", "/a+b"),
    (b"/%c3%a9", "/é"),
]

# http-01, http-02, http-03, disc-04, disc-05: each raw target, whose decoded form is what servers put into the path.
AMBIGUOUS = [
    b"//mcp",
    b"/mcp//",
    b"/./mcp",
    b"/mcp/.",
    b"/mcp/..",
    b"/x/../mcp",
    b"/mcp/../mcp",
    b"/mc%70",
    b"/%6dcp",
    b"/%2fmcp",
    b"/mcp%2f",
    b"/mcp%2F",
    b"/mcp%00",
    b"/mcp%0a",
    b"/mcp%7f",
    b"/mcp%C2%85",
    b"/mcp;x=1",
    b"/mcp%3bx=1",
    b"/mcp\\",
    b"/mcp%5c",
    b"/mcp%3Fx",
    b"/mcp#x",
    b"/mcp%23x",
    b"/mcp?x=1",
    b"/mcp x",
    b"/mcp\t",
    b"/mcp\n",
    b"/mcp%252e",
    b"/mcp%25",
    b"/mcp%",
    b"/mcp%2",
    b"/mcp%zz",
    b"/mcp%u006d",
    b"/%2e/mcp",
    b"/%2e%2e/mcp",
    b"/.%2e/mcp",
    b"/..;/mcp",
    b"/mcp%ff",
    b"/mcp%c0%af",
    b"/mcp%ed%a0%80",
    b"/mc\xc3\xa9",
    b"/healthz/../mcp",
    b"/healthz%2f..%2fmcp",
    b"/healthz;/mcp",
    b"/healthz#/../mcp",
    b"//healthz/../mcp",
    b"/.well-known/../mcp",
    b"/.well-known/%2e%2e/mcp",
    b"/.well-known/..;/mcp",
    b"/.well-known/x/../../mcp",
    b"/.well-known/oauth-protected-resource/..%2fmcp",
    b"/.well-known//oauth-protected-resource",
    b"http://evil.example/mcp",
    b"mcp",
    b"*",
    b"",
]


def served(raw: bytes) -> str:
    """What uvicorn and hypercorn make of a raw path."""
    return unquote(raw.decode("latin-1"))


@pytest.mark.parametrize("path", PLAIN)
def test_a_plain_path_is_its_own_reading(path: str) -> None:
    assert canonical(path, path.encode()) == path
    assert canonical(path, None) == path


@pytest.mark.parametrize(("raw", "path"), ENCODED)
def test_encoded_utf_8_is_read_when_the_decoded_path_agrees(raw: bytes, path: str) -> None:
    assert canonical(path, raw) == path


@pytest.mark.parametrize("raw", AMBIGUOUS)
def test_a_target_with_a_second_reading_is_refused(raw: bytes) -> None:
    with pytest.raises(PathError):
        canonical(served(raw), raw)


@pytest.mark.parametrize("raw", AMBIGUOUS)
def test_no_server_can_hide_a_second_reading_by_normalising_the_path(raw: bytes) -> None:
    with pytest.raises(PathError):
        canonical("/mcp", raw)


@pytest.mark.parametrize(
    "path", ["/é", "/a b", "/mcp%2e", "//mcp", "/mcp\n", "/a;b", "/mcp?x", "/..", "/a/../b", "mcp", ""]
)
def test_without_the_raw_path_only_what_needs_no_decoding_is_read(path: str) -> None:
    with pytest.raises(PathError):
        canonical(path, None)


def test_a_path_other_than_the_request_line_s_is_refused() -> None:
    with pytest.raises(PathError, match="request line"):
        canonical("/mcp", b"/other")


def test_a_mount_point_is_part_of_the_path() -> None:
    assert canonical("/api/mcp", b"/api/mcp", "/api") == "/api/mcp"


@pytest.mark.parametrize("raw", [b"/mcp", b"/caf%C3%A9"])
def test_a_server_may_put_the_mount_point_in_front_of_the_decoded_path_alone(raw: bytes) -> None:
    path = "/api" + served(raw)
    assert canonical(path, raw, "/api") == path
    with pytest.raises(PathError):
        canonical(path, raw, "/other")


def test_a_mount_point_does_not_stand_in_for_a_request_line() -> None:
    with pytest.raises(PathError):
        canonical("/api", b"", "/api")


def test_a_failure_quotes_nothing_of_the_path() -> None:
    with pytest.raises(PathError) as caught:
        canonical("/secret%zz", b"/secret%zz")
    assert "secret" not in str(caught.value)


segments = st.text(st.sampled_from(list("mcp/.;%25eE \\?#é\x00\n+:@~a")), max_size=12)
targets = st.one_of(
    st.builds(lambda text: quote("/" + text, safe="/.;%+:@\\"), segments).map(str.encode),
    st.builds(lambda text: b"/" + text.encode(), segments),
    st.binary(max_size=20),
)


@given(targets)
@example(b"/mcp%0a")
def test_whatever_is_read_is_read_the_same_after_encoding_it_again(raw: bytes) -> None:
    try:
        path = canonical(served(raw), raw)
    except PathError:
        return
    again = quote(path, safe="/!$&'()*+,=:@").encode()
    assert canonical(path, again) == path
    assert path.startswith("/")
    assert "//" not in path
    assert not {".", ".."} & set(path.split("/"))


@given(st.text(max_size=20), st.one_of(st.none(), st.binary(max_size=20)), st.sampled_from(["", "/api", "/é"]))
def test_nothing_but_the_failure_is_raised(path: str, raw: bytes | None, root: str) -> None:
    with contextlib.suppress(PathError):
        assert canonical(path, raw, root) == path


async def endpoint(request: Request) -> Response:
    return Response("here")


ROUTES = [Route("/mcp", endpoint), Route("/mcp/", endpoint), Route("/healthz", endpoint)]
MOUNTED = Mount("/api", routes=ROUTES[:1])

near_targets = st.builds(
    lambda start, middle, end: (start + middle + end).encode(),
    st.sampled_from(["/mcp", "/healthz", "/api/mcp", "/mc", "/api", "//mcp", "/x/../mcp"]),
    st.sampled_from(["", "/", "%0a", "\n", "%2f", ";", "%20", ".", "/.", "%00", "?", "%3f", "p", "P", "%70"]),
    st.sampled_from(["", "/", "\n", "%0A", "x"]),
)


@given(near_targets)
@example(b"/mcp\n")
@example(b"/mcp%0a")
def test_the_router_sees_a_route_exactly_where_the_guard_sees_its_path(raw: bytes) -> None:
    try:
        path = canonical(served(raw), raw)
    except PathError:
        return
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    for route in ROUTES:
        assert (route.matches(scope)[0] is Match.FULL) == (path == route.path)
    mounted, child = MOUNTED.matches(scope)
    inner = mounted is Match.FULL and ROUTES[0].matches({**scope, **child})[0] is Match.FULL
    assert inner == (path == "/api/mcp")
