from __future__ import annotations

import socket
import threading
import time

import pytest

from pytest_mcp_conformance.egress import Egress, Forbidden
from pytest_mcp_conformance.exchange import Request
from pytest_mcp_conformance.failures import BudgetExhausted, Inconclusive, RateLimited
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.redaction import Secrets
from tests.conformance.scripted import reply, scripted

OK = reply("200 OK", "Content-Type: application/json", body=b"{}")


def make_probe(*, max_requests: int = 50, requests_per_second: float = float("inf"), host: str = "127.0.0.1") -> Probe:
    egress = Egress(host, frozenset())
    return Probe(egress, max_requests=max_requests, requests_per_second=requests_per_second, secrets=Secrets())


def test_a_request_is_written_as_it_stands() -> None:
    headers = (("X-One", "a"), ("x-one", b"b\xff\x00"), ("Odd Name", ""))
    with scripted(OK) as script:
        request = Request("PATCH", script.url, headers, b"body", raw_target=b"/%2e%2e/ spaced?\xff")
        exchange = make_probe().send(request)
    sent = script.received[0]
    assert exchange.status == 200
    assert sent.startswith(b"PATCH /%2e%2e/ spaced?\xff HTTP/1.1\r\n")
    assert b"\r\nX-One: a\r\nx-one: b\xff\x00\r\nOdd Name: \r\n" in sent
    assert b"\r\nContent-Length: 4\r\n" in sent
    assert sent.endswith(b"\r\n\r\nbody")


def test_headers_can_be_left_out_and_doubled() -> None:
    with scripted(OK) as script:
        request = Request("GET", script.url, (("Host", "a"), ("Host", "b")), omit=frozenset({"user-agent"}))
        make_probe().send(request)
    assert script.received[0] == b"GET /mcp HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"


