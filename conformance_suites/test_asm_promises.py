"""ASM: what the authorization server metadata promises is safe, and the server keeps to it."""

from __future__ import annotations

from conformance_suites.code_redemption import issued_tokens, oauth_error
from conformance_suites.server_documents import first_published, listed, published, urls
from conformance_suites.server_keys import check_keys
from pytest_mcp_conformance import Advice, Finding, Inconclusive, NotApplicable, requirement
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.failures import Judgement
from pytest_mcp_conformance.grants import AuthorizationOutcome, Registration, fresh_pkce
from pytest_mcp_conformance.login import Login
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.strategies.forwarding import Field, forwarding_classics, forwarding_fields
from pytest_mcp_conformance.strategies.origins import FOREIGN_ORIGINS
from pytest_mcp_conformance.target import Target

ISS_FLAG = "authorization_response_iss_parameter_supported"
NOBODY = "conformance-check-nobody"


class RemovedFlowAdvertised(Finding):
    """The metadata offers the implicit or the password grant, by name or by leaving the list out."""


class RemovedFlowServed(Finding):
    """A request for the implicit or the password grant was served."""


class PasswordGrantProcessed(Advice):
    """A password grant was refused for its password, and not for its kind."""


class PublicClientsUnlisted(Finding):
    """Clients without a secret are served, and the method none is not listed."""


class SigningAlgorithmsMissing(Finding):
    """A method that uses JWTs is listed without sound signing algorithms."""


class IssMissing(Finding):
    """The flag promises iss, and a response lacks it."""


class IssUnannounced(Finding):
    """A response carries iss, and the flag is not true."""


class IssNamesAnother(Finding):
    """A response carries an iss that is not the issuer."""


class ClientDocumentsUnadvertised(Finding):
    """client_id_metadata_document_supported is not true."""


class NoRegistration(Finding):
    """There is no registration endpoint, or it does not answer."""


class AuthorizationEndpointShared(Finding):
    """The authorization endpoint answers with Access-Control-Allow-Origin."""


class UrlsFollowRequestHeaders(Finding):
    """A URL in the document changes with a header of the request."""


def client_of(server: AuthorizationServer) -> Registration | None:
    """A registered public client; None when there is none to be had."""
    try:
        return server.client
    except Judgement:
        return None


@requirement("ASM-007")
def test_only_the_flows_of_oauth_2_1_are_offered(
    target: Target, authorization_server: AuthorizationServer, login: Login
) -> None:
    """OAuth 2.1 §10; RFC 9700 §2.1.2, §2.4. A request for a removed flow is sent where a client can be registered."""
    for _, document in published(target):
        members = document.members
        kinds, grants = listed(members, "response_types_supported"), listed(members, "grant_types_supported")
        offered = [f"response type {kind!r}" for kind in kinds if "token" in kind.split()]
        offered += [f"grant type {grant!r}" for grant in grants if grant in {"implicit", "password"}]
        if not grants:
            offered.append("no grant_types_supported, which stands for authorization_code and implicit")
        if offered or "code" not in kinds:
            raise RemovedFlowAdvertised(
                "the metadata offers flows that OAuth 2.1 has removed",
                evidence=document.exchange,
                expected="response_types_supported with code and no token; grant_types_supported without implicit and "
                "password",
                got="; ".join(offered) or f"response_types_supported {kinds}",
            )
    client = client_of(authorization_server)
    if client is not None:
        _judge_password_grant(authorization_server, client)
        if login.repeatable and not login.missing("a"):
            _judge_implicit_grant(authorization_server, client)


def _judge_password_grant(server: AuthorizationServer, client: Registration) -> None:
    exchange = server.as_client(client, {"grant_type": "password", "username": NOBODY, "password": NOBODY})
    if issued_tokens(exchange):
        raise RemovedFlowServed(
            "a password grant got a token", evidence=exchange, expected="unsupported_grant_type", got=exchange.summary
        )
    if oauth_error(exchange) == "invalid_grant":
        raise PasswordGrantProcessed(
            "a password grant is refused for its password, as if another one would do",
            evidence=exchange,
            expected="unsupported_grant_type",
            got="invalid_grant",
        )


