"""Who is asking, told from one bearer token of a trusted issuer."""

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import inf
from typing import Any, cast

import pytest

from mcp_guard import rejections
from mcp_guard.check import Check
from mcp_guard.clock import ManualClock
from mcp_guard.facts import Policy, Principal, Resource, SenderCertificate, SenderKey, fact
from mcp_guard.failures import ConfigurationError, KeySourceUnavailable
from mcp_guard.keysources import Found, KeySource, StaticKeys
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.layers.token import Token
from mcp_guard.protocol.jwk import import_set
from mcp_guard.stack import guard as guard_with
from mcp_guard.tokens import TrustedIssuer
from tests.guard.asgi import CountingApp, Headers, Outcome, drive, http_scope
from tests.guard.signing import ISSUER, NOW, RESOURCE, SigningKey, dump, good_claims, jwk_set

KEY = SigningKey.new()
SECOND = SigningKey.new("RS256", "k2")
MCP = Resource(RESOURCE, "/mcp", scopes=frozenset({"mcp:tools"}))
SSE = Resource("https://mcp.example.com/sse", "/sse", messages="/messages/", aliases=frozenset({RESOURCE}))
METADATA = "https://mcp.example.com/.well-known/oauth-protected-resource"


@dataclass
class CountedKeys:
    """Keys at hand that count how often they are asked, and can fail or be replaced."""

    document: dict[str, Any] = field(default_factory=lambda: jwk_set(KEY, SECOND))
    good_for: float = inf
    asked: int = 0
    down: bool = False
    clock: ManualClock = field(default_factory=ManualClock)
    started: list[str] = field(default_factory=list)

    async def find(self, kid: str | None, alg: str) -> Found | None:
        self.asked += 1
        if self.down:
            raise KeySourceUnavailable("the issuer is down", retry_after_seconds=3)
        key = import_set(self.document).find(kid, alg)
        return None if key is None else Found(key, self.clock.monotonic() + self.good_for)

    async def start(self) -> None:
        self.started.append("start")

    async def close(self) -> None:
        self.started.append("close")


@dataclass
class Guarded:
    """A layer around an app that counts its calls."""

    layer: Token
    clock: ManualClock
    keys: CountedKeys
    app: CountingApp = field(default_factory=CountingApp)

    async def send(self, *values: bytes, path: str = "/mcp", query: bytes = b"", more: Headers = ()) -> Outcome:
        headers = [(b"host", b"mcp.example.com"), *((b"authorization", value) for value in values), *more]
        return await drive(self.layer.wrap(self.app), http_scope("POST", path, headers, query))

    async def refused(self, kind: rejections.Kind, *values: bytes, path: str = "/mcp", query: bytes = b"") -> str:
        """Send, and check that the refusal is of this kind and shows nothing of the token. Answers its challenge."""
        before = self.app.calls
        outcome = await self.send(*values, path=path, query=query)
        assert self.app.calls == before
        assert outcome.status == kind.status
        assert outcome.json() == {"error": kind.error or kind.slug, "error_description": kind.description}
        challenge = (outcome.value(b"www-authenticate") or b"").decode()
        assert challenge.startswith("Bearer ")
        assert ('error="' in challenge) is bool(kind.error)
        if kind.error:
            assert f'error="{kind.error}", error_description="{kind.description}"' in challenge
        for value in values:
            for part in re.split(rb"[ .]", value):
                assert len(part) < 12 or part not in outcome.body + challenge.encode()
        return challenge


def guarded(**settings: Any) -> Guarded:
    clock = ManualClock(now=NOW)
    keys = settings.pop("keys", None) or CountedKeys(clock=clock)
    issuers = settings.pop("issuers", (TrustedIssuer(ISSUER, keys),))
    resources = settings.pop("resources", (MCP, SSE))
    return Guarded(Token(resources, issuers, clock, **settings), clock, keys)


def bearer(token: bytes) -> bytes:
    return b"Bearer " + token


async def test_a_good_token_lets_the_request_through_with_its_principal() -> None:
    guard = guarded()
    assert (await guard.send(bearer(KEY.token()))).status == 200
    principal = fact(guard.app.scopes[0], Principal)
    assert principal.identity == (ISSUER, "alice", "client-1", None)
    assert principal.scopes == {"mcp:tools"}
    assert principal.expires_at == NOW + 300
    assert re.fullmatch(r"[0-9a-f]{16}", principal.token_fingerprint)
    assert principal.claims["jti"] == "t1"
    assert fact(guard.app.scopes[0], Resource) is MCP


