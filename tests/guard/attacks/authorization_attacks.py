"""Areas pkce, resource, discovery and csrf at the embedded authorization server."""

import concurrent.futures
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from mcp_guard.forms import Form
from mcp_guard.secret import mint_token
from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import Deployment
from tests.guard.attacks.flow import REDIRECT, Flow, challenge_of, signed_in
from tests.guard.attacks.raw import Observation, Request


def errs(live: Deployment, *errors: str, state: str | None = "state-of-the-client") -> Callable[[Observation], None]:
    """An error redirect to the registered URI with one of `errors`, the state and the issuer; or no redirect at all."""

    def check(seen: Observation) -> None:
        location = seen.value("location")
        if seen.status == 400:
            assert not location
            return
        assert location.startswith(f"{REDIRECT}?"), location
        answer = parse_qsl(urlsplit(location).query)
        assert len(dict(answer)) == len(answer), answer
        said = dict(answer)
        assert "code" not in said
        assert said["error"] in errors, said
        assert said.get("state") == state, said
        assert said["iss"] == live.origin

    return check


def token_request(flow: Flow, code: str, **overrides: str | None) -> Request:
    """A token request that differs from the good one by the overrides."""
    return flow.post("/token", flow.fields(code, **overrides))


def no_token(seen: Observation) -> None:
    assert b"access_token" not in seen.body
    assert seen.value("cache-control") == "no-store"


def local(seen: Observation) -> None:
    """Shown to the person, not sent anywhere."""
    assert not seen.values("location")


