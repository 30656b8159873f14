"""RATE, whose calls are counted: one user's, however they come; and nobody else's. After all other checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from conformance_suites.access_tokens import claims_of
from conformance_suites.limited_calls import LimitedCalls, limited_calls
from conformance_suites.sessions import open_session
from conformance_suites.test_rate import exhausted
from pytest_mcp_conformance import Finding, Inconclusive, mcp, requirement
from pytest_mcp_conformance.checks import last
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.structured_fields import Malformed, read_list
from pytest_mcp_conformance.target import Target

FIELDS: dict[str, str] = {
    "X-Forwarded-For": "192.0.2.{n}",
    "Forwarded": "for=192.0.2.{n}",
    "X-Real-IP": "192.0.2.{n}",
    "True-Client-IP": "192.0.2.{n}",
    "CF-Connecting-IP": "192.0.2.{n}",
    "X-Client-IP": "192.0.2.{n}",
    "User-Agent": "conformance/{n}",
    "X-Forwarded-User": "conformance-{n}",
    "X-Request-Id": "conformance-{n}",
    "Accept-Language": "x-{n}",
    "Origin-Agent-Cluster": "?{n}",
}


class LimitEvaded(Finding):
    """A used up limit does not hold for a call that was written differently."""


class LimitShared(Finding):
    """One user's calls used up another user's limit."""


class KeyRevealsUser(Finding):
    """The partition key in a RateLimit field names the user."""


@last
@requirement("RATE-005")
def test_a_used_up_limit_holds_however_the_call_is_written(
    target: Target, alice: Credential, declared: Declarations
) -> None:
    """OWASP API4:2023. Uses the declared limit up, then sends each variant of the call once, and one that is carried
    out twice more.
    """
    calls = limited_calls(target, alice, declared)
    exhausted(calls)
    for what, attempt in _variants(target, calls, alice):
        shown = calls.passes(attempt)
        if shown is not None:
            raise LimitEvaded(
                "a used up limit does not hold for a call that was written differently",
                evidence=shown,
                expected="a refusal",
                got=shown.summary,
                counterexample=what,
            )
    calls.prove_exhausted()


def _variants(target: Target, calls: LimitedCalls, credential: Credential) -> list[tuple[str, Callable[[], Exchange]]]:
    """Ways to write the call, each afresh every time it is asked for."""
    count = iter(range(1, 250))
    plain = calls.request()

    def with_field(name: str, value: str) -> Callable[[], Exchange]:
        return lambda: calls.call(plain.with_headers((name, value.format(n=next(count)))))

    def in_session() -> Exchange:
        session = open_session(target, credential)
        message = mcp.legacy("tools/call", {"name": calls.limit.name, "arguments": {}}, session=session)
        return calls.call(message.request(target.url))

    found = [(f"with another {name}", with_field(name, value)) for name, value in FIELDS.items()]
    found.append(("with other client information", lambda: calls.call(_renamed(plain, next(count)))))
    found += [(f"at {path}", _at(calls, plain, path)) for path in _paths(target.url)]
    if Era.LEGACY in target.eras:
        found.append(("in a new session", in_session))
    return found


def _at(calls: LimitedCalls, plain: Request, path: str) -> Callable[[], Exchange]:
    return lambda: calls.call(replace(plain, raw_target=path.encode()))


def _paths(url: str) -> list[str]:
    path = urlsplit(url).path
    return [f"{path}/", f"/{path}", f"{path}?a=b", path[:1] + f"%{ord(path[1]):02x}" + path[2:]] if path[1:] else ["//"]


def _renamed(request: Request, number: int) -> Request:
    """The request by a client of another name and with another id."""
    body = json.loads(request.body or b"{}")
    body["id"] = number
    info = body.get("params", {}).get("_meta", {}).get("io.modelcontextprotocol/clientInfo")
    if isinstance(info, dict):
        info["name"] = f"conformance-{number}"
    return replace(request, body=json.dumps(body).encode())


@last
@requirement("RATE-005")
def test_a_used_up_limit_holds_for_another_token(
    target: Target, authorization_server: AuthorizationServer, declared: Declarations
) -> None:
    """OWASP API4:2023. Logs in three times at most, and uses the declared limit up with the first token."""
    first = _fresh(authorization_server)
    calls = limited_calls(target, first, declared)
    target.control(first, "before")
    exhausted(calls)

    def attempt() -> Exchange:
        header: Header = _fresh(authorization_server).header
        return target.probe.send(calls.request().with_headers(header), heed_limits=False)

    shown = calls.passes(attempt)
    if shown is not None:
        raise LimitEvaded(
            "a used up limit does not hold for another token of the same user",
            evidence=shown,
            expected="a refusal",
            got=shown.summary,
            counterexample="a token from another login",
        )
    calls.prove_exhausted()


def _fresh(server: AuthorizationServer) -> Credential:
    return server.credential("a")


@last
@requirement("RATE-006")
def test_one_users_calls_are_not_anothers(
    target: Target, alice: Credential, bob: Credential, declared: Declarations
) -> None:
    """OWASP API4:2023. Uses user A's declared limit up, and calls as user B from the same address, at most
    three times.
    """
    theirs = limited_calls(target, bob, declared)
    before = theirs.call()
    if theirs.refused(before) and target.probe.wait(theirs.limit.seconds):
        before = theirs.call()
    if theirs.refused(before):
        raise Inconclusive(f"user B is refused before user A's limit is used up: {before.summary}")
    calls = limited_calls(target, alice, declared)
    refusal = exhausted(calls)
    after = theirs.call()
    if theirs.refused(after):
        raise LimitShared(
            "one user's calls used up another user's limit",
            evidence=(refusal, after),
            expected="a result for user B",
            got=after.summary,
        )
    calls.prove_exhausted()
    for credential, exchange in ((alice, refusal), (bob, after)):
        _judge_keys(credential, exchange)


def _judge_keys(credential: Credential, exchange: Exchange) -> None:
    claims = claims_of(credential.token) or {}
    names = {str(claims[name]) for name in ("sub", "email", "client_id", "preferred_username") if claims.get(name)}
    for field in ("ratelimit", "ratelimit-policy"):
        try:
            items = read_list(exchange.header_lines(field))
        except Malformed:
            continue
        for item in items:
            key = item.parameters.get("pk", b"")
            text = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
            if text and any(name in text for name in names):
                raise KeyRevealsUser(
                    "the partition key in a RateLimit field names the user",
                    evidence=exchange,
                    expected="a key that means nothing to others",
                    got=f"{field} with the user's name",
                )