async def test_the_credential_is_not_handed_to_the_app() -> None:
    guard = guarded()
    await guard.send(bearer(KEY.token()), more=[(b"dpop", b"x"), (b"accept", b"*/*")])
    assert [name for name, _ in guard.app.scopes[0]["headers"]] == [b"host", b"accept"]


async def test_the_credential_is_handed_on_only_when_that_is_asked_for_by_name() -> None:
    guard, value = guarded(insecure_forward_credentials=True), bearer(KEY.token())
    await guard.send(value)
    assert guard.app.seen(b"authorization") == [value]


async def test_without_credentials_the_challenge_says_where_to_go_and_no_error() -> None:
    challenge = await guarded().refused(rejections.CREDENTIALS_MISSING)
    assert challenge == f'Bearer resource_metadata="{METADATA}/mcp", scope="mcp:tools"'


async def test_each_resource_has_its_own_challenge() -> None:
    guard = guarded()
    assert f'resource_metadata="{METADATA}/sse"' in await guard.refused(rejections.CREDENTIALS_MISSING, path="/sse")
    assert f'resource_metadata="{METADATA}/sse"' in await guard.refused(
        rejections.CREDENTIALS_MISSING, path="/messages/"
    )


@pytest.mark.parametrize("path", ["/", "/mcp/", "/MCP", "/mcp/x", "//mcp", "/health", "/messages", "/favicon.ico"])
async def test_no_path_is_exempt(path: str) -> None:
    guard = guarded()
    assert f'resource_metadata="{METADATA}/mcp"' in await guard.refused(rejections.CREDENTIALS_MISSING, path=path)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"Bearer", rejections.CREDENTIALS_MALFORMED),
        (b"Bearer  x", rejections.CREDENTIALS_MALFORMED),
        (b"Basic YTpi", rejections.SCHEME_NOT_SUPPORTED),
        (b"Bearer " + b"a" * 9_000, rejections.TOKEN_MALFORMED),
        (b"Bearer opaque", rejections.TOKEN_MALFORMED),
        (b"Bearer a.b.c.d.e", rejections.TOKEN_MALFORMED),
    ],
)
async def test_credentials_of_another_form_are_refused_by_their_kind(value: bytes, kind: rejections.Kind) -> None:
    await guarded().refused(kind, value)


async def test_two_credentials_are_refused_even_when_both_are_good() -> None:
    guard, value = guarded(), bearer(KEY.token())
    await guard.refused(rejections.CREDENTIALS_REPEATED, value, value)
    await guard.refused(rejections.CREDENTIALS_REPEATED, value, query=b"access_token=x")


async def test_a_token_elsewhere_than_in_the_header_counts_for_nothing() -> None:
    guard, token = guarded(), KEY.token()
    await guard.refused(rejections.CREDENTIALS_MISSING, query=b"access_token=" + token)
    outcome = await guard.send(more=[(b"cookie", b"access_token=" + token), (b"x-authorization", bearer(token))])
    assert outcome.status == 401
    assert guard.app.calls == 0


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (KEY.token(header=KEY.header(typ="JWT")), rejections.TOKEN_TYPE),
        (KEY.token(header={"alg": "none", "typ": "at+jwt"}), rejections.TOKEN_ALGORITHM),
        (KEY.token(iss="https://as.example.com/"), rejections.TOKEN_ISSUER),
        (KEY.token(iss="https://AS.example.com"), rejections.TOKEN_ISSUER),
        (KEY.token(iss="https://as.example.com.evil.net"), rejections.TOKEN_ISSUER),
        (KEY.token(claims=dump({**good_claims(), "iss": [ISSUER]})), rejections.TOKEN_ISSUER),
        (KEY.token(iss=None), rejections.TOKEN_ISSUER),
        (KEY.token(header=KEY.header(kid="other")), rejections.TOKEN_KEY),
        (KEY.token(header=KEY.header(kid="k2")), rejections.TOKEN_KEY),
        (SigningKey.new().token(), rejections.TOKEN_SIGNATURE),
        (KEY.token()[:-8] + b"AAAAAAAA", rejections.TOKEN_SIGNATURE),
        (KEY.token(aud="https://mcp.example.com/other"), rejections.TOKEN_AUDIENCE),
        (KEY.token(exp=NOW - 10), rejections.TOKEN_EXPIRED),
        (KEY.token(nbf=NOW + 11), rejections.TOKEN_NOT_YET_VALID),
        (KEY.token(iat=NOW + 3600, exp=NOW + 3700), rejections.TOKEN_NOT_YET_VALID),
        (KEY.token(exp=NOW + 90_000), rejections.TOKEN_LIFETIME),
        (KEY.token(sub=None), rejections.TOKEN_CLAIMS),
        (KEY.token(exp=None), rejections.TOKEN_CLAIMS),
        (KEY.token(cnf={"jkt": "x"}), rejections.TOKEN_BOUND),
    ],
)
async def test_each_fault_of_a_token_is_refused_by_its_kind(token: bytes, kind: rejections.Kind) -> None:
    guard = guarded()
    challenge = await guard.refused(kind, bearer(token))
    assert f'resource_metadata="{METADATA}/mcp"' in challenge
    assert (await guard.send(bearer(KEY.token()))).status == 200, "a good request works afterwards"


