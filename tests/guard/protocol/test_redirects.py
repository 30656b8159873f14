"""Redirect URIs: few may be registered, and only the registered one is redirected to."""

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol.redirects import (
    RESPONSE_PARAMETERS,
    RedirectError,
    find_match,
    matches,
    parse_redirect,
    with_parameters,
)

GOOD = [
    "https://app.example/cb",
    "https://app.example",
    "https://app.example/",
    "https://app.example:8443/a/b;c=d/e?x=1&y=%20",
    "https://app.example?tenant=7",
    "https://192.0.2.1/cb",
    "https://[2001:db8::1]:444/cb",
    "http://127.0.0.1/cb",
    "http://127.0.0.1:51234/cb",
    "http://[::1]:3000/",
    "http://localhost:3000/oauth/callback?flow=1",
    "com.example.app:/oauth2redirect",
    "com.example.app://callback/x",
    "com.example.app:cb",
]

# dcr-01, dcr-02, RED-004, REG-002
BAD = [
    "",
    "javascript:alert(1)",
    "JaVaScRiPt:x",
    "\tjavascript:x",
    " https://app.example/cb",
    "https://app.example/cb ",
    "https://app.example/cb\n",
    "data:text/html,x",
    "file:///etc/passwd",
    "vbscript:x",
    "myapp://callback",
    "blob:https://app.example/x",
    "about:blank",
    "http://app.example/cb",
    "http://127.0.0.1.evil.net/cb",
    "http://127.0.0.2/cb",
    "http://127.1/cb",
    "http://2130706433/cb",
    "http://0x7f000001/cb",
    "http://localhost.evil.net/cb",
    "http://localhost./cb",
    "http://[::ffff:127.0.0.1]/cb",
    "https://2130706433/cb",
    "https://app.example/cb#f",
    "https://app.example/cb#",
    "https://u:p@app.example/cb",
    "https://u@app.example/cb",
    "https://@app.example/cb",
    "http://127.0.0.1:80@evil.net/cb",
    "https://*.example/cb",
    "https://app.example:/cb",
    "https://app.example:0/cb",
    "https://app.example:080/cb",
    "https://app.example:99999/cb",
    "https://app.example:٣/cb",
    "https:///cb",
    "https:/app.example/cb",
    "https:app.example",
    "https://",
    "https://app..example/cb",
    "https://-app.example/cb",
    "https://app.example\\@evil.net/cb",
    "https:\\\\app.example\\cb",
    "https://app.exa\tmple/cb",
    "https://app.example/a/../cb",
    "https://app.example/./cb",
    "https://app.example/%2e%2E/cb",
    "https://app.example/..",
    "https://app.example/cb%",
    "https://app.example/cb%zz",
    "https://app.example/c b",
    'https://app.example/c"b',
    "https://app.example/<cb>",
    "https://äpp.example/cb",
    "https://app.example/é",
    "https://[::1/cb",
    "https://[:::1]/cb",
    "/cb",
    "//app.example/cb",
    "app.example/cb",
    "HTTPS://app.example/cb",
    "com.example.app:",
    "com.example.app:/a#f",
    "com.example.app:/a b",
    "com.example.app:/a\\b",
    "com.:x",
    "https://app.example/" + "a" * 2048,
]


@pytest.mark.parametrize("uri", GOOD)
def test_a_sound_uri_may_be_registered_and_matches_itself(uri: str) -> None:
    assert parse_redirect(uri).uri == uri
    assert matches(uri, uri)


@pytest.mark.parametrize("uri", BAD)
def test_anything_else_is_refused(uri: str) -> None:
    with pytest.raises(RedirectError):
        parse_redirect(uri)


@pytest.mark.parametrize("uri", BAD)
def test_a_refusal_does_not_quote_the_uri(uri: str) -> None:
    with pytest.raises(RedirectError) as refusal:
        parse_redirect(uri)
    assert len(uri) < 12 or uri not in str(refusal.value)


@pytest.mark.parametrize("name", sorted(RESPONSE_PARAMETERS))
@pytest.mark.parametrize("base", ["https://app.example/cb", "com.example.app:/cb"])
def test_a_uri_with_a_parameter_of_a_response_is_refused(base: str, name: str) -> None:
    with pytest.raises(RedirectError, match="authorization response"):
        parse_redirect(f"{base}?x=1&{name}=planted")


# dcr-03, RED-001
@pytest.mark.parametrize(
    "presented",
    [
        "https://app.example/cb/",
        "https://app.example/CB",
        "https://app.example/cb?x=1",
        "https://app.example/cb?",
        "https://app.example/cb/../evil",
        "https://app.example/x/../cb",
        "https://app.example/cb%2f",
        "https://app.example/c%62",
        "https://app.example:8443/cb",
        "https://app.example:443/cb",
        "http://app.example/cb",
        "https://APP.example/cb",
        "HTTPS://app.example/cb",
        "https://app.exa\tmple/cb",
        "https:\\\\app.example\\cb",
        "https://app.example\\cb",
        "https://app.example.evil.net/cb",
        "https://app.example@evil.net/cb",
        "https://app.example/cb#",
        "https://app.example/cb\n",
        "https://app.example./cb",
        "",
    ],
)
def test_no_other_spelling_of_a_registered_uri_matches(presented: str) -> None:
    assert not matches("https://app.example/cb", presented)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
