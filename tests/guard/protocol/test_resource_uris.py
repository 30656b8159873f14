"""URIs are compared in one spelling; whatever a reader may take for another URI is not in it."""

import posixpath
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol.resource_uris import beginning, is_beginning, is_plain, spellings


@pytest.mark.parametrize(
    "uri",
    [
        "file:///data/x",
        "file:///data/x/",
        "file:///",
        "file:///a%20b%C3%BC%3F",
        "note:today",
        "note:a/b",
        "urn:isbn:0451450523",
        "config://app",
        "config://app:8080/x",
        "config:///x",
        "https://h.example/a?b=/../c",
        "https://h.example:8443/a;b,c=(d)[e]",
        "http://h.example:443/",
        "https://h.example:80?x",
    ],
)
def test_a_uri_in_its_one_spelling_is_plain(uri: str) -> None:
    assert is_plain(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "data",
        "/data",
        "File:///x",
        "1a:x",
        "config://App",
        "config://app./x",
        "config://a..b/x",
        "config://user@app/x",
        "config://app:080/x",
        "config://app:/x",
        "config://[::1]/x",
        "config://a%2eb/x",
        "http://h:80/x",
        "http://h:80",
        "ws://h:80?x",
        "https://h:443/x",
        "wss://h:443/x",
        "http:///x",
        "http:x",
        "http:/h/x",
        "file:/x",
        "file:x",
        "file://localhost/x",
        "file://host/x",
        "config:/x",
        "file:///a//b",
        "file:////a",
        "file:///a/./b",
        "file:///a/../b",
        "file:///..",
        "file:///a/.",
        "note:../a",
        "note:a//b",
        "file:///a%2Fb",
        "file:///a%5Cb",
        "file:///a%252Fb",
        "file:///%2E%2E/b",
        "file:///%61",
        "file:///%7E",
        "file:///%00",
        "file:///%7F",
        "file:///a%c3",
        "file:///a%C",
        "file:///a%",
        "file:///a%zz",
        "file:///a b",
        "file:///a\\b",
        "file:///a\tb",
        "file:///a\n",
        "file:///ä",
        "file:///a#b",
        "file:///a|b",
        "file:///{a}",
        "ﬁle:///a",
    ],
)
def test_a_uri_in_any_other_spelling_is_not(uri: str) -> None:
    assert not is_plain(uri)
    assert spellings(uri) == frozenset()


@given(st.text(alphabet="abA%25fF2EeC3./\\?#:@[]ü~-{}\t ", max_size=24))
def test_readers_that_decode_or_resolve_a_plain_path_find_the_same_one(rest: str) -> None:
    uri = f"file:///{rest}"
    if not is_plain(uri):
        return
    path = urlsplit(uri).path
    decoded = unquote(path, errors="strict") if "%C3" not in path else unquote(path)
    assert posixpath.normpath(decoded) == (decoded.rstrip("/") or "/")
    assert decoded.count("/") == path.count("/")
    assert urlsplit(uri).fragment == ""


def test_a_uri_goes_by_its_name_with_query_and_slash_and_without() -> None:
    assert spellings("config://app") == {"config://app", "config://app/"}
    assert spellings("config://app/") == {"config://app", "config://app/"}
    assert spellings("config://app/x?y=z/") == {"config://app/x?y=z/", "config://app/x", "config://app/x/"}


@pytest.mark.parametrize("text", ["file:///data/", "file:///da", "https://", "https://h", "note:", "note:a."])
def test_plain_uris_may_begin_so(text: str) -> None:
    assert is_beginning(text)


@pytest.mark.parametrize("text", ["fil", "", "file:", "FILE:", "file:///a/../", "file:///%2", "file:///%6"])
def test_no_plain_uri_begins_so(text: str) -> None:
    assert not is_beginning(text)


def test_a_template_begins_with_what_stands_before_its_first_expression() -> None:
    assert beginning("file:///data/{x}/{y}") == "file:///data/"
    assert beginning("{+uri}") == ""
    assert beginning("FILE:///{x}") is None
    assert beginning("fil{x}") is None
