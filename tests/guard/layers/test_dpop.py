"""A bound token is worth nothing without a proof of its key for this very request."""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from mcp_guard import rejections
from mcp_guard.check import Check
from mcp_guard.clock import ManualClock
from mcp_guard.facts import NO_PROOF, Proof, Resource, fact
from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.keysources import StaticKeys
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.layers.dpop import NONCE_PURPOSE, Dpop
from mcp_guard.layers.token import Token
from mcp_guard.protocol.nonces import Nonces
from mcp_guard.stack import guard
from mcp_guard.tokens import TrustedIssuer
from tests.guard.asgi import CountingApp, Headers, Outcome, drive, http_scope
from tests.guard.proving import proof, proof_header, thumbprint, token_hash
from tests.guard.signing import ISSUER, NOW, RESOURCE, SigningKey, jwk_set, public_members

ISSUERS_KEY = SigningKey.new()
KEY = SigningKey.new()
BOUND = ISSUERS_KEY.token(cnf={"jkt": thumbprint(KEY)})
BEARER = ISSUERS_KEY.token()
MCP = Resource(RESOURCE, "/mcp", scopes=frozenset({"mcp:tools"}))
SSE = Resource("https://mcp.example.com/sse", "/sse", messages="/messages/", aliases=frozenset({RESOURCE}))
METADATA = "https://mcp.example.com/.well-known/oauth-protected-resource"
RING = KeyRing.generate()
NONCES = Nonces(RING, NONCE_PURPOSE)


@dataclass(frozen=True)
class Owed(Check):
    """Stands where the layer stands that knows used proofs."""

    needs = (Proof,)

    async def admit(self, request: RequestHead) -> Admission:
        return ADMITTED


