"""ORIG: Origin, Host and CORS, which stand between a browser and a server on the same network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, NotRun, mcp, requirement
from pytest_mcp_conformance.acceptance import signature
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.origins import (
    FOREIGN_ORIGINS,
    foreign_hosts,
    foreign_origins,
    host_classics,
    origin_classics,
    strangers,
)
from pytest_mcp_conformance.target import Target

FOREIGN = FOREIGN_ORIGINS[0]
STATUS_403_SINCE = frozenset({"2025-11-25", "2026-07-28"})
CONNECT_SECONDS = 2.0


class ForeignOriginServed(Finding):
    """A request with a foreign Origin is answered like one without."""


class ForeignOriginWrongStatus(Finding):
    """A foreign Origin is refused with another status than 403."""


class NeighbouringOriginServed(Finding):
    """An Origin near the allowed one is answered like the allowed one."""


class OrdinaryClientRefused(Finding):
    """A request without Origin is refused."""


class OwnOriginRefused(Advice):
    """A page of the server's own origin is refused."""


class ForeignHostServed(Finding):
    """A request for a foreign Host is answered like one for the server's own."""


class OtherPortServed(Advice):
    """A request for another port of the server's own host is answered."""


class LocalNameRefused(Advice):
    """A loopback name of the server is refused as Host."""


class OriginReflected(Finding):
    """Access-Control-Allow-Origin names whatever origin asked."""


class CredentialsForAnyone(Finding):
    """Any origin is allowed together with credentials."""


class AnswerVariesSilently(Finding):
    """Access-Control-Allow-Origin differs by origin, and no Vary says so."""


class PreflightAllowsAnything(Finding):
    """A preflight allows a method or header that nobody needs."""


class ReachableFromOutside(Finding):
    """The port answers on another address than loopback."""


class OpenToLocalCallers(Finding):
    """A local server serves callers without credentials."""


@dataclass(frozen=True)
class Endpoint:
    """A request that is served when it carries no Origin, and how it was answered then."""

    name: str
    request: Request
    plain: Exchange

    def serves(self, exchange: Exchange) -> bool:
        return signature(exchange) == signature(self.plain)


def main_endpoint(target: Target) -> Endpoint:
    """The harmless request with the run's credential, when it has one."""
    request = _as(target.harmless(), target.credential)
    return Endpoint(request.method, request, target.send(request))


def endpoints(target: Target) -> Iterator[Endpoint]:
    """One request for each method and era the target serves, with and without the run's credential."""
    yield main_endpoint(target)
    credential = target.credential
    for era in target.eras:
        for who in {credential, None}:
            request = _as(target.harmless(era), who)
            yield Endpoint(f"{request.method} of the {era} era", request, target.send(request))
    if Era.LEGACY in target.eras:
        yield from _session_endpoints(target, credential)


def _session_endpoints(target: Target, credential: Credential | None) -> Iterator[Endpoint]:
    for method in ("GET", "DELETE"):
        session = _session(target, credential)
        if not session:
            return
        headers: tuple[Header, ...] = (("Accept", "text/event-stream"), ("Mcp-Session-Id", session))
        request = _as(Request(method, target.url, headers), credential)
        if method == "GET":
            yield Endpoint("GET of a session", request, target.send(request))
        else:
            plain = target.send(request)
            fresh = _session(target, credential)
            yield Endpoint("DELETE of a session", request.with_headers(("Mcp-Session-Id", fresh)), plain)


def _session(target: Target, credential: Credential | None) -> str:
    return target.send(mcp.initialize(), credential).header("mcp-session-id") or ""


@requirement("ORIG-001")
def test_foreign_origins_are_refused_everywhere(target: Target, space: Space) -> None:
    """MCP transports, Security Warning: Origin is validated on every connection; 403 from 2025-11-25."""
    judged = 0
    for endpoint in endpoints(target):
        if endpoint.plain.status in {404, 405, 406} or endpoint.plain.status >= 500:
            continue
        exchange = target.send(endpoint.request, None, ("Origin", FOREIGN))
        if endpoint.serves(exchange) and exchange.status in {401, 403}:
            continue
        judged += 1
        _judge_foreign(target, endpoint, exchange, FOREIGN)
    if not judged:
        raise Inconclusive("every request was refused for want of credentials before its Origin mattered")
    endpoint = main_endpoint(target)

    def judge(origin: str) -> None:
        exchange = target.send(endpoint.request, None, ("Origin", origin))
        if not (endpoint.serves(exchange) and exchange.status in {401, 403}):
            _judge_foreign(target, endpoint, exchange, origin)

    space.search(judge, strangers(), max_examples=10)


def _judge_foreign(target: Target, endpoint: Endpoint, exchange: Exchange, origin: str) -> None:
    if endpoint.serves(exchange) or exchange.succeeded:
        raise ForeignOriginServed(
            f"{endpoint.name} with a foreign Origin is answered like one without",
            evidence=(endpoint.plain, exchange),
            expected="403",
            got=exchange.summary,
            counterexample=f"Origin: {origin}",
        )
    if exchange.status not in {401, 403} and target.revisions & STATUS_403_SINCE and 400 <= exchange.status < 500:
        raise ForeignOriginWrongStatus(
            f"{endpoint.name} with a foreign Origin is refused with another status than the revision names",
            evidence=exchange,
            expected="403",
            got=exchange.summary,
            counterexample=f"Origin: {origin}",
        )


