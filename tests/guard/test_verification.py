"""By whom a token is verified: keys, introspection, or both; and that all are judged by the same rules."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from mcp_guard import rejections
from mcp_guard.clock import ManualClock
from mcp_guard.facts import Principal, Resource
from mcp_guard.failures import ConfigurationError, IntrospectionUnavailable
from mcp_guard.introspection import Anonymous, Introspection
from mcp_guard.keysources import StaticKeys
from mcp_guard.layers.token import Token
from mcp_guard.protocol.jwt import Fault, TokenError
from mcp_guard.tokens import IssuerPolicy, TrustedIssuer, Verification, Verified
from tests.guard.asgi import CountingApp, drive, http_scope
from tests.guard.introspecting import OPAQUE, Endpoint, endpoint, said
from tests.guard.signing import ISSUER, NOW, RESOURCE, SigningKey, good_claims, jwk_set

KEY, OTHER = SigningKey.new(), SigningKey.new(kid="k2")
KEYS = StaticKeys(jwk_set(KEY))
JWT = KEY.token()
CNF = {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}


@pytest.fixture
async def served() -> AsyncIterator[Endpoint]:
    async with endpoint() as one:
        yield one


def asked(one: Endpoint, clock: ManualClock, issuer: str = ISSUER) -> Introspection:
    return Introspection(issuer, Anonymous(), one.introspect, clock=clock)


async def verify(clock: ManualClock, token: bytes, *issuers: TrustedIssuer) -> Verified:
    try:
        return await Verification(issuers, clock, 10.0, 86_400.0).verify(token, frozenset({RESOURCE}))
    finally:
        for one in issuers:
            if one.introspection is not None:
                await one.introspection.close()


async def fault_of(clock: ManualClock, token: bytes, *issuers: TrustedIssuer) -> Fault:
    with pytest.raises(TokenError) as caught:
        await verify(clock, token, *issuers)
    return caught.value.fault


async def test_an_opaque_token_says_what_its_issuer_says(served: Endpoint, clock: ManualClock) -> None:
    served.says(said(cnf=CNF, org="acme", token_type="DPoP"))
    issuer = TrustedIssuer(ISSUER, introspection=asked(served, clock), tenant_claim="org")
    token, good_until, leeway, by = await verify(clock, OPAQUE, issuer)
    assert (token.issuer, token.subject, token.client_id, token.tenant) == (ISSUER, "alice", "client-1", "acme")
    assert token.scopes == {"mcp:tools"}
    assert token.confirmation.jkt == CNF["jkt"]
    assert (good_until, leeway, by) == (clock.monotonic() + 30, 10.0, "introspection")


SAME_CHECKS: list[tuple[dict[str, Any], Fault]] = [
    ({"aud": "https://other.example"}, Fault.AUDIENCE),
    ({"aud": None}, Fault.AUDIENCE),
    ({"aud": []}, Fault.AUDIENCE),
    ({"aud": f"{RESOURCE}/"}, Fault.AUDIENCE),
    ({"exp": NOW - 11}, Fault.EXPIRED),
    ({"exp": None}, Fault.CLAIMS),
    ({"exp": "9999999999"}, Fault.CLAIMS),
    ({"exp": True}, Fault.CLAIMS),
    ({"exp": 1e300}, Fault.CLAIMS),
    ({"exp": NOW + 90_000}, Fault.LIFETIME),
    ({"nbf": NOW + 60}, Fault.NOT_YET_VALID),
    ({"iat": NOW + 60}, Fault.NOT_YET_VALID),
    ({"sub": None}, Fault.CLAIMS),
    ({"sub": ""}, Fault.CLAIMS),
    ({"client_id": None}, Fault.CLAIMS),
    ({"iss": "https://evil.example"}, Fault.ISSUER),
    ({"cnf": {"jku": "x"}}, Fault.BOUND),
]


@pytest.mark.parametrize(("changes", "fault"), SAME_CHECKS)
async def test_an_introspected_token_is_judged_as_a_signed_one_is(
    served: Endpoint, clock: ManualClock, changes: dict[str, Any], fault: Fault
) -> None:
    served.says(said(**changes))
    assert await fault_of(clock, OPAQUE, TrustedIssuer(ISSUER, introspection=asked(served, clock))) is fault
    assert await fault_of(clock, KEY.token(**changes), TrustedIssuer(ISSUER, KEYS)) is fault


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"token_type": "mac"}, Fault.TYPE),
        ({"token_type": 1}, Fault.TYPE),
        ({"token_type": "DPoP"}, Fault.BOUND),
        ({"token_use": "refresh_token"}, Fault.TYPE),
        ({"token_use": []}, Fault.TYPE),
        ({"active": False}, Fault.INACTIVE),
    ],
)
async def test_an_answer_about_something_else_than_a_good_access_token_is_refused(
    served: Endpoint, clock: ManualClock, changes: dict[str, Any], fault: Fault
) -> None:
    served.says(said(**changes))
    assert await fault_of(clock, OPAQUE, TrustedIssuer(ISSUER, introspection=asked(served, clock))) is fault


async def test_a_missing_audience_is_taken_only_where_that_was_asked_for(served: Endpoint, clock: ManualClock) -> None:
    def lenient() -> TrustedIssuer:
        return TrustedIssuer(ISSUER, introspection=asked(served, clock), insecure_accept_missing_audience=True)

    served.says(said(aud=None))
    assert (await verify(clock, OPAQUE, lenient())).token.subject == "alice"
    served.says(said(aud="https://other.example"))
    assert await fault_of(clock, OPAQUE, lenient()) is Fault.AUDIENCE


async def test_a_time_of_issue_may_be_missing_but_not_where_age_counts(served: Endpoint, clock: ManualClock) -> None:
    served.says(said(iat=None))
    verified = await verify(clock, OPAQUE, TrustedIssuer(ISSUER, introspection=asked(served, clock)))
    assert verified.token.not_before == NOW
    policy = IssuerPolicy(maximum_age=timedelta(hours=1))
    issuer = TrustedIssuer(ISSUER, introspection=asked(served, clock), policy=policy)
    assert await fault_of(clock, OPAQUE, issuer) is Fault.LIFETIME


def hybrid(served: Endpoint, clock: ManualClock, **settings: Any) -> TrustedIssuer:
    return TrustedIssuer(ISSUER, KEYS, introspection=asked(served, clock), **settings)


async def test_an_issuer_with_keys_is_asked_first_all_the_same(served: Endpoint, clock: ManualClock) -> None:
    assert (await verify(clock, JWT, hybrid(served, clock))).by == "introspection"
    served.says({"active": False})
    assert await fault_of(clock, JWT, hybrid(served, clock, fallback="local")) is Fault.INACTIVE


async def test_keys_decide_during_an_outage_only_where_policy_says_so(served: Endpoint, clock: ManualClock) -> None:
    served.says(b"", "503 Service Unavailable")
    with pytest.raises(IntrospectionUnavailable):
        await verify(clock, JWT, hybrid(served, clock))
    verified = await verify(clock, JWT, hybrid(served, clock, fallback="local"))
    assert verified.by == "fallback"
    assert verified.good_until == clock.monotonic() + 1
    assert await fault_of(clock, OTHER.token(), hybrid(served, clock, fallback="local")) is Fault.KEY


@pytest.mark.parametrize("status", ["401 Unauthorized", "302 Found", "200 OK"])
async def test_keys_do_not_decide_when_the_issuer_answers_something_else(
    served: Endpoint, clock: ManualClock, status: str
) -> None:
    served.says(b"{}", status)
    with pytest.raises(IntrospectionUnavailable):
        await verify(clock, JWT, hybrid(served, clock, fallback="local"))


async def test_an_opaque_token_never_falls_back_to_keys(served: Endpoint, clock: ManualClock) -> None:
    served.says(b"", "503 Service Unavailable")
    with pytest.raises(IntrospectionUnavailable):
        await verify(clock, OPAQUE, hybrid(served, clock, fallback="local", opaque=True))


async def test_an_opaque_token_is_shown_only_to_the_issuer_of_such(served: Endpoint, clock: ManualClock) -> None:
    other = Endpoint(port=served.port)
    signs = TrustedIssuer("https://b.example", KEYS, introspection=asked(other, clock, "https://b.example"))
    assert await fault_of(clock, OPAQUE, signs, TrustedIssuer(ISSUER, KEYS)) is Fault.MALFORMED
    assert served.asked == []


async def test_a_token_is_shown_only_to_the_issuer_that_it_names(served: Endpoint, clock: ManualClock) -> None:
    opaque = TrustedIssuer("https://opaque.example", introspection=asked(served, clock, "https://opaque.example"))
    assert (await verify(clock, JWT, opaque, TrustedIssuer(ISSUER, KEYS))).by == "signature"
    strange = KEY.token(iss="https://stranger.example")
    assert await fault_of(clock, strange, opaque, TrustedIssuer(ISSUER, KEYS)) is Fault.ISSUER
    assert await fault_of(clock, b"a.b.c", opaque) is Fault.MALFORMED
    assert await fault_of(clock, b"a.b.c.d.e", opaque) is Fault.MALFORMED
    assert served.asked == []


def test_two_issuers_of_opaque_tokens_are_refused(clock: ManualClock) -> None:
    issuers = [
        TrustedIssuer(name, introspection=Introspection(name, Anonymous(), "http://127.0.0.1:1/"))
        for name in ("https://a.example", "https://b.example")
    ]
    with pytest.raises(ConfigurationError, match="both issue opaque tokens"):
        Verification(issuers, clock, 10.0, 86_400.0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"keys": None}, "needs keys, introspection or both"),
        ({"opaque": True}, "opaque"),
        ({"insecure_accept_missing_audience": True}, "insecure_accept_missing_audience"),
        ({"fallback": "local"}, "fallback"),
        ({"fallback": "maybe"}, "fallback"),
    ],
)
def test_an_issuer_that_cannot_work_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        TrustedIssuer(ISSUER, **{"keys": KEYS, **settings})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"maximum_age": timedelta(0)}, "maximum_age"),
        ({"algorithms": frozenset()}, "algorithms"),
        ({"algorithms": frozenset({"HS256"})}, "algorithms"),
        ({"algorithms": frozenset({"none"})}, "algorithms"),
        ({"client_claim": ""}, "client_claim"),
        ({"required_claims": {"": frozenset()}}, "required_claims"),
        ({"over_lifetime": "ignore"}, "over_lifetime"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        IssuerPolicy(**settings)


REQUIRED = {"ver": frozenset({"2.0"}), "roles": frozenset({"admin", "user"}), "amr": frozenset[str]()}


@pytest.mark.parametrize(
    ("policy", "claims", "fault"),
    [
        (IssuerPolicy(required_claims=REQUIRED), {"ver": "2.0", "roles": ["x", "user"], "amr": [1]}, None),
        (IssuerPolicy(required_claims=REQUIRED), {"ver": "1.0", "roles": "user", "amr": [1]}, Fault.CLAIMS),
        (IssuerPolicy(required_claims=REQUIRED), {"ver": "2.0", "roles": ["x", 1], "amr": [1]}, Fault.CLAIMS),
        (IssuerPolicy(required_claims=REQUIRED), {"ver": "2.0", "roles": "user"}, Fault.CLAIMS),
        (IssuerPolicy(maximum_age=timedelta(seconds=30)), {"iat": NOW - 39}, None),
        (IssuerPolicy(maximum_age=timedelta(seconds=30)), {"iat": NOW - 40}, Fault.LIFETIME),
        (IssuerPolicy(single_audience=True), {"aud": [RESOURCE]}, None),
        (IssuerPolicy(single_audience=True), {"aud": [RESOURCE, "https://other.example"]}, Fault.AUDIENCE),
        (IssuerPolicy(algorithms=frozenset({"ES256"})), {}, None),
        (IssuerPolicy(algorithms=frozenset({"RS256"})), {}, Fault.ALGORITHM),
        (IssuerPolicy(client_claim="appid"), {"appid": "c9"}, None),
        (IssuerPolicy(client_claim="appid"), {}, Fault.CLAIMS),
        (IssuerPolicy(over_lifetime="warn"), {"exp": NOW + 90_000}, None),
    ],
)
async def test_an_issuer_may_have_a_policy_of_its_own(
    clock: ManualClock, policy: IssuerPolicy, claims: dict[str, Any], fault: Fault | None
) -> None:
    issuer, token = TrustedIssuer(ISSUER, KEYS, policy=policy), KEY.token(**claims)
    if fault is not None:
        assert await fault_of(clock, token, issuer) is fault
        return
    says = (await verify(clock, token, issuer)).token
    assert says.client_id == claims.get("appid", "client-1")
    if policy.maximum_age is not None:
        assert says.expires_at == claims["iat"] + 30, "its age is when it expires"


async def test_tokens_that_live_too_long_are_logged_once(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    policy = IssuerPolicy(over_lifetime="warn")
    verification = Verification([TrustedIssuer(ISSUER, KEYS, policy=policy)], clock, 10.0, 86_400.0)
    for _ in range(3):
        await verification.verify(KEY.token(exp=NOW + 90_000), frozenset({RESOURCE}))
    assert [record.message for record in caplog.records if "longer than the policy" in record.message] == [
        f"tokens of {ISSUER} live for 90010 s, longer than the policy"
    ]


async def test_the_layer_refuses_inactive_tokens_with_401_and_outages_with_503(
    served: Endpoint, clock: ManualClock, app: CountingApp
) -> None:
    issuer = TrustedIssuer(ISSUER, introspection=asked(served, clock))
    layer = Token((Resource(RESOURCE, "/mcp"),), (issuer,), clock=clock)
    stack = layer.wrap(app)
    scope = http_scope(headers=[(b"authorization", b"Bearer " + OPAQUE)])
    assert (await drive(stack, scope)).status == 200
    assert app.scopes[0]["mcp_guard"][Principal].verified_by == "introspection"
    assert (await drive(stack, scope)).status == 200
    assert len(served.asked) == 1, "what was found out is remembered"
    served.says({"active": False})
    clock.advance(30)
    refused = await drive(stack, scope)
    assert refused.status == 401
    assert b'error="invalid_token"' in (refused.value(b"www-authenticate") or b"")
    assert rejections.TOKEN_INACTIVE.description.encode() in (refused.value(b"www-authenticate") or b"")
    served.says(b"", "500 Internal Server Error")
    clock.advance(5)
    failed = await drive(stack, scope)
    assert failed.status == 503
    assert failed.value(b"retry-after") is not None
    assert len(app.scopes) == 2
    assert issuer.introspection is not None
    await issuer.introspection.close()


def test_the_good_claims_are_those_of_the_good_answer() -> None:
    assert json.loads(json.dumps(said(active=None, token_type=None))).items() <= good_claims().items()
