"""Opaque tokens of a third party's issuer, bound to a key, which the guard asks the issuer about."""

import time
from datetime import timedelta

import pytest

from mcp_guard.asgi import ASGIApp
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.demo_server import demo_server
from mcp_guard.facts import Resource
from mcp_guard.introspection import ClientSecret, Introspection
from mcp_guard.profiles import standard
from mcp_guard.secret import Secret
from mcp_guard.stack import guard
from mcp_guard.tokens import TrustedIssuer
from tests.end_to_end.third_party import SCOPE, UNLIMITED, USER, Issuer, authorized, issuer, let_the_second_end
from tests.support.serving import serving

pytestmark = pytest.mark.clients

BELIEVED = timedelta(seconds=2)


def asking(theirs: Issuer, origin: str) -> ASGIApp:
    """The demo's server for tokens of the issuer, none of which it can read."""
    introspection = Introspection(theirs.url, ClientSecret("guard", Secret(theirs.secret)), positive=BELIEVED)
    layers = standard(
        resources=[Resource(f"{origin}/mcp", "/mcp", scopes=frozenset({SCOPE}))],
        issuers=[TrustedIssuer(theirs.url, introspection=introspection)],
        audit=AuditLog(MemorySink()),
        limits=UNLIMITED,
    )
    return guard(demo_server(), *layers)


def test_an_opaque_token_is_good_for_whoever_has_its_key_until_the_issuer_revokes_it() -> None:
    with issuer(opaque=True) as theirs, serving(lambda origin: asking(theirs, origin)) as ours:
        let_the_second_end()
        with authorized(f"{ours.url}/mcp") as client:
            assert client.ask("redeem")["opaque"]
            called = client.ask("call")
            assert called["status"] == 200
            assert USER in called["text"]
            for deed in ("repeat", "bearer", "unproved", "call with another key"):
                assert client.ask(deed)["status"] == 401, deed
            assert client.ask("call")["status"] == 200
            assert client.ask("revoke")["status"] == 200
            believed_until = time.monotonic() + BELIEVED.total_seconds()
            while time.monotonic() < believed_until:
                time.sleep(0.05)
            refused = client.ask("call")
            assert refused["status"] == 401
            assert 'error="invalid_token"' in refused["challenge"]
