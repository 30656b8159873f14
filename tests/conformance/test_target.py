from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pytest_mcp_conformance import Finding, Inconclusive, NotApplicable, NotRun, mcp
from pytest_mcp_conformance.acceptance import Acceptance
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.target import Target
from tests.conformance.answers import RESULT, answered
from tests.conformance.test_probe import make_probe
from tests.conformance.test_properties import settings
from tests.support.serving import serving

GOOD = Credential("a", "good-token")
CHALLENGE = {"WWW-Authenticate": "Bearer"}
Behaviour = Callable[[Request, str], Response | None]


def nothing_special(request: Request, token: str) -> Response | None:
    return None


class Gate:
    """A server of the modern era that serves `good-token`; `behaviour` may answer otherwise."""

    def __init__(self, behaviour: Behaviour = nothing_special) -> None:
        self.behaviour = behaviour
        self.app = Starlette(routes=[Route("/mcp", self.serve, methods=["GET", "POST", "DELETE"])])

    async def serve(self, request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        special = self.behaviour(request, token)
        if special is not None:
            return special
        if token != "good-token":
            return Response(status_code=401, headers=CHALLENGE)
        if request.method != "POST":
            return Response(status_code=405)
        body = await request.json()
        if "_meta" not in body.get("params", {}):
            return JSONResponse({"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no"}}, 400)
        return JSONResponse(RESULT)


@contextlib.contextmanager
def target(behaviour: Behaviour = nothing_special, *, credential: Credential | None = GOOD) -> Iterator[Target]:
    def obtain() -> Credential:
        if credential is None:
            raise NotRun("there is none")
        return credential

    with serving(lambda base: Gate(behaviour).app) as server:
        chosen = settings()
        yield Target(type(chosen)(**{**chosen.__dict__, "target": f"{server.url}/mcp"}), make_probe(), obtain)


def test_a_batch_between_two_good_answers_stands() -> None:
    with target() as server:
        with server.controlled(GOOD) as before:
            assert before.status == 200
        assert (server.controls.run, server.controls.passed) == (2, 2)


def test_a_batch_whose_control_fails_first_is_inconclusive() -> None:
    with target() as server:
        revoked = server.controlled(Credential("a", "revoked"))
        with pytest.raises(Inconclusive, match="before the batch did not succeed: 401"), revoked:
            raise SystemError("the batch ran")
        assert (server.controls.run, server.controls.passed) == (1, 0)


@pytest.mark.parametrize("status", [401, 403, 503])
def test_a_target_that_turns_against_the_run_makes_the_batch_inconclusive(status: int) -> None:
    closed: list[int] = []

    def lock_out(request: Request, token: str) -> Response | None:
        return Response(status_code=closed[0]) if closed else None

    refused = pytest.raises(Inconclusive, match=f"after the batch did not succeed: {status}")
    with target(lock_out) as server, refused, server.controlled(GOOD):
        closed.append(status)


def test_a_finding_is_kept_whatever_the_second_control_would_say() -> None:
    with target() as server:
        with pytest.raises(Finding), server.controlled(GOOD):
            raise Finding("bad", evidence=answered(200), expected="x", got="y")
        assert server.controls.run == 1


def test_an_rpc_error_is_no_good_answer() -> None:
    def broken(request: Request, token: str) -> Response | None:
        return JSONResponse({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "x"}})

    with target(broken) as server, pytest.raises(Inconclusive, match="JSON-RPC error -32603"):
        server.control(GOOD, "here")


def test_the_eras_and_revisions_spoken_are_learned_once() -> None:
    with target() as server:
        assert server.eras == (Era.MODERN,)
        assert server.revisions == {mcp.MODERN_REVISION}
        sent = server.probe.ledger.requests
        assert server.era is Era.MODERN
        assert server.probe.ledger.requests == sent
        with pytest.raises(NotApplicable, match="does not speak the legacy era"):
            server.require(Era.LEGACY)


def test_without_a_credential_a_protected_target_is_judged_by_every_revision() -> None:
    with target(credential=None) as server:
        assert server.eras == ()
        assert "2025-06-18" in server.revisions
        with pytest.raises(Inconclusive, match="which eras it speaks is unknown"):
            server.require(Era.LEGACY)
        with pytest.raises(NotRun, match="there is none"):
            server.require_credential()


def test_what_was_learned_counts_as_evidence_again() -> None:
    with target() as server:
        server.require_protected()
        server.probe.cited.clear()
        server.require_protected()
        assert [exchange.status for exchange in server.probe.cited] == [401]


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("good-token", Acceptance.AUTHENTICATED),
        ("forged", Acceptance.REFUSED),
        ("few-scopes", Acceptance.AUTHENTICATED),
    ],
)
def test_a_presented_token_is_judged_apart_from_the_status(token: str, expected: Acceptance) -> None:
    def scoped(request: Request, token: str) -> Response | None:
        if token != "few-scopes":
            return None
        return Response(status_code=403, headers={"WWW-Authenticate": 'Bearer error="insufficient_scope"'})

    with target(scoped) as server:
        assert server.present(f"Bearer {token}").acceptance is expected


def test_a_server_that_refuses_everybody_alike_is_never_called_sound() -> None:
    with target(lambda request, token: Response(status_code=403)) as server:
        assert server.present("Bearer forged").acceptance is Acceptance.UNCLEAR
        with pytest.raises(Inconclusive), server.controlled(GOOD):
            raise SystemError("the batch ran")


def test_a_server_that_serves_everybody_requires_no_authorization() -> None:
    with target(lambda request, token: JSONResponse(RESULT), credential=None) as server:
        with pytest.raises(NotApplicable, match="requires no authorization"):
            server.require_protected()
        assert server.require_credential() is None


def test_a_server_that_fails_everybody_is_neither_open_nor_protected() -> None:
    unclear = pytest.raises(Inconclusive, match="neither served nor refused: 500")
    with target(lambda request, token: Response(status_code=500)) as server, unclear:
        server.require_protected()


def test_sessions_a_run_opened_are_ended_with_its_own_credential() -> None:
    ended: list[tuple[str, str]] = []

    def stateful(request: Request, token: str) -> Response | None:
        if request.method == "DELETE":
            ended.append((request.headers["mcp-session-id"], token))
            return Response()
        return JSONResponse(RESULT, headers={"Mcp-Session-Id": "opened-session"})

    with target(stateful) as server:
        server.send(mcp.initialize(), GOOD)
        server.close()
        assert ended == [("opened-session", "good-token")]
        server.close()
        assert len(ended) == 1


def test_modern_messages_mirror_their_body_in_the_headers() -> None:
    message = mcp.modern("tools/call", {"name": "naïve tool", "arguments": {}})
    headers = dict(message.headers)
    assert headers["Mcp-Method"] == "tools/call"
    assert headers["Mcp-Name"] == "=?base64?bmHDr3ZlIHRvb2w=?="
    assert (
        message.payload["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == headers["MCP-Protocol-Version"]
    )
    assert "id" not in mcp.modern("notifications/x", request_id=None).payload