def _judge_implicit_grant(server: AuthorizationServer, client: Registration) -> None:
    for kind in ("token", "code token"):
        outcome = server.authorize(client, response_type=kind)
        if outcome.value("access_token"):
            raise RemovedFlowServed(
                "the authorization endpoint hands out an access token",
                evidence=outcome.exchange,
                expected="unsupported_response_type",
                got="a redirect back with an access token",
                counterexample=f"response_type={kind}",
            )


@requirement("ASM-008")
def test_client_authentication_is_described(target: Target, authorization_server: AuthorizationServer) -> None:
    """RFC 8414 §2: without the list, client_secret_basic alone is meant."""
    for _, document in published(target):
        members = document.members
        methods = listed(members, "token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        algorithms = listed(members, "token_endpoint_auth_signing_alg_values_supported")
        jwt_methods = [method for method in methods if method.endswith("_jwt")]
        if (jwt_methods and not algorithms) or any(name.lower() == "none" for name in algorithms):
            raise SigningAlgorithmsMissing(
                "client authentication by JWT is described without sound signing algorithms",
                evidence=document.exchange,
                expected="token_endpoint_auth_signing_alg_values_supported, without none",
                got=f"{algorithms or 'absent'} beside {', '.join(jwt_methods) or 'no method that uses it'}",
            )
        reason = _serves_public_clients(authorization_server)
        if "none" not in methods and reason:
            raise PublicClientsUnlisted(
                f"none is not among the methods, and {reason}",
                evidence=document.exchange,
                expected="none in token_endpoint_auth_methods_supported",
                got=repr(members.get("token_endpoint_auth_methods_supported", "no such member")),
            )


def _serves_public_clients(server: AuthorizationServer) -> str:
    """How it is known that clients without a secret are served; empty when it is not."""
    if server.metadata.get("client_id_metadata_document_supported") is True:
        return "clients identified by a URL, which have no secret, are accepted"
    client = client_of(server)
    if client is not None and not client.client_secret:
        return "a client without a secret was registered"
    return ""


@requirement("ASM-009")
def test_the_iss_flag_tells_the_truth(authorization_server: AuthorizationServer) -> None:
    """RFC 9207 §2, §2.3, §3: in errors as well."""
    server = authorization_server
    promised = server.metadata.get(ISS_FLAG) is True
    outcomes = {
        "a successful response": server.grant().outcome,
        "an error (no code_challenge)": server.authorize(code_challenge=None, code_challenge_method=None),
        "an error (an unknown response_type)": server.authorize(response_type="conformance-check"),
    }
    for what, outcome in outcomes.items():
        if outcome.redirected:
            _judge_iss(server, promised, what, outcome)


def _judge_iss(server: AuthorizationServer, promised: bool, what: str, outcome: AuthorizationOutcome) -> None:
    values = outcome.answer.get("iss") or []
    if promised and not values:
        raise IssMissing(
            f"{what} lacks the promised iss, so MCP clients reject it",
            evidence=outcome.exchange,
            expected=f"iss={server.issuer}",
            got="no iss",
        )
    if values and not promised:
        raise IssUnannounced(
            f"{what} carries iss, and the metadata does not say so",
            evidence=outcome.exchange,
            expected=f"{ISS_FLAG} true",
            got=repr(server.metadata.get(ISS_FLAG, "no such member")),
        )
    if values and values != [server.metadata.get("issuer")]:
        raise IssNamesAnother(
            f"{what} carries an iss that is not the issuer",
            evidence=outcome.exchange,
            expected=f"iss={server.metadata.get('issuer')}",
            got=f"iss={', '.join(values)}",
        )


@requirement("ASM-010")
def test_client_metadata_documents_are_advertised(target: Target) -> None:
    """CIMD §5."""
    document = first_published(target)
    flag = document.members.get("client_id_metadata_document_supported")
    if flag is not True:
        raise ClientDocumentsUnadvertised(
            "the metadata does not say that a client may be identified by the URL of its metadata",
            evidence=document.exchange,
            expected="client_id_metadata_document_supported true",
            got="no such member" if flag is None else repr(flag),
        )


@requirement("ASM-011")
def test_clients_can_register(target: Target, authorization_server: AuthorizationServer) -> None:
    """MCP 2025-03-26 and 2025-06-18, Dynamic Client Registration. Refusing a stranger is an answer too."""
    document = first_published(target)
    if not authorization_server.metadata.get("registration_endpoint"):
        raise NoRegistration(
            "the metadata names no registration_endpoint",
            evidence=document.exchange,
            expected="a registration_endpoint",
            got="no such member",
        )
    client = client_of(authorization_server)
    exchange = None if client is None else client.exchange
    answer = exchange or authorization_server.try_register()
    target.probe.cite(answer)
    if answer.status in {0, 404, 405} or answer.status >= 500:
        raise NoRegistration(
            "the registration endpoint does not answer as one",
            evidence=answer,
            expected="201, or a refusal for a reason",
            got=answer.summary,
        )


@requirement("ASM-013")
def test_published_keys_are_public_and_strong(target: Target) -> None:
    """RFC 7517 §4, §9.2; RFC 8725 §3.5."""
    named = [document.members.get("jwks_uri") for _, document in published(target)]
    locations = dict.fromkeys(uri for uri in named if isinstance(uri, str))
    if not locations:
        raise NotApplicable("the authorization server names no jwks_uri")
    for uri in locations:
        check_keys(target.discovery.fetch(uri))


@requirement("ASM-015")
def test_the_authorization_endpoint_is_not_for_scripts(authorization_server: AuthorizationServer, probe: Probe) -> None:
    """RFC 9700 §2.6: a browser is sent there, and no script fetches it."""
    url = authorization_server.endpoint("authorization_endpoint")
    client = client_of(authorization_server)
    requests = [Request("GET", url), _preflight(url, "GET"), _preflight(url, "POST")]
    if client is not None:
        requests.append(Request("GET", authorization_server.authorization_url(client, fresh_pkce())))
    answers = [probe.send(one.adding(("Origin", FOREIGN_ORIGINS[0]))) for one in requests]
    if all(answer.status == 0 or answer.status >= 500 for answer in answers):
        raise Inconclusive(f"the authorization endpoint does not answer: {answers[0].summary}")
    for answer in answers:
        allowed = answer.header("access-control-allow-origin")
        if allowed is not None:
            raise AuthorizationEndpointShared(
                f"{answer.request.method} at the authorization endpoint is shared with scripts of other origins",
                evidence=answer,
                expected="no Access-Control-Allow-Origin",
                got=f"Access-Control-Allow-Origin: {allowed}",
                counterexample=f"Origin: {FOREIGN_ORIGINS[0]}",
            )


def _preflight(url: str, method: str) -> Request:
    headers: tuple[Header, ...] = (("Access-Control-Request-Method", method),)
    return Request("OPTIONS", url, headers)


@requirement("ASM-016")
def test_urls_do_not_follow_request_headers(target: Target, probe: Probe, space: Space) -> None:
    """RFC 8414 §6.2, RFC 9700 §4.13: only the server's configuration says who it is."""
    document = first_published(target)
    before = urls(document.members)

    def judge(field: Field) -> None:
        exchange = probe.get(document.url, ("Accept", "application/json"), field)
        changed = _changed(exchange, before)
        if changed:
            raise UrlsFollowRequestHeaders(
                f"URLs in the metadata follow the {field[0]} header",
                evidence=exchange,
                expected=f"{before.get(changed)}, or a refusal",
                got=f"{changed}: {urls(exchange.json()).get(changed, 'gone')}",
                counterexample=f"{field[0]}: {field[1]}",
            )

    space.search(judge, forwarding_fields(document.url), classics=forwarding_classics(document.url), max_examples=4)
    again = probe.get(document.url, ("Accept", "application/json"))
    if _changed(again, before) or again.status != 200:
        raise Inconclusive(f"the metadata changes, or goes, without any forged header: {again.summary}")


def _changed(exchange: Exchange, before: dict[str, str]) -> str:
    """The first member whose URL is another one; empty when none is, or the request was refused."""
    members = exchange.json() if exchange.status == 200 else None
    after = urls(members) if isinstance(members, dict) else before
    return next((name for name in {**before, **after} if before.get(name) != after.get(name)), "")