@requirement("ORIG-002")
def test_origins_are_compared_exactly(target: Target, space: Space) -> None:
    """RFC 6454 §5: scheme, host and port, all of them and nothing else."""
    endpoint = main_endpoint(target)
    if endpoint.serves(target.send(endpoint.request, None, ("Origin", FOREIGN))):
        if endpoint.plain.status in {401, 403}:
            raise Inconclusive("requests are refused for want of credentials before their Origin matters")
        raise Inconclusive("the target does not judge Origin at all (see ORIG-001)")

    def judge(origin: str) -> None:
        _judge_neighbour(target, endpoint, endpoint.request.with_headers(("Origin", origin)), f"Origin: {origin}")

    classics = origin_classics(target.origin)
    space.search(judge, foreign_origins(target.origin), classics=classics, max_examples=10)
    for pair in ((target.origin, FOREIGN), (FOREIGN, target.origin)):
        request = endpoint.request.adding(*(("Origin", origin) for origin in pair))
        _judge_neighbour(target, endpoint, request, f"Origin: {pair[0]} and Origin: {pair[1]}")
    _judge_neighbour(target, endpoint, endpoint.request.with_headers(("Origin", "")), "Origin: (empty)")


def _judge_neighbour(target: Target, endpoint: Endpoint, request: Request, what: str) -> None:
    exchange = target.send(request)
    if endpoint.serves(exchange):
        raise NeighbouringOriginServed(
            "an Origin that is not the allowed one is served like it",
            evidence=(endpoint.plain, exchange),
            expected="403",
            got=exchange.summary,
            counterexample=what,
        )


@requirement("ORIG-003")
def test_requests_without_origin_and_from_its_own_are_served(target: Target) -> None:
    """Ordinary clients send no Origin; a page of the server's own origin sends that one."""
    credential = target.require_credential()
    plain = target.send(target.harmless(), credential)
    if not plain.succeeded:
        own = target.send(target.harmless(), credential, ("Origin", target.origin))
        if not own.succeeded:
            raise Inconclusive(f"a good request is refused with and without Origin: {plain.summary}")
        raise OrdinaryClientRefused(
            "a good request without Origin is refused",
            evidence=plain,
            expected="the answer it gets with an Origin",
            got=plain.summary,
        )
    exchange = target.send(target.harmless(), credential, ("Origin", target.origin))
    if not exchange.succeeded:
        raise OwnOriginRefused(
            "a good request from a page of the server's own origin is refused",
            evidence=(plain, exchange),
            expected=plain.summary,
            got=exchange.summary,
            counterexample=f"Origin: {target.origin}",
        )


@requirement("ORIG-004")
def test_local_servers_judge_host(target: Target, space: Space) -> None:
    """After DNS rebinding a same-origin GET carries no Origin, so a server on loopback has only Host to go by."""
    if not target.settings.is_local:
        raise NotApplicable("the target is not on loopback")
    endpoint = main_endpoint(target)
    own = urlsplit(target.url).netloc

    def judge(host: str) -> None:
        exchange = target.send(endpoint.request, None, ("Host", host))
        if endpoint.serves(exchange):
            raise ForeignHostServed(
                "a request for a foreign host is served like one for the server's own",
                evidence=(endpoint.plain, exchange),
                expected="a refusal such as 421 or 403",
                got=exchange.summary,
                counterexample=f"Host: {host}",
            )

    for origin in (f"http://{host_classics(own)[1]}", None):
        extra: tuple[Header, ...] = () if origin is None else (("Origin", origin),)
        exchange = target.send(endpoint.request, None, ("Host", host_classics(own)[1]), *extra)
        if endpoint.serves(exchange) and endpoint.plain.status in {401, 403} and _only_credentials_matter(target):
            raise Inconclusive("requests are refused for want of credentials before their Host matters")
    space.search(judge, foreign_hosts(own), classics=host_classics(own), max_examples=10)
    _judge_own_names(target, endpoint)


def _only_credentials_matter(target: Target) -> bool:
    """Whether the metadata, which needs no credentials, is refused to a foreign Host: Host is judged, but later."""
    documents = [document for document in target.discovery.resource_documents() if document.published]
    if not documents:
        return True
    foreign = target.probe.get(documents[0].url, ("Host", "evil.example"))
    return not foreign.succeeded