@given(port=st.integers(1, 65535))
def test_the_port_of_a_loopback_uri_is_free(host: str, port: int) -> None:
    """dcr-04, RED-002."""
    assert matches(f"http://{host}/cb", f"http://{host}:{port}/cb")
    assert matches(f"http://{host}:{port}/cb?a=1", f"http://{host}/cb?a=1")
    assert not matches(f"http://{host}/cb", f"http://{host}:{port}/cb/")


# dcr-05
@pytest.mark.parametrize(
    "presented",
    [
        "http://127.0.0.1.evil.net/cb",
        "http://127.0.0.1@evil.net/cb",
        "http://localhost/cb",
        "http://[::1]/cb",
        "http://127.0.0.1:80@evil.net/cb",
        "http://127.0.0.1:99999/cb",
        "http://127.0.0.1:0/cb",
        "http://127.0.0.1:/cb",
        "http://127.0.0.1:080/cb",
        "https://127.0.0.1/cb",
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8080/CB",
        "http://127.0.0.1:8080/cb?x=1",
        "http://127.0.0.1:8080\\cb",
        "http://127.0.0.1:8080/cb#f",
        "http://127.0.0.1:8080/cb\n",
        "http://127.0.0.2:8080/cb",
        "HTTP://127.0.0.1:8080/cb",
    ],
)
def test_only_the_port_of_a_loopback_uri_is_free(presented: str) -> None:
    assert not matches("http://127.0.0.1/cb", presented)


@pytest.mark.parametrize("uri", ["https://127.0.0.1/cb", "https://localhost/cb", "com.example.app:/cb"])
def test_the_port_is_free_for_http_alone(uri: str) -> None:
    assert not matches(uri, uri.replace("/cb", ":5000/cb"))


@given(registered=st.sampled_from(GOOD), data=st.data())
def test_a_uri_with_one_character_changed_matches_only_in_a_loopback_port(registered: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(registered)))
    inserted = data.draw(st.characters(max_codepoint=0x2FF))
    kept = data.draw(st.sampled_from([place, min(place + 1, len(registered))]))
    presented = registered[:place] + inserted + registered[kept:]
    if presented == registered or not matches(registered, presented):
        return
    ours, theirs = urlsplit(registered), urlsplit(presented)
    assert ours.scheme == "http"
    assert (ours.hostname, ours.path, ours.query) == (theirs.hostname, theirs.path, theirs.query)
    assert theirs.hostname in {"127.0.0.1", "::1", "localhost"}
    assert theirs.username is None


def test_any_of_several_registered_uris_may_match() -> None:
    assert find_match(["https://a.example/", "https://b.example/"], "https://b.example/")
    assert not find_match(["https://a.example/", "https://b.example/"], "https://c.example/")
    assert not find_match([], "https://c.example/")


@pytest.mark.parametrize(
    ("uri", "display", "source", "loopback"),
    [
        ("https://App.example/cb", "app.example", "https://app.example", False),
        ("https://app.example:8443/cb", "app.example:8443", "https://app.example:8443", False),
        ("http://127.0.0.1:5000/cb", "127.0.0.1:5000", "http://127.0.0.1:5000", True),
        ("http://localhost/cb", "localhost", "http://localhost", True),
        ("http://[::1]:5000/cb", "[::1]:5000", "http:", True),
        ("https://[2001:db8:0::1]/cb", "[2001:db8::1]", "https:", False),
        ("com.example.app:/cb", "com.example.app:", "com.example.app:", False),
    ],
)
def test_a_person_is_shown_the_host_and_a_form_may_end_there(
    uri: str, display: str, source: str, loopback: bool
) -> None:
    redirect = parse_redirect(uri)
    assert redirect.display == display
    assert redirect.form_action_source == source
    assert redirect.is_loopback is loopback


@pytest.mark.parametrize("uri", GOOD)
def test_no_source_expression_can_end_its_directive(uri: str) -> None:
    assert not set(parse_redirect(uri).form_action_source) & set(" ;,'\"")


@given(uri=st.sampled_from(GOOD), state=st.text(max_size=60), code=st.text(min_size=1, max_size=20))
def test_a_response_comes_back_unchanged_and_once(uri: str, state: str, code: str) -> None:
    """RED-005, pkce-16."""
    try:
        state.encode()
        code.encode()
    except UnicodeEncodeError:
        return
    location = with_parameters(uri, [("code", code), ("state", state)])
    assert location.isascii()
    assert not set(location) & set(" \r\n\t<>\"'\\")
    assert location.startswith(uri)
    before = parse_qsl(urlsplit(uri).query, keep_blank_values=True)
    after = parse_qsl(urlsplit(location).query, keep_blank_values=True)
    assert after == [*before, ("code", code), ("state", state)]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://a.example/cb", "https://a.example/cb?code=1"),
        ("https://a.example/cb?", "https://a.example/cb?code=1"),
        ("https://a.example/cb?x=1", "https://a.example/cb?x=1&code=1"),
        ("https://a.example/cb?x=1&", "https://a.example/cb?x=1&code=1"),
    ],
)
def test_a_query_of_the_uri_is_kept(uri: str, expected: str) -> None:
    assert with_parameters(uri, [("code", "1")]) == expected