@attack("pkce-01")
def no_challenge(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    for name, value in (("absent", None), ("empty", "")):
        request = flow.get("/authorize", flow.parameters(code_challenge=value))
        yield Shot(name, request, (302,), check=errs(live, "invalid_request"))


@attack("pkce-02")
def other_methods(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    for method in ("plain", None, "s256", "S256 ", "", "S512", "S256,plain", "none"):
        request = flow.get("/authorize", flow.parameters(code_challenge_method=method))
        yield Shot(f"method {method}", request, (302,), check=errs(live, "invalid_request"))


@attack("pkce-03")
def wrong_verifiers(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    code = flow.code()
    other = mint_token()
    wrong = (
        None,
        "",
        other,
        challenge_of(flow.verifier),
        flow.verifier[:-1],
        flow.verifier + "x",
        flow.verifier.lower(),
    )
    for number, verifier in enumerate(wrong):
        yield Shot(f"verifier-{number}", token_request(flow, code, code_verifier=verifier), (400,), check=no_token)
    assert flow.redeem(flow.fields(code)).status_code == 200, "the right verifier still redeems the code"


@attack("pkce-04")
def a_challenge_that_is_stripped(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    request = flow.get("/authorize", flow.parameters(code_challenge=None, code_challenge_method=None))
    yield Shot("stripped", request, (302,), check=errs(live, "invalid_request"))


@attack("pkce-05")
def verifiers_and_challenges_of_odd_shape(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    for challenge in ("x", "a" * 42, "a" * 44, "a" * 42 + "+", "a" * 42 + "=", "a" * 129):
        request = flow.get("/authorize", flow.parameters(code_challenge=challenge))
        yield Shot(f"challenge {len(challenge)}", request, (302, 400), check=errs(live, "invalid_request"))
    for verifier in ("v" * 42, "v" * 129, "v" * 42 + " ", "v" * 42 + "é", "v" * 42 + "\x00", "v"):
        flow.verifier = verifier
        code = flow.code()
        yield Shot(f"verifier {verifier[-1]!r} {len(verifier)}", token_request(flow, code), (400,), check=no_token)


@attack("pkce-07")
def a_code_used_twice(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    code = flow.code()
    first = flow.redeem(flow.fields(code)).json()["access_token"]
    assert live.send(live.call(first)).status == 200
    yield Shot("wrong-verifier", token_request(flow, code, code_verifier=mint_token()), (400,), check=no_token)
    assert live.send(live.call(first)).status == 200, "a replay by someone without the verifier revokes nothing"
    yield Shot("again", token_request(flow, code), (400,), check=no_token)
    yield Shot("first-token", live.call(first), (401,))


@attack("pkce-08")
def a_code_used_at_once(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    code = flow.code()
    fields = flow.fields(code)
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: flow.redeem(fields).status_code, range(30)))
    assert answers.count(200) <= 1, f"{answers.count(200)} redemptions succeeded"
    yield Shot("afterwards", flow.post("/token", fields), (400,), check=no_token)


@attack("pkce-09")
def anothers_code(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    code = flow.code()
    thief = flow.register()
    yield Shot("other-client", token_request(flow, code, client_id=thief), (400,), check=no_token)
    yield Shot("no-client", token_request(flow, code, client_id=None), (400, 401), check=no_token)
    yield Shot("unknown", token_request(flow, code, client_id="nobody"), (400, 401), check=no_token)
    assert flow.redeem(flow.fields(code)).status_code == 200, "its own client still redeems the code"


@attack("pkce-11")
def another_redirect_uri(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    code = flow.code()
    for other in (f"{REDIRECT}/", REDIRECT.upper(), REDIRECT.replace("client", "evil"), f"{REDIRECT}?x=1", "", None):
        yield Shot(f"{other}", token_request(flow, code, redirect_uri=other), (400,), check=no_token)
    assert flow.redeem(flow.fields(code)).status_code == 200, "the right one still redeems the code"


@attack("pkce-13")
def a_code_injected_into_another_flow(live: Deployment) -> Iterator[Shot]:
    attacker = signed_in(live, "bob")
    victim = Flow(live, client_id=attacker.client_id)
    code = attacker.code()
    yield Shot("injected", victim.post("/token", victim.fields(code)), (400,), check=no_token)


@attack("pkce-14")
def repeated_parameters_at_the_token_endpoint(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    code = flow.code()
    good = flow.fields(code)
    for name, value in good:
        for order, pair in (("bad-good", ("x", value)), ("good-bad", (value, "x")), ("same", (value, value))):
            others = [field for field in good if field[0] != name]
            fields = [*others, *((name, one) for one in pair)]
            yield Shot(f"{name} {order}", flow.post("/token", fields), (400, 401), check=no_token)
    in_query = flow.post(
        f"/token?{urlencode([('code_verifier', flow.verifier)])}", flow.fields(code, code_verifier=None)
    )
    yield Shot("query", in_query, (400,), check=no_token)
    assert flow.redeem(good).status_code == 200, "the code is still good"


@attack("pkce-15")
def repeated_and_unsupported_parameters(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    good = flow.parameters()
    for name in ("client_id", "redirect_uri"):
        again = f"&{urlencode([(name, dict(good)[name])])}"
        yield Shot(f"{name} twice", flow.get("/authorize", good, raw=again), (400,), check=local)
    for name in ("code_challenge", "resource", "scope", "response_type", "code_challenge_method"):
        again = f"&{urlencode([(name, dict(good)[name])])}"
        expected = errs(live, "invalid_request", "invalid_target", "invalid_scope", "unsupported_response_type")
        yield Shot(f"{name} twice", flow.get("/authorize", good, raw=again), (302, 400), check=expected)
    twice = errs(live, "invalid_request", state=None)
    yield Shot("state twice", flow.get("/authorize", good, raw="&state=x"), (302, 400), check=twice)
    for name, value in (("request", "x.y.z"), ("request_uri", "https://evil.example/r")):
        expected = errs(live, "invalid_request", "request_not_supported", "request_uri_not_supported")
        yield Shot(name, flow.get("/authorize", [*good, (name, value)]), (302, 400), check=expected)
    for mode in ("form_post", "fragment", "query.jwt"):
        request = flow.get("/authorize", [*good, ("response_mode", mode)])
        yield Shot(f"mode {mode}", request, (302, 400), check=errs(live, "invalid_request"))
    for kind in ("token", "code token", "none", "id_token", "", None, "CODE"):
        request = flow.get("/authorize", flow.parameters(response_type=kind))
        expected = errs(live, "unsupported_response_type", "invalid_request")
        yield Shot(f"type {kind}", request, (302, 400), check=expected)


@attack("pkce-16")
def hostile_states(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    for name, state in {
        "line-break": "a\r\nSet-Cookie: x=1",
        "markup": "<script>alert(1)</script>",
        "separator": "a\u2028b",
        "parameters": "a&code=stolen&iss=x",
        "nul": "a\x00b",
    }.items():

        def echoed(seen: Observation, state: str = state) -> None:
            assert not seen.values("set-cookie") or all("x=1" not in value for value in seen.values("set-cookie"))
            assert b"<script>" not in seen.body
            if seen.status == 302:
                answer = parse_qsl(urlsplit(seen.value("location")).query, keep_blank_values=True)
                assert [value for key, value in answer if key == "state"] == [state]
                assert [key for key, _ in answer if key in ("code", "iss")] == ["iss"]

        request = flow.get("/authorize", flow.parameters(state=state, scope="mcp:nothing"))
        yield Shot(name, request, (302, 400), check=echoed)
    yield Shot("long", flow.get("/authorize", flow.parameters(state="s" * 10_000)), (302, 400, 414, 431), check=local)


@attack("res-05")
def no_resource_is_named(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    code = flow.code(resource=None)
    token = flow.redeem(flow.fields(code, resource=None)).json()["access_token"]
    yield Shot("used", live.call(token), (200,), reaches_app=True)


@attack("res-06")
def resources_that_are_not_served(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    for resource in (
        "https://evil.example/mcp",
        f"{live.mcp}#f",
        "mcp.example.com",
        "",
        f"{live.mcp}/",
        f"{live.mcp}2",
    ):
        request = flow.get("/authorize", flow.parameters(resource=resource))
        yield Shot(resource, request, (302, 400), check=errs(live, "invalid_target"))


@attack("res-08")
def another_resource_at_redemption(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    code = flow.code()

    def invalid_target(seen: Observation) -> None:
        assert seen.json()["error"] == "invalid_target"

    for other in (f"{live.origin}/sse", "https://evil.example/mcp"):
        yield Shot(other, token_request(flow, code, resource=other), (400,), check=invalid_target)
    assert flow.redeem(flow.fields(code)).status_code == 200, "the code is still good for its own resource"


@attack("disc-08")
def the_issuer_in_every_response(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    answer = flow.approve(flow.consent())
    assert answer["iss"] == live.origin
    live.secrets.add(answer["code"])
    request = flow.get("/authorize", flow.parameters(scope="mcp:nothing"))
    yield Shot("error", request, (302,), check=errs(live, "invalid_scope"))


@attack("csrf-05")
def forged_consent(live: Deployment) -> Iterator[Shot]:
    flow, other = signed_in(live), signed_in(live, "bob")
    page = flow.consent()
    form, foreign = Form.on(page.text), Form.on(other.consent().text)
    assert form is not None
    assert foreign is not None
    path = urlsplit(urljoin(str(page.url), form.action)).path
    good = flow.filled(form)
    stolen = {**good, "csrf": foreign.fields["csrf"]}
    variants = {
        "none": {key: value for key, value in good.items() if key != "csrf"},
        "empty": {**good, "csrf": ""},
        "other-browser": stolen,
        "other-transaction": {**foreign.fields, "decision": "approve"},
    }
    for name, fields in variants.items():
        yield Shot(name, flow.post(path, list(fields.items())), (400, 403), check=local)
    yield Shot("other-cookies", other.post(path, list(good.items())), (400, 403), check=local)
    foreign_page = (b"Origin", b"https://evil.example")
    yield Shot("foreign-origin", flow.post(path, list(good.items()), foreign_page), (400, 403), check=local)
    cross_site = (b"Sec-Fetch-Site", b"cross-site")
    yield Shot("cross-site", flow.post(path, list(good.items()), cross_site), (400, 403), check=local)
    yield Shot("by-get", flow.get(path, list(good.items())), (200, 400, 403, 405), check=local)
    assert "code" in flow.approve(page), "its owner can still approve"


@attack("csrf-06")
def altered_consent(live: Deployment) -> Iterator[Shot]:
    """The server reads the decision and its own transaction; whatever else a form says has no effect."""
    flow = signed_in(live)
    page = flow.consent()
    form = Form.on(page.text)
    assert form is not None
    path = urlsplit(urljoin(str(page.url), form.action)).path
    widened = {
        **flow.filled(form),
        "scope": "mcp:admin",
        "client_id": "evil",
        "redirect_uri": "https://evil.example/cb",
        "resource": "https://evil.example/mcp",
    }

    def unchanged(seen: Observation) -> None:
        if seen.status != 303:
            return
        assert seen.value("location").startswith(f"{REDIRECT}?")
        code = dict(parse_qsl(urlsplit(seen.value("location")).query))["code"]
        live.secrets.add(code)
        token = flow.redeem(flow.fields(code)).json()
        assert token.get("scope", "mcp:tools") == "mcp:tools"

    yield Shot("widened", flow.post(path, list(widened.items())), (303, 400, 403), check=unchanged)


@attack("csrf-09")
def the_pages_defend_themselves(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    login = Request(b"GET", f"/login?{urlencode(flow.parameters())}".encode(), ((b"Host", live.host),))
    consent = flow.consent()

    def defended(seen: Observation) -> None:
        policy = seen.value("content-security-policy")
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert seen.value("x-frame-options") == "DENY"
        assert seen.value("cache-control") == "no-store"
        assert seen.value("referrer-policy") == "no-referrer"
        assert seen.value("x-content-type-options") == "nosniff"
        for cookie in seen.values("set-cookie"):
            assert "HttpOnly" in cookie
            assert "SameSite=Lax" in cookie or "SameSite=Strict" in cookie

    yield Shot("login", login, (200,), check=defended)
    query = urlsplit(str(consent.url)).query
    page = Request(b"GET", f"/consent?{query}".encode(), ((b"Host", live.host), (b"Cookie", flow.cookies())))
    yield Shot("consent", page, (200,), check=defended)
    yield Shot("error", Request(b"GET", b"/authorize", ((b"Host", live.host),)), (400,), check=defended)


@attack("csrf-11")
def errors_and_denials_go_nowhere_else(live: Deployment) -> Iterator[Shot]:
    flow = signed_in(live)
    for name, value in (("unregistered", "https://evil.example/cb"), ("near", f"{REDIRECT}/../x"), ("absent", None)):
        request = flow.get("/authorize", flow.parameters(redirect_uri=value, scope="mcp:nothing"))
        yield Shot(name, request, (400,), check=local)
    page = flow.consent()
    form = Form.on(page.text)
    assert form is not None
    path = urlsplit(urljoin(str(page.url), form.action)).path
    denied = {**form.fields, "decision": "deny"}

    def access_denied(seen: Observation) -> None:
        assert seen.value("location").startswith(f"{REDIRECT}?error=access_denied")

    yield Shot("denied", flow.post(path, list(denied.items())), (303,), check=access_denied)