def _judge_own_names(target: Target, endpoint: Endpoint) -> None:
    port = urlsplit(target.url).port or (443 if target.url.startswith("https") else 80)
    for name in ("localhost", "127.0.0.1", "[::1]"):
        exchange = target.send(endpoint.request, None, ("Host", f"{name}:{port}"))
        if not endpoint.serves(exchange):
            raise LocalNameRefused(
                "a loopback name with the server's port is refused as Host",
                evidence=exchange,
                expected=endpoint.plain.summary,
                got=exchange.summary,
                counterexample=f"Host: {name}:{port}",
            )
    other = f"{urlsplit(target.url).hostname}:{port % 65535 + 1}"
    exchange = target.send(endpoint.request, None, ("Host", other))
    if endpoint.serves(exchange):
        raise OtherPortServed(
            "a request for another port of the server's host is served",
            evidence=exchange,
            expected="a refusal such as 421 or 403",
            got=exchange.summary,
            counterexample=f"Host: {other}",
        )


@requirement("ORIG-005")
def test_cors_widens_no_trust(target: Target) -> None:
    """WHATWG Fetch, CORS protocol: permissions for named origins only, never with credentials for all."""
    documents = target.discovery.resource_documents() if target.protected else []
    requests = [main_endpoint(target).request, *(document.exchange.request for document in documents)]
    for request in requests:
        preflight = Request("OPTIONS", request.url, (("Access-Control-Request-Method", request.method),))
        for one in (request, preflight):
            _judge_permissions(target, one, is_endpoint=request.url == target.url)
    _judge_preflight(target)


def _judge_permissions(target: Target, request: Request, *, is_endpoint: bool) -> None:
    foreign = target.send(request, None, ("Origin", FOREIGN))
    own = target.send(request, None, ("Origin", target.origin))
    allowed = foreign.header("access-control-allow-origin")
    credentials = foreign.header("access-control-allow-credentials") == "true"
    if credentials and allowed in {"*", FOREIGN}:
        raise CredentialsForAnyone(
            f"{request.method} {request.url} lets any origin send credentials",
            evidence=foreign,
            expected="no Access-Control-Allow-Credentials for an origin nobody listed",
            got=f"Access-Control-Allow-Origin: {allowed}, Access-Control-Allow-Credentials: true",
            counterexample=f"Origin: {FOREIGN}",
        )
    if allowed == FOREIGN and is_endpoint:
        raise OriginReflected(
            f"{request.method} {request.url} allows whatever origin asks",
            evidence=foreign,
            expected="no Access-Control-Allow-Origin for an origin nobody listed",
            got=f"Access-Control-Allow-Origin: {allowed}",
            counterexample=f"Origin: {FOREIGN}",
        )
    for exchange in (own, foreign):
        named = exchange.header("access-control-allow-origin")
        if named not in {None, "*"} and not _varies_by_origin(exchange):
            raise AnswerVariesSilently(
                f"{request.method} {request.url} names one origin and does not say that others get another answer",
                evidence=exchange,
                expected="Vary: Origin",
                got=f"Access-Control-Allow-Origin: {named}, Vary: {exchange.header('vary') or 'absent'}",
            )


def _judge_preflight(target: Target) -> None:
    asked: tuple[Header, ...] = (
        ("Origin", target.origin),
        ("Access-Control-Request-Method", "CONFORMANCE-CHECK"),
        ("Access-Control-Request-Headers", "x-conformance-check"),
    )
    exchange = target.send(Request("OPTIONS", target.url, asked))
    methods = ",".join(exchange.header_lines("access-control-allow-methods"))
    headers = ",".join(exchange.header_lines("access-control-allow-headers"))
    if "CONFORMANCE-CHECK" in methods or "x-conformance-check" in headers.lower():
        raise PreflightAllowsAnything(
            "a preflight allows whatever it is asked for",
            evidence=exchange,
            expected="the methods and headers the endpoint needs",
            got=f"Access-Control-Allow-Methods: {methods}, Access-Control-Allow-Headers: {headers}",
        )


@requirement("ORIG-006")
def test_local_servers_listen_on_loopback_and_want_credentials(target: Target) -> None:
    """MCP transports, Security Warning: bind to 127.0.0.1, and authenticate all connections."""
    if not target.settings.is_local:
        raise NotApplicable("the target is not on loopback")
    challenge = target.challenge
    if challenge.succeeded:
        raise OpenToLocalCallers(
            "a local server serves callers without credentials",
            evidence=challenge,
            expected="401",
            got=challenge.summary,
        )
    outside = _outside_address()
    if not outside:
        raise NotRun("this machine has no address but loopback to try from")
    port = urlsplit(target.url).port or (443 if target.url.startswith("https") else 80)
    try:
        socket.create_connection((outside, port), CONNECT_SECONDS).close()
    except OSError:
        return
    raise ReachableFromOutside(
        "the port answers on another address than loopback",
        evidence=challenge,
        expected="a refused connection",
        got=f"a connection to {outside}:{port}",
    )


def _outside_address() -> str:
    """This machine's own address on the way out; nothing is sent to find it. Empty when there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probing:
        try:
            probing.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        address = str(probing.getsockname()[0])
    return "" if address.startswith("127.") or address == "0.0.0.0" else address  # noqa: S104


def _as(request: Request, credential: Credential | None) -> Request:
    return request if credential is None else request.with_headers(credential.header)


def _varies_by_origin(exchange: Exchange) -> bool:
    named = {word.strip().lower() for line in exchange.header_lines("vary") for word in line.split(",")}
    return bool(named & {"origin", "*"})
