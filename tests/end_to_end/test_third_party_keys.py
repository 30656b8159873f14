"""Tokens of a third party's issuer, verified with the keys that it publishes while it changes them."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import httpx
import jwt
import pytest

from mcp_guard.asgi import ASGIApp
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.demo import CURL_BODY
from mcp_guard.demo_server import demo_server
from mcp_guard.facts import Resource
from mcp_guard.keysources import RemoteKeys
from mcp_guard.profiles import standard
from mcp_guard.stack import guard
from mcp_guard.tokens import TrustedIssuer
from tests.end_to_end.third_party import SCOPE, UNLIMITED, Issuer, issuer
from tests.support.serving import serving

pytestmark = pytest.mark.clients

CALLERS = 4
CALLS = 60
"""Of each caller, before the change and after it."""


def behind(issuer_url: str, origin: str) -> ASGIApp:
    """The demo's server, for tokens of the issuer alone."""
    layers = standard(
        resources=[Resource(f"{origin}/mcp", "/mcp", scopes=frozenset({SCOPE}))],
        issuers=[TrustedIssuer(issuer_url, RemoteKeys(issuer_url))],
        audit=AuditLog(MemorySink()),
        limits=UNLIMITED,
    )
    return guard(demo_server(), *layers)


class Robot:
    """A client that calls the tool `whoami` with a new token for each call."""

    def __init__(self, http: httpx.Client, theirs: Issuer, mcp: str) -> None:
        self.http, self.theirs, self.mcp = http, theirs, mcp
        self.kids: set[str] = set()

    def token(self) -> str:
        fields = {"grant_type": "client_credentials", "resource": self.mcp, "scope": SCOPE}
        answer = self.http.post(f"{self.theirs.url}/token", data=fields, auth=("robot", self.theirs.secret))
        assert answer.status_code == 200, answer.text
        token = str(answer.json()["access_token"])
        self.kids.add(jwt.get_unverified_header(token)["kid"])
        return token

    def call(self, token: str) -> None:
        """Call the tool, which is to name the robot."""
        headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "whoami",
        }
        answer = self.http.post(self.mcp, content=CURL_BODY, headers=headers)
        assert answer.status_code == 200, f"{answer.status_code} {answer.headers.get('www-authenticate')}"
        assert "robot" in answer.text


def test_no_good_request_fails_while_the_issuer_changes_its_key() -> None:
    with (
        issuer() as theirs,
        serving(lambda origin: behind(theirs.url, origin)) as ours,
        httpx.Client(timeout=30) as http,
        ThreadPoolExecutor(CALLERS) as threads,
    ):
        robot, half_way = Robot(http, theirs, f"{ours.url}/mcp"), Barrier(CALLERS)

        def steadily(number: int) -> int:
            old = robot.token()
            for turn in range(2 * CALLS):
                if turn == CALLS and half_way.wait(30) == 0:
                    theirs.rotate()
                robot.call(old if turn % 3 == 0 else robot.token())
            return 2 * CALLS

        assert sum(threads.map(steadily, range(CALLERS))) == 2 * CALLS * CALLERS
    assert len(robot.kids) == 2, "the key was changed"
