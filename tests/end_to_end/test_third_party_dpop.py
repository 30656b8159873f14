"""A client library of a third party with DPoP: at a third party's issuer, and at the embedded authorization server."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from mcp_guard.asgi import ASGIApp
from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.demo_server import demo_server
from mcp_guard.facts import Resource
from mcp_guard.keyring import KeyRing
from mcp_guard.keysources import RemoteKeys
from mcp_guard.oauth import AuthorizationServer, ProofTerms, StaticUsers
from mcp_guard.profiles import Proofs, standard
from mcp_guard.stack import guard
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.tokens import TrustedIssuer
from tests.end_to_end.third_party import (
    PASSWORD,
    REDIRECT,
    SCOPE,
    UNLIMITED,
    USER,
    authorized,
    issuer,
    let_the_second_end,
    program,
)
from tests.end_to_end.walker import walk
from tests.support.serving import serving

pytestmark = pytest.mark.clients


def at_their_issuer(issuer_url: str, origin: str) -> ASGIApp:
    """The demo's server for bound tokens of the issuer alone, with nonces."""
    layers = standard(
        resources=[Resource(f"{origin}/mcp", "/mcp", scopes=frozenset({SCOPE}), dpop="required")],
        issuers=[TrustedIssuer(issuer_url, RemoteKeys(issuer_url))],
        audit=AuditLog(MemorySink()),
        limits=UNLIMITED,
        proofs=Proofs(nonces=True),
    )
    return guard(demo_server(), *layers)


def at_our_own(origin: str) -> ASGIApp:
    """The demo's server with the embedded authorization server, and nonces of each."""
    store, ring = MemoryStore(), KeyRing.generate()
    resources = [Resource(f"{origin}/mcp", "/mcp", scopes=frozenset({SCOPE}))]
    server = AuthorizationServer(
        issuer=origin,
        store=store,
        users=StaticUsers.from_pairs({USER: PASSWORD}),
        resources=resources,
        scopes={SCOPE: "Call the tools"},
        proofs=ProofTerms(nonces=ring),
    )
    layers = standard(
        resources=resources,
        authorization_server=server,
        store=store,
        ring=ring,
        audit=AuditLog(MemorySink()),
        limits=UNLIMITED,
        proofs=Proofs(nonces=True),
    )
    return guard(demo_server(), *layers)


@contextmanager
def at_either(whose: str) -> Iterator[str]:
    """An MCP endpoint for tokens of `whose` authorization server."""
    with ExitStack() as until_closed:
        if whose == "ours":
            ours = until_closed.enter_context(serving(at_our_own))
        else:
            theirs = until_closed.enter_context(issuer(nonces=True))
            ours = until_closed.enter_context(serving(lambda origin: at_their_issuer(theirs.url, origin)))
        let_the_second_end()
        yield f"{ours.url}/mcp"


@pytest.mark.parametrize("whose", ["theirs", "ours"])
def test_a_client_of_a_third_party_calls_a_tool_and_a_thief_without_its_key_does_not(whose: str) -> None:
    with at_either(whose) as mcp, authorized(mcp) as client:
        assert client.ask("redeem")["token_type"].lower() == "dpop"
        called = client.ask("call")
        assert called["nonces"] == {"issuer": 1, "resource": 1}, "both asked for a nonce, once"
        assert called["status"] == 200
        assert USER in called["text"]
        for deed in ("repeat", "bearer", "unproved", "call with another key"):
            refused = client.ask(deed)
            assert refused["status"] == 401, f"{deed}: {refused}"
            assert "DPoP" in refused["challenge"], f"{deed}: {refused}"
        assert client.ask("refresh")["token_type"].lower() == "dpop"
        assert client.ask("call")["status"] == 200


def test_a_code_of_ours_is_of_no_use_without_the_key_that_it_was_asked_for_with() -> None:
    with at_either("ours") as mcp, authorized(mcp) as client:
        stolen = client.ask("redeem with another key")
        assert (stolen["status"], stolen["error"]) == (400, "invalid_grant")
        unproved = client.ask("redeem without a key")
        assert (unproved["status"], unproved["error"]) == (400, "invalid_dpop_proof")
        assert client.ask("redeem")["status"] == 200, "the code was left to the client"


def test_refresh_tokens_of_ours_are_bound_to_the_key_and_a_request_counts_once() -> None:
    with at_either("ours") as mcp, authorized(mcp) as client:
        client.ask("redeem")
        stolen = client.ask("refresh with another key")
        assert (stolen["status"], stolen["error"]) == (400, "invalid_grant")
        assert client.ask("refresh")["status"] == 200
        repeated = client.ask("repeat")
        assert repeated["status"] == 400
        assert "access_token" not in repeated["text"]
        assert client.ask("refresh")["status"] == 200, "nobody ended the grant"


@pytest.mark.parametrize("mode", ["legacy", "auto", {"pin": "2026-07-28"}], ids=str)
def test_the_typescript_sdk_binds_its_tokens_and_follows_nonces(mode: object) -> None:
    with at_either("ours") as mcp:
        settings = {"sdk": "2", "mode": mode, "dpop": True, "mcp": mcp, "redirect_uri": REDIRECT}
        with program("sdk_client", settings) as client:
            called = client.ask(walk(client.answer()["authorize"], USER, PASSWORD))
    assert called["token_type"] == "DPoP"
    assert USER in called["text"]
