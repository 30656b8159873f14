"""The command line's login with a browser: its listener, and what it opens."""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from mcp_guard.callback import Callback
from mcp_guard.login import Login, LoginError
from tests.support.serving import serving

SOON_SECONDS = 5.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture
def callback() -> Iterator[Callback]:
    with Callback() as listening:
        yield listening


def get(callback: Callback, path: str) -> tuple[int, str]:
    connection = HTTPConnection(urlsplit(callback.redirect_uri).netloc, timeout=SOON_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def connect(callback: Callback) -> socket.socket:
    address = urlsplit(callback.redirect_uri)
    return socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=SOON_SECONDS)


def test_the_response_is_taken_and_the_person_is_told(callback: Callback) -> None:
    status, page = get(callback, "/callback?code=a&state=b")
    assert status == 200
    assert "close this window" in page
    assert callback.wait(SOON_SECONDS) == "/callback?code=a&state=b"


def test_a_connection_on_which_nothing_is_said_holds_nobody_up(callback: Callback) -> None:
    with connect(callback):
        get(callback, "/callback?code=a")
        assert callback.wait(SOON_SECONDS) == "/callback?code=a"


def test_other_paths_are_not_taken_for_a_response(callback: Callback) -> None:
    for _ in range(12):
        assert get(callback, "/favicon.ico") == (404, "")
    get(callback, "/callback?code=a")
    assert callback.wait(SOON_SECONDS) == "/callback?code=a"


def test_a_browser_that_leaves_at_once_does_no_harm(callback: Callback, capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    for said in (b"", b"GET /callback?code=a HTTP/1.1\r\nHost: x\r\n\r\n"):
        with connect(callback) as browser:
            browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            browser.sendall(said)
    assert callback.wait(SOON_SECONDS) == "/callback?code=a"
    deadline = time.monotonic() + SOON_SECONDS
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert capsys.readouterr().err == ""


def test_waiting_ends(callback: Callback) -> None:
    assert callback.wait(0.01) is None


def test_the_listener_is_gone_after_its_block() -> None:
    before = threading.active_count()
    with Callback() as callback:
        pass
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        connect(callback)


def misleading(authorization_endpoint: str) -> Any:
    """An MCP endpoint whose authorization server says that it is found at `authorization_endpoint`."""

    def build(url: str) -> Any:
        documents: dict[str, dict[str, Any]] = {
            "/resource": {"resource": f"{url}/mcp", "authorization_servers": [url]},
            "/.well-known/oauth-authorization-server": {
                "issuer": url,
                "authorization_endpoint": authorization_endpoint,
                "registration_endpoint": f"{url}/register",
            },
            "/register": {"client_id": "c"},
        }
        return answering(documents, f'Bearer resource_metadata="{url}/resource"')

    return build


def answering(documents: dict[str, dict[str, Any]], challenge: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        document = documents.get(scope["path"])
        status = 401 if document is None else 201 if scope["path"] == "/register" else 200
        headers = [(b"content-type", b"application/json"), (b"www-authenticate", challenge.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(document).encode()})

    return app


@pytest.mark.parametrize("endpoint", ["file:///etc/passwd", "--help", "javascript:alert(1)", "http://a\x1b[2J"])
def test_only_a_web_address_is_opened(endpoint: str) -> None:
    said: list[str] = []
    with serving(misleading(endpoint), lifespan="off") as server:
        login = Login(f"{server.url}/mcp")
        with login.client, pytest.raises(LoginError, match="not a web address"):
            login.with_browser(said.append, timeout_seconds=1)
    assert said == []