async def test_the_payload_cannot_be_exchanged_under_a_signature() -> None:
    head, _, signature = KEY.token().split(b".")
    other = KEY.token(sub="mallory").split(b".")[1]
    await guarded().refused(rejections.TOKEN_SIGNATURE, bearer(b".".join([head, other, signature])))


async def test_a_key_of_one_issuer_does_not_speak_for_another() -> None:
    clock = ManualClock(now=NOW)
    other = SigningKey.new("ES256", "other")
    issuers = (
        TrustedIssuer(ISSUER, CountedKeys(clock=clock)),
        TrustedIssuer("https://b.example", CountedKeys(jwk_set(other), clock=clock)),
    )
    guard = guarded(issuers=issuers)
    assert (await guard.send(bearer(other.token(iss="https://b.example")))).status == 200
    await guard.refused(rejections.TOKEN_KEY, bearer(KEY.token(iss="https://b.example")))
    forged = SigningKey("ES256", "other", KEY.private).token(iss="https://b.example")
    await guard.refused(rejections.TOKEN_SIGNATURE, bearer(forged))


async def test_a_token_is_good_at_its_own_resource_and_where_that_is_an_alias() -> None:
    guard = guarded()
    value = bearer(KEY.token())
    assert (await guard.send(value, path="/mcp")).status == 200
    assert (await guard.send(value, path="/sse")).status == 200
    assert (await guard.send(value, path="/messages/")).status == 200
    assert fact(guard.app.scopes[-1], Resource) is SSE
    await guard.refused(rejections.TOKEN_AUDIENCE, bearer(KEY.token(aud=SSE.url)), path="/mcp")


async def test_what_is_remembered_for_one_resource_says_nothing_about_another() -> None:
    guard = guarded()
    value = bearer(KEY.token(aud=SSE.url))
    assert (await guard.send(value, path="/sse")).status == 200
    await guard.refused(rejections.TOKEN_AUDIENCE, value, path="/mcp")
    await guard.refused(rejections.TOKEN_AUDIENCE, value, path="/unknown")


async def test_a_mount_point_is_no_part_of_the_path() -> None:
    guard = guarded()
    scope = http_scope("POST", "/api/sse", [(b"authorization", bearer(KEY.token(aud=SSE.url)))], root_path="/api")
    assert (await drive(guard.layer.wrap(guard.app), scope)).status == 200
    assert fact(guard.app.scopes[0], Resource) is SSE


async def test_a_token_is_verified_once() -> None:
    guard, value = guarded(), bearer(KEY.token())
    for _ in range(5):
        assert (await guard.send(value)).status == 200
    assert guard.keys.asked == 1


async def test_a_second_credential_is_refused_beside_one_that_is_remembered_too() -> None:
    guard, value = guarded(), bearer(KEY.token())
    assert (await guard.send(value)).status == 200
    await guard.refused(rejections.CREDENTIALS_REPEATED, value, value)
    await guard.refused(rejections.CREDENTIALS_REPEATED, value, query=b"a=1&access%5Ftoken=x")
    assert (await guard.send(value, query=b"a=1")).status == 200
    assert guard.keys.asked == 1


async def test_a_remembered_token_is_still_refused_in_another_form() -> None:
    guard, token = guarded(), KEY.token()
    assert (await guard.send(bearer(token))).status == 200
    await guard.refused(rejections.CREDENTIALS_MALFORMED, b"Bearer  " + token)
    await guard.refused(rejections.SCHEME_NOT_SUPPORTED, b"Basic " + token)
    assert (await guard.send(b"bearer " + token)).status == 200