@dataclass
class Guarded:
    """Token and proof, in front of an app that counts its calls."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(now=NOW))
    app: CountingApp = field(default_factory=CountingApp)
    settings: dict[str, Any] = field(default_factory=dict)
    resources: tuple[Resource, ...] = (MCP, SSE)

    def __post_init__(self) -> None:
        issuer = TrustedIssuer(ISSUER, StaticKeys(jwk_set(ISSUERS_KEY)))
        token = Token(self.resources, (issuer,), clock=self.clock, dpop=True)
        self.stack = guard(self.app, token, Dpop(clock=self.clock, **self.settings), Owed())

    async def send(
        self,
        *proofs: bytes,
        token: bytes = BOUND,
        method: str = "POST",
        path: str = "/mcp",
        more: Headers = (),
        **scope: Any,
    ) -> Outcome:
        scheme = b"Bearer " if token is BEARER else b"DPoP "
        headers = [(b"authorization", scheme + token), *((b"dpop", one) for one in proofs), *more]
        return await drive(self.stack, http_scope(method, path, headers, **scope))

    async def refused(self, kind: rejections.Kind, *proofs: bytes, **how: Any) -> Outcome:
        """Send, and check that the refusal is of this kind, with the one challenge of this scheme."""
        before = self.app.calls
        outcome = await self.send(*proofs, **how)
        assert self.app.calls == before
        assert outcome.status == kind.status == 401
        assert outcome.json() == {"error": kind.error, "error_description": kind.description}
        challenge = (outcome.value(b"www-authenticate") or b"").decode()
        assert challenge.startswith(f'DPoP error="{kind.error}", error_description="{kind.description}", ')
        assert f'resource_metadata="{METADATA}' in challenge
        assert 'algs="ES256 ES384 Ed25519 EdDSA PS256 PS384 PS512"' in challenge
        assert outcome.value(b"cache-control") == b"no-store"
        return outcome


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


def good(**changes: Any) -> bytes:
    return proof(KEY, BOUND, **changes)


async def test_a_good_proof_lets_the_request_through_and_is_not_handed_on(guarded: Guarded) -> None:
    assert (await guarded.send(good(jti="j"))).status == 200
    assert guarded.app.seen(b"dpop") == guarded.app.seen(b"authorization") == []
    digest = hashlib.sha256(f"{thumbprint(KEY)} j".encode()).digest()
    assert fact(guarded.app.scopes[0], Proof) == Proof(thumbprint(KEY), digest, NOW, NOW + 60)


async def test_a_bearer_token_needs_no_proof_and_one_that_comes_along_is_not_handed_on(guarded: Guarded) -> None:
    for proofs in ((), (b"whatever",), (good(), good())):
        outcome = await guarded.send(*proofs, token=BEARER)
        assert outcome.status == 200
        assert outcome.value(b"dpop-nonce") is None
        assert guarded.app.seen(b"dpop") == []
    assert fact(guarded.app.scopes[0], Proof) == NO_PROOF


@pytest.mark.parametrize(
    ("kind", "proofs"),
    [
        (rejections.PROOF_MISSING, ()),
        (rejections.PROOF_REPEATED, (good(), good())),
        (rejections.PROOF_MALFORMED, (good() + b"," + good(),)),
        (rejections.PROOF_MALFORMED, (b"",)),
        (rejections.PROOF_CLAIMS, (good(jti=None),)),
        (rejections.PROOF_TYPE, (proof(KEY, BOUND, header=proof_header(KEY, typ="JWT")),)),
        (rejections.PROOF_ALGORITHM, (proof(KEY, BOUND, header=proof_header(KEY, alg="none")),)),
        (rejections.PROOF_KEY, (proof(KEY, BOUND, header=proof_header(KEY, jwk=None)),)),
        (rejections.PROOF_SIGNATURE, (proof(SigningKey.new(), BOUND, header=proof_header(KEY)),)),
        (rejections.PROOF_METHOD, (good(htm="GET"),)),
        (rejections.PROOF_URL, (good(htu="https://evil.example/mcp"),)),
        (rejections.PROOF_TOKEN, (good(ath=None),)),
        (rejections.PROOF_TOKEN, (good(ath=token_hash(BEARER)),)),
        (rejections.PROOF_BINDING, (proof(SigningKey.new(), BOUND),)),
        (rejections.PROOF_TIME, (good(iat=NOW - 61),)),
        (rejections.PROOF_TIME, (good(iat=NOW + 11),)),
    ],
)
async def test_what_is_no_proof_for_this_request_is_refused(
    kind: rejections.Kind, proofs: tuple[bytes, ...], guarded: Guarded
) -> None:
    outcome = await guarded.refused(kind, *proofs)
    assert outcome.value(b"dpop-nonce") is None


async def test_a_refusal_shows_nothing_of_the_proof(guarded: Guarded) -> None:
    secret = public_members(SigningKey.new().private)["x"]
    jwk = {**public_members(KEY.private), "d": secret}
    outcome = await guarded.refused(rejections.PROOF_KEY, proof(KEY, BOUND, header=proof_header(KEY, jwk=jwk)))
    assert secret.encode() not in outcome.body + b"".join(value for _, value in outcome.headers)


async def test_the_window_is_set_by_the_operator() -> None:
    strict = Guarded(settings={"lifetime": timedelta(seconds=5), "leeway": timedelta(0)})
    assert (await strict.send(good(iat=NOW - 5))).status == 200
    await strict.refused(rejections.PROOF_TIME, good(iat=NOW - 6))
    await strict.refused(rejections.PROOF_TIME, good(iat=NOW + 1))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lifetime", timedelta(0)),
        ("lifetime", timedelta(minutes=11)),
        ("leeway", timedelta(seconds=-1)),
        ("leeway", timedelta(minutes=6)),
    ],
)
def test_a_window_that_cannot_be_is_named(setting: str, value: timedelta) -> None:
    settings: dict[str, Any] = {setting: value}
    with pytest.raises(ConfigurationError, match=f"{setting} must be"):
        Dpop(**settings)


def test_a_stack_in_which_nobody_knows_used_proofs_is_not_built() -> None:
    issuer = TrustedIssuer(ISSUER, StaticKeys(jwk_set(ISSUERS_KEY)))
    with pytest.raises(ConfigurationError, match="Dpop leaves Proof to be judged"):
        guard(CountingApp(), Token((MCP,), (issuer,), dpop=True), Dpop())


# Which URL a proof has to be for.


@pytest.mark.parametrize("name", [b"host", b"x-forwarded-host", b"forwarded"])
async def test_no_field_of_the_request_says_what_the_url_is(name: bytes, guarded: Guarded) -> None:
    value = b"host=evil.example" if name == b"forwarded" else b"evil.example"
    assert (await guarded.send(good(), more=[(name, value)])).status == 200
    await guarded.refused(rejections.PROOF_URL, good(htu="https://evil.example/mcp"), more=[(name, value)])


@pytest.mark.parametrize(
    "htu", ["HTTPS://MCP.EXAMPLE.COM:443/mcp", f"{RESOURCE}?a=b", f"{RESOURCE}#c", "https://mcp.example.com/mc%70"]
)
async def test_the_url_may_be_spelled_in_any_way_that_is_the_same(htu: str, guarded: Guarded) -> None:
    assert (await guarded.send(good(htu=htu), query=b"x=1")).status == 200


@pytest.mark.parametrize(
    ("url", "path", "asked", "htu"),
    [
        ("https://h.example/mcp", "/mcp", "/mcp/", "https://h.example/mcp/"),
        ("https://h.example/mcp", "/mcp", "/messages/", "https://h.example/messages/"),
        ("https://h.example/api/mcp", "/mcp", "/messages/", "https://h.example/api/messages/"),
        ("https://h.example/other", "/mcp", "/mcp", "https://h.example/other"),
        ("https://h.example", "/", "/", "https://h.example/"),
        ("https://h.example", "/", "/messages/", "https://h.example/messages/"),
        ("https://h.example/mcp", "/mcp", "/m e/\u00e9,", "https://h.example/m%20e/%C3%A9,"),
    ],
)
async def test_a_proof_is_for_the_public_url_of_what_is_asked(url: str, path: str, asked: str, htu: str) -> None:
    here = Guarded(resources=(replace(MCP, url=url, path=path, aliases=frozenset({RESOURCE})),))
    assert (await here.send(good(htu=htu), path=asked)).status == 200
    elsewhere = [f"{htu}/x", "https://h.example/elsewhere"] + ([url] if asked != path else [])
    for other in elsewhere:
        before = here.app.calls
        assert (await here.send(good(htu=other), path=asked)).status == 401
        assert here.app.calls == before


async def test_where_the_app_is_mounted_is_part_of_the_public_url() -> None:
    here = Guarded(resources=(replace(MCP, url="https://h.example/api/mcp", aliases=frozenset({RESOURCE})),))
    mounted: dict[str, Any] = {"root_path": "/api"}
    assert (await here.send(good(htu="https://h.example/api/mcp"), path="/api/mcp", **mounted)).status == 200
    messages = good(htu="https://h.example/api/messages/")
    assert (await here.send(messages, path="/api/messages/", **mounted)).status == 200


async def test_each_resource_has_its_url(guarded: Guarded) -> None:
    assert (await guarded.send(good(htu=SSE.url, htm="GET"), path="/sse", method="GET")).status == 200
    assert (await guarded.send(good(htu="https://mcp.example.com/messages/"), path="/messages/")).status == 200
    assert (await guarded.send(good(), path="/sse")).status == 401


# Nonces of the server.


@pytest.fixture
def asking() -> Guarded:
    return Guarded(settings={"nonces": NONCES})


@pytest.mark.parametrize(
    "nonce",
    [
        None,
        "",
        "made up",
        NONCES.current(NOW - 240),
        Nonces(RING, "dpop-nonce of an issuer").current(NOW),
        Nonces(KeyRing.generate(), NONCE_PURPOSE).current(NOW),
    ],
    ids=["none", "empty", "made up", "too old", "of an issuer", "of another ring"],
)
async def test_without_a_nonce_that_is_good_a_client_is_told_one(nonce: str | None, asking: Guarded) -> None:
    outcome = await asking.refused(rejections.PROOF_NONCE, good(nonce=nonce))
    told = outcome.value(b"dpop-nonce")
    assert told is not None
    assert (await asking.send(good(nonce=told.decode()))).status == 200


async def test_the_nonce_of_another_worker_is_good() -> None:
    other = Guarded(settings={"nonces": Nonces(KeyRing((*KeyRing.generate().keys, *RING.keys)), NONCE_PURPOSE)})
    assert (await other.send(good(nonce=NONCES.current(NOW)))).status == 200


async def test_the_current_nonce_is_told_when_an_older_one_is_presented(asking: Guarded) -> None:
    first = NONCES.current(NOW)
    assert (await asking.send(good(nonce=first))).value(b"dpop-nonce") is None
    asking.clock.advance(120)
    outcome = await asking.send(good(nonce=first, iat=NOW + 120))
    assert outcome.status == 200
    second = outcome.value(b"dpop-nonce")
    assert second is not None
    assert second != first.encode()
    assert (await asking.send(good(nonce=second.decode(), iat=NOW + 120))).value(b"dpop-nonce") is None


async def test_only_a_proof_that_holds_otherwise_is_told_a_nonce(asking: Guarded) -> None:
    for wrong in (good(htm="GET"), good(ath="x"), proof(SigningKey.new(), BOUND)):
        assert (await asking.send(wrong)).value(b"dpop-nonce") is None


async def test_a_good_nonce_does_not_make_up_for_an_old_proof(asking: Guarded) -> None:
    await asking.refused(rejections.PROOF_TIME, good(nonce=NONCES.current(NOW), iat=NOW - 61))