def test_a_body_is_sent_in_the_chunks_given() -> None:
    with scripted(OK) as script:
        make_probe().send(Request("POST", script.url, chunks=(b"ab", b"c")))
    assert script.received[0].endswith(b"\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
    assert b"Content-Length" not in script.received[0]


def test_several_requests_share_one_connection() -> None:
    with scripted(OK, OK, reply("200 OK", "Connection: close"), OK) as script:
        probe = make_probe()
        with probe.connection(script.url) as link:
            for _ in range(4):
                assert link.send(Request("GET", script.url)).status == 200
    assert script.connections == 2


@pytest.mark.parametrize("answer", [None, b"\x00\x01garbage\r\n\r\n"])
def test_a_server_that_sends_no_response_shows_as_status_zero(answer: bytes | None) -> None:
    with scripted(answer) as script:
        exchange = make_probe().send(Request("GET", script.url))
    assert (exchange.status, exchange.response) == (0, None)
    assert exchange.failure


def test_a_port_nobody_listens_on_shows_as_status_zero() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    exchange = make_probe().get(f"http://127.0.0.1:{port}/mcp")
    assert exchange.status == 0
    assert "refused" in exchange.failure


def test_redirects_are_not_followed() -> None:
    with scripted(reply("302 Found", "Location: /elsewhere")) as script:
        assert make_probe().get(script.url).header("location") == "/elsewhere"
    assert len(script.received) == 1


def test_no_more_than_the_budget_is_sent() -> None:
    with scripted(OK, OK, OK) as script:
        probe = make_probe(max_requests=2)
        probe.get(script.url)
        probe.get(script.url)
        with pytest.raises(BudgetExhausted, match="budget of 2 requests"):
            probe.get(script.url)
    assert len(script.received) == 2


def test_requests_keep_to_the_rate() -> None:
    started = time.monotonic()
    with scripted(OK, OK, OK) as script:
        probe = make_probe(requests_per_second=20)
        exchanges = [probe.get(script.url) for _ in range(3)]
    assert time.monotonic() - started >= 0.1
    assert sum(exchange.elapsed_seconds for exchange in exchanges) < 0.1  # waiting is not the server's time


def test_a_short_retry_after_is_waited_for_once() -> None:
    with scripted(reply("429 Too Many Requests", "Retry-After: 0"), OK) as script:
        probe = make_probe()
        assert probe.get(script.url).status == 200
    assert probe.ledger.refused_by_limit == 0


@pytest.mark.parametrize("header", ["Retry-After: 3600", "X: y", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_limit_that_cannot_be_waited_for_makes_the_check_inconclusive(header: str) -> None:
    with scripted(reply("429 Too Many Requests", header)) as script:
        probe = make_probe()
        with pytest.raises(RateLimited, match="429"):
            probe.get(script.url)
    assert probe.ledger.refused_by_limit == 1


def test_a_second_429_is_not_tried_again() -> None:
    limited = reply("429 Too Many Requests", "Retry-After: 0")
    with scripted(limited, limited, OK) as script:
        with pytest.raises(RateLimited, match="again"):
            make_probe().get(script.url)
        assert len(script.received) == 2


def test_a_check_of_the_limits_sees_the_429_itself() -> None:
    with scripted(reply("429 Too Many Requests", "Retry-After: 60")) as script:
        assert make_probe().send(Request("GET", script.url), heed_limits=False).status == 429


def test_a_spent_ratelimit_window_delays_the_next_request() -> None:
    with scripted(reply("200 OK", 'RateLimit: "default";r=0;t=1'), OK) as script:
        probe = make_probe()
        probe.get(script.url)
    assert probe.ledger.waited_seconds == 1.0


def test_events_are_read_as_they_come_and_waiting_for_them_ends() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    answer = head + b": hello\n\nevent: endpoint\nid: 7\ndata: /a\ndata: /b\n\ndata: cut"
    with scripted(answer) as script, make_probe().stream(Request("GET", script.url)) as (exchange, stream):
        event = stream.next_event(2.0)
        silence = stream.next_event(0.05)
    assert exchange.status == 200
    assert event is not None
    assert (event.event, event.data, event.id) == ("endpoint", "/a\n/b", "7")
    assert silence is None


def test_a_stream_that_stays_open_is_left_once_it_holds_the_answer() -> None:
    answer = b'event: message\ndata: {"jsonrpc": "2.0", "id": 1, "result": {}}\n\n'
    with scripted(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + answer) as script:
        exchange = make_probe().send(Request("POST", script.url, body=b"{}"))
    assert exchange.message() == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert exchange.response is not None
    assert exchange.response.cut == "stream answered"


def test_no_thread_is_left_behind_by_a_stream() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with scripted(head) as script, make_probe().stream(Request("GET", script.url)) as (exchange, _):
        assert exchange.media_type == "text/event-stream"
    assert not [thread for thread in threading.enumerate() if thread.name == "event stream"]


@pytest.mark.parametrize(
    ("target", "url", "reason"),
    [
        ("127.0.0.1", "http://mcp.example.com/x", "on loopback and mcp.example.com is not"),
        ("127.0.0.1", "https://8.8.8.8/x", "on loopback"),
        ("8.8.8.8", "https://127.0.0.1/x", "is this machine"),
        ("8.8.8.8", "https://localhost/x", "is this machine"),
        ("8.8.8.8", "http://9.9.9.9/x", "not https"),
        ("8.8.8.8", "https://10.0.0.1/x", "not a public address"),
        ("8.8.8.8", "https://[::ffff:10.0.0.1]/x", "not a public address"),
        ("8.8.8.8", "https://169.254.169.254/x", "not a public address"),
        ("8.8.8.8", "https://user@9.9.9.9/x", "plain"),
        ("8.8.8.8", "file:///etc/passwd", "plain"),
        ("8.8.8.8", "/relative", "plain"),
        ("8.8.8.8", "https://[::1", "not a URL"),
    ],
)
def test_urls_the_target_names_are_not_contacted_wherever_they_lead(target: str, url: str, reason: str) -> None:
    with pytest.raises(Forbidden, match=reason):
        Egress(target, frozenset()).addresses(url)
    probe = make_probe(host=target)
    with pytest.raises(Inconclusive, match="was not contacted"):
        probe.get(url)
    assert list(probe.ledger.not_contacted) == [url]


@pytest.mark.parametrize(
    ("target", "authorized", "url"),
    [
        ("127.0.0.1", "", "http://127.0.0.1:1/x"),
        ("127.0.0.1", "", "http://localhost:2/x"),
        ("8.8.8.8", "", "https://9.9.9.9/x"),
        ("10.0.0.1", "", "http://10.0.0.1/x"),
        ("8.8.8.8", "10.0.0.2", "https://10.0.0.2/x"),
    ],
)
def test_the_targets_host_and_authorized_and_public_ones_are_contacted(target: str, authorized: str, url: str) -> None:
    assert Egress(target, frozenset({authorized})).addresses(url)


def test_cookies_and_session_ids_are_secrets_as_soon_as_they_are_seen() -> None:
    with scripted(reply("200 OK", "Set-Cookie: sid=cookie-canary; Path=/", "Mcp-Session-Id: session-canary")) as script:
        probe = make_probe()
        probe.get(script.url)
    assert probe.secrets.redact("cookie-canary session-canary") == "$MCP_COOKIE $MCP_SESSION"


def test_unfinished_requests_stay_open_until_the_block_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        probe = make_probe()
        with probe.unfinished(Request("POST", url, (("Content-Length", "9"),), b"half"), 2):
            accepted = [listener.accept()[0] for _ in range(2)]
            assert [one.recv(4096).endswith(b"\r\n\r\nhalf") for one in accepted] == [True, True]
            assert probe.ledger.requests == 2
        assert [one.recv(1) for one in accepted] == [b"", b""]
        for one in accepted:
            one.close()


def test_an_unfinished_request_that_reaches_nobody_is_inconclusive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        pytest.raises(Inconclusive, match="could not be connected to"),
        make_probe().unfinished(Request("POST", f"http://127.0.0.1:{port}/mcp", (), b"half"), 1),
    ):
        raise AssertionError("nothing was opened")