async def test_without_a_cache_every_request_is_verified() -> None:
    guard, value = guarded(cached_tokens=0), bearer(KEY.token())
    for _ in range(3):
        assert (await guard.send(value)).status == 200
    assert guard.keys.asked == 3


@pytest.mark.parametrize(("seconds", "accepted"), [(309, True), (309.999, True), (310, False), (400, False)])
async def test_a_remembered_token_expires_on_the_second(seconds: float, *, accepted: bool) -> None:
    guard, value = guarded(), bearer(KEY.token())
    assert (await guard.send(value)).status == 200
    guard.clock.advance(seconds)
    if accepted:
        assert (await guard.send(value)).status == 200
    else:
        await guard.refused(rejections.TOKEN_EXPIRED, value)


async def test_a_remembered_token_is_refused_when_the_clock_steps_back_before_it() -> None:
    guard, value = guarded(), bearer(KEY.token())
    assert (await guard.send(value)).status == 200
    guard.clock.step(-3600)
    await guard.refused(rejections.TOKEN_NOT_YET_VALID, value)
    guard.clock.step(3600)
    assert (await guard.send(value)).status == 200


async def test_a_refused_token_is_not_remembered() -> None:
    guard, value = guarded(), bearer(KEY.token(exp=NOW - 100))
    for asked in (1, 2):
        await guard.refused(rejections.TOKEN_EXPIRED, value)
        assert guard.keys.asked == asked


async def test_a_withdrawn_key_stops_counting_when_its_source_must_be_asked_again() -> None:
    guard, value = guarded(), bearer(KEY.token())
    guard.keys.good_for = 60
    assert (await guard.send(value)).status == 200
    guard.keys.document = jwk_set(SECOND)
    guard.clock.advance(59)
    assert (await guard.send(value)).status == 200
    guard.clock.advance(1)
    await guard.refused(rejections.TOKEN_KEY, value)


async def test_forgetting_makes_a_withdrawn_key_stop_counting_at_once() -> None:
    guard, value = guarded(), bearer(KEY.token())
    assert (await guard.send(value)).status == 200
    guard.keys.document = jwk_set(SECOND)
    guard.layer.forget()
    await guard.refused(rejections.TOKEN_KEY, value)


async def test_an_unreachable_issuer_is_answered_503_and_never_401() -> None:
    guard = guarded()
    guard.keys.down = True
    outcome = await guard.send(bearer(KEY.token()))
    assert outcome.status == 503
    assert outcome.value(b"retry-after") == b"3"
    assert outcome.value(b"www-authenticate") is None
    assert guard.app.calls == 0
    guard.keys.down = False
    assert (await guard.send(bearer(KEY.token()))).status == 200


async def test_an_untyped_token_is_let_in_only_from_an_issuer_that_is_allowed_to() -> None:
    keys = CountedKeys(clock=ManualClock(now=NOW))
    guard = guarded(issuers=(TrustedIssuer(ISSUER, keys, insecure_accept_untyped=True),))
    assert (await guard.send(bearer(KEY.token(header=KEY.header(typ="JWT"))))).status == 200
    await guard.refused(rejections.TOKEN_TYPE, bearer(KEY.token(header=KEY.header(typ="JWT"), nonce="n")))
    await guard.refused(rejections.TOKEN_TYPE, bearer(KEY.token(header=KEY.header(typ="dpop+jwt"))))


async def test_the_tenant_is_part_of_who_is_asking() -> None:
    keys = CountedKeys(clock=ManualClock(now=NOW))
    guard = guarded(issuers=(TrustedIssuer(ISSUER, keys, tenant_claim="org"),))
    assert (await guard.send(bearer(KEY.token(org="acme")))).status == 200
    assert fact(guard.app.scopes[0], Principal).identity == (ISSUER, "alice", "client-1", "acme")
    await guard.refused(rejections.TOKEN_CLAIMS, bearer(KEY.token()))


async def test_algorithms_that_a_key_was_not_published_for_are_refused() -> None:
    guard = guarded()
    guard.keys.document = jwk_set(KEY.jwk(use="enc"), SECOND.jwk(alg="PS256"), SigningKey.new("ES384", "k3"))
    await guard.refused(rejections.TOKEN_KEY, bearer(KEY.token()))
    await guard.refused(rejections.TOKEN_KEY, bearer(SECOND.token()))


async def test_a_websocket_handshake_is_never_let_through() -> None:
    guard = guarded()
    scope = {"type": "websocket", "path": "/mcp", "query_string": b"", "headers": [], "client": ("192.0.2.7", 1)}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await guard.layer.wrap(guard.app)(scope, receive, send)
    assert guard.app.calls == 0
    assert sent[0]["type"] in ("websocket.close", "websocket.http.response.start")


async def test_the_sources_of_keys_are_started_and_closed_with_the_layer() -> None:
    guard = guarded()
    assert list(guard.layer.managed()) == [guard.keys]
    await guard.send()
    assert guard.keys.started[:1] == ["start"]


STATIC: KeySource = StaticKeys(jwk_set(KEY))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"resources": ()}, "resources"),
        ({"resources": (MCP, MCP)}, "/mcp"),
        ({"resources": (MCP, Resource("https://mcp.example.com/b", "/b", messages="/mcp"))}, "/mcp"),
        ({"resources": (Resource("http://mcp.example.com/mcp", "/mcp"),)}, "resource"),
        ({"resources": (Resource(RESOURCE, "/mcp", scopes=frozenset({"a b"})),)}, "challenge"),
        ({"issuers": ()}, "issuers"),
        ({"issuers": (TrustedIssuer(ISSUER, STATIC), TrustedIssuer(ISSUER, STATIC))}, "twice"),
        ({"leeway": timedelta(seconds=-1)}, "leeway"),
        ({"leeway": timedelta(minutes=6)}, "leeway"),
        ({"maximum_lifetime": timedelta(0)}, "maximum_lifetime"),
        ({"cached_tokens": -1}, "cached_tokens"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        guarded(**settings)


@pytest.mark.parametrize(("issuer", "tenant_claim"), [("", None), (ISSUER, "")])
def test_an_issuer_needs_a_name(issuer: str, tenant_claim: str | None) -> None:
    with pytest.raises(ConfigurationError, match="must"):
        TrustedIssuer(issuer, STATIC, tenant_claim)


async def test_the_cache_never_holds_more_than_its_capacity() -> None:
    guard = guarded(cached_tokens=10)
    values = [bearer(KEY.token(jti=str(number))) for number in range(40)]
    for value in values:
        assert (await guard.send(value)).status == 200
    assert len(guard.layer._remembered.young) + len(guard.layer._remembered.old) <= 10
    asked = guard.keys.asked
    assert (await guard.send(values[-1])).status == 200
    assert guard.keys.asked == asked, "the newest is remembered"


async def test_a_token_in_use_outlives_the_rotation_of_the_cache() -> None:
    guard, kept = guarded(cached_tokens=10), bearer(KEY.token(jti="kept"))
    for number in range(40):
        assert (await guard.send(kept)).status == 200
        assert (await guard.send(bearer(KEY.token(jti=str(number))))).status == 200
    assert guard.keys.asked == 41


THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
OTHER = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
BY_KEY, BY_CERTIFICATE, BY_BOTH = ({"jkt": THUMBPRINT}, {"x5t#S256": OTHER}, {"jkt": THUMBPRINT, "x5t#S256": OTHER})


@dataclass(frozen=True)
class Judge(Check):
    """Stands for the layers that ask for a proof and for a certificate."""

    needs = (SenderKey, SenderCertificate)

    async def admit(self, request: RequestHead) -> Admission:
        return ADMITTED


async def outcome_of(scheme: str, cnf: object, dpop: Policy = "allowed", certificates: Policy = "allowed") -> Outcome:
    resource = Resource(RESOURCE, "/mcp", dpop=dpop, certificates=certificates)
    layer = guarded(resources=(resource,), dpop=True, certificates=True).layer
    app = CountingApp()
    token = KEY.token() if cnf is None else KEY.token(cnf=cnf)
    headers = [(b"host", b"mcp.example.com"), (b"authorization", scheme.encode() + b" " + token), (b"dpop", b"proof")]
    outcome = await drive(guard_with(app, layer, Judge()), http_scope("POST", "/mcp", headers))
    assert (outcome.status == 200) is (app.calls == 1)
    return outcome


@pytest.mark.parametrize(
    ("scheme", "cnf", "dpop", "certificates", "refusal"),
    [
        ("Bearer", None, "allowed", "allowed", None),
        ("Bearer", None, "off", "off", None),
        ("DPoP", BY_KEY, "allowed", "off", None),
        ("dpop", BY_KEY, "required", "off", None),
        ("Bearer", BY_CERTIFICATE, "off", "allowed", None),
        ("Bearer", BY_CERTIFICATE, "allowed", "required", None),
        ("DPoP", BY_BOTH, "required", "required", None),
        ("Bearer", BY_KEY, "allowed", "allowed", rejections.TOKEN_BOUND),
        ("Bearer", BY_BOTH, "allowed", "allowed", rejections.TOKEN_BOUND),
        ("Bearer", BY_KEY, "off", "allowed", rejections.TOKEN_BOUND),
        ("DPoP", BY_KEY, "off", "allowed", rejections.SCHEME_NOT_SUPPORTED),
        ("DPoP", None, "allowed", "allowed", rejections.TOKEN_UNBOUND),
        ("DPoP", BY_CERTIFICATE, "allowed", "allowed", rejections.TOKEN_UNBOUND),
        ("Bearer", None, "required", "off", rejections.SCHEME_NOT_SUPPORTED),
        ("Bearer", BY_KEY, "required", "off", rejections.SCHEME_NOT_SUPPORTED),
        ("DPoP", None, "required", "off", rejections.TOKEN_UNBOUND),
        ("Bearer", BY_CERTIFICATE, "allowed", "off", rejections.TOKEN_BOUND),
        ("DPoP", BY_BOTH, "allowed", "off", rejections.TOKEN_BOUND),
        ("Bearer", None, "allowed", "required", rejections.TOKEN_UNBOUND),
        ("DPoP", BY_KEY, "allowed", "required", rejections.TOKEN_UNBOUND),
    ],
)
async def test_a_bound_token_is_accepted_as_the_resource_wants_it(
    scheme: str, cnf: object, dpop: Policy, certificates: Policy, refusal: rejections.Kind | None
) -> None:
    outcome = await outcome_of(scheme, cnf, dpop, certificates)
    assert outcome.status == (200 if refusal is None else refusal.status)
    if refusal is not None:
        assert outcome.json()["error_description"] == refusal.description


async def test_the_first_challenge_is_that_of_the_scheme_in_use() -> None:
    bound = await outcome_of("Bearer", BY_KEY)
    unbound = await outcome_of("DPoP", None)
    assert [value.split(b" ")[0] for value in bound.values(b"www-authenticate")] == [b"Bearer", b"DPoP"]
    first, second = unbound.values(b"www-authenticate")
    assert first.startswith(b'DPoP error="invalid_token", ')
    assert second.startswith(b"Bearer resource_metadata=")
    assert b'algs="ES256 ES384 Ed25519 EdDSA PS256 PS384 PS512"' in first
    assert b"error" not in second


async def test_what_the_sender_has_to_prove_is_handed_inward() -> None:
    layer = guarded(resources=(Resource(RESOURCE, "/mcp", certificates="allowed"),), dpop=True, certificates=True).layer
    app, token = CountingApp(), KEY.token(cnf=BY_BOTH)
    headers = [(b"host", b"mcp.example.com"), (b"authorization", b"DPoP " + token), (b"dpop", b"proof")]
    assert (await drive(guard_with(app, layer, Judge()), http_scope("POST", "/mcp", headers))).status == 200
    assert fact(app.scopes[0], SenderKey) == SenderKey(THUMBPRINT, hashlib.sha256(token).digest())
    assert fact(app.scopes[0], SenderCertificate) == SenderCertificate(OTHER)
    assert fact(app.scopes[0], Principal).confirmation == (THUMBPRINT, OTHER)
    assert dict(app.scopes[0]["headers"])[b"dpop"] == b"proof", "the layer further in judges it"


@pytest.mark.parametrize(("setting", "owed"), [("dpop", "SenderKey"), ("certificates", "SenderCertificate")])
def test_a_stack_that_asks_for_no_proof_is_not_built(setting: str, owed: str) -> None:
    layer = guarded(**{setting: True}).layer
    with pytest.raises(ConfigurationError, match=f"Token leaves {owed} to be judged, and no layer further in does"):
        guard_with(CountingApp(), layer)
    with pytest.raises(ConfigurationError, match=owed):
        layer.wrap(CountingApp())


@pytest.mark.parametrize("setting", ["dpop", "certificates"])
def test_a_policy_that_cannot_be_kept_is_refused(setting: str) -> None:
    with pytest.raises(ConfigurationError, match=f"resources: {setting} is required by .*, and off in Token"):
        guarded(resources=(replace(MCP, **cast("Any", {setting: "required"})),))
    with pytest.raises(ConfigurationError, match=f"resources: {setting} must be off, allowed or required, not 'on'"):
        guarded(resources=(replace(MCP, **cast("Any", {setting: "on"})),))
