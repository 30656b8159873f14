"""A token that is bound to a certificate is worth nothing on a connection without that certificate (RFC 8705 §3)."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from mcp_guard import rejections
from mcp_guard.check import Check
from mcp_guard.clock import ManualClock
from mcp_guard.facts import Policy, Principal, Proof, Resource, fact
from mcp_guard.failures import ConfigurationError
from mcp_guard.keysources import StaticKeys
from mcp_guard.layer import ADMITTED, Admission, RequestHead
from mcp_guard.layers.certificate import Certificate
from mcp_guard.layers.dpop import Dpop
from mcp_guard.layers.proxy import Proxy
from mcp_guard.layers.token import Token
from mcp_guard.profiles import standard
from mcp_guard.stack import guard
from mcp_guard.tokens import TrustedIssuer
from tests.guard import certificates
from tests.guard.asgi import CountingApp, Outcome, drive, http_scope
from tests.guard.certificates import certificate, over_tls, pem, x5t
from tests.guard.proving import proof, thumbprint
from tests.guard.signing import ISSUER, NOW, RESOURCE, SigningKey, jwk_set

KEY, SENDER = SigningKey.new(), SigningKey.new()
OWN, OTHER = certificate("own"), certificate("other")
BOUND = KEY.token(cnf={"x5t#S256": x5t(OWN)})
TWICE = KEY.token(cnf={"x5t#S256": x5t(OWN), "jkt": thumbprint(SENDER)})
BEARER = KEY.token()
ISSUERS = (TrustedIssuer(ISSUER, StaticKeys(jwk_set(KEY))),)
PROXY = ("10.0.0.1", 4711)


@dataclass(frozen=True)
class Owed(Check):
    """Stands where the layer stands that knows used proofs."""

    needs = (Proof,)

    async def admit(self, request: RequestHead) -> Admission:
        return ADMITTED


@dataclass
class Guarded:
    """Proxy, token, certificate and proof, in front of an app that counts its calls."""

    policy: Policy = "allowed"
    proxies: bool = False
    clock: ManualClock = field(default_factory=lambda: ManualClock(now=NOW))
    app: CountingApp = field(default_factory=CountingApp)

    def __post_init__(self) -> None:
        resource = Resource(RESOURCE, "/mcp", scopes=frozenset({"mcp:tools"}), certificates=self.policy)
        self.stack = guard(
            self.app,
            Proxy(trusted=("10.0.0.0/8",), client_certificates=self.proxies),
            Token((resource,), ISSUERS, clock=self.clock, dpop=True, certificates=True),
            Certificate(clock=self.clock),
            Dpop(clock=self.clock),
            Owed(),
        )

    async def send(self, token: bytes = BOUND, *shown: bytes, headers: Any = (), scheme: str = "Bearer") -> Outcome:
        """With a connection on which the client showed `shown`."""
        extensions = over_tls(*map(pem, shown)) if shown else {}
        fields = [(b"authorization", scheme.encode() + b" " + token), *headers]
        return await drive(self.stack, http_scope("POST", "/mcp", fields, scheme="https", extensions=extensions))

    async def proxied(self, token: bytes, *headers: tuple[bytes, bytes], client: Any = PROXY, own: Any = ()) -> Outcome:
        """Through a proxy, over a connection on which it showed a certificate of its own."""
        extensions = over_tls(*map(pem, own))
        fields = [(b"authorization", b"Bearer " + token), *headers]
        return await drive(self.stack, http_scope("POST", "/mcp", fields, client=client, extensions=extensions))

    def refused(self, outcome: Outcome, kind: rejections.Kind, scheme: str = "Bearer") -> None:
        assert (outcome.status, self.app.calls) == (401, 0)
        assert outcome.json() == {"error": "invalid_token", "error_description": kind.description}
        challenge = (outcome.value(b"www-authenticate") or b"").decode()
        assert challenge.startswith(f'{scheme} error="invalid_token", error_description="{kind.description}", ')


async def test_the_certificate_of_the_token_lets_the_request_through() -> None:
    guarded = Guarded()
    assert (await guarded.send(BOUND, OWN)).status == 200
    assert (await guarded.send(BOUND, OWN, OTHER)).status == 200, "the first of the chain is the client's"
    assert fact(guarded.app.scopes[0], Principal).confirmation == (None, x5t(OWN))


@pytest.mark.parametrize(
    ("shown", "kind"),
    [
        ((), rejections.CERTIFICATE_MISSING),
        ((OTHER,), rejections.CERTIFICATE_BINDING),
        ((OTHER, OWN), rejections.CERTIFICATE_BINDING),
    ],
)
async def test_a_thief_without_the_certificate_is_refused(shown: tuple[bytes, ...], kind: rejections.Kind) -> None:
    guarded = Guarded()
    guarded.refused(await guarded.send(BOUND, *shown), kind)


@pytest.mark.parametrize("shown", [(), (OWN,), (OTHER,)])
async def test_a_token_that_is_bound_to_none_needs_none(shown: tuple[bytes, ...]) -> None:
    assert (await Guarded().send(BEARER, *shown)).status == 200


@pytest.mark.parametrize(
    ("now", "kind"),
    [
        (NOW - 3601, rejections.CERTIFICATE_TIME),
        (NOW - 3600, None),
        (NOW + 3600, None),
        (NOW + 3601, rejections.CERTIFICATE_TIME),
    ],
)
async def test_a_certificate_counts_from_its_first_instant_to_its_last(
    now: float, kind: rejections.Kind | None
) -> None:
    guarded = Guarded(clock=ManualClock(now=now))
    token = KEY.token(cnf={"x5t#S256": x5t(OWN)}, iat=int(now) - 10, exp=int(now) + 10)
    outcome = await guarded.send(token, OWN)
    if kind is None:
        assert outcome.status == 200
    else:
        guarded.refused(outcome, kind)


async def test_a_token_that_is_bound_twice_needs_both() -> None:
    guarded = Guarded()
    proved = [(b"dpop", proof(SENDER, TWICE))]
    guarded.refused(await guarded.send(TWICE, headers=proved, scheme="DPoP"), rejections.CERTIFICATE_MISSING, "DPoP")
    outcome = await guarded.send(TWICE, OWN, scheme="DPoP")
    assert (outcome.status, outcome.json()["error"]) == (401, "invalid_dpop_proof")
    assert guarded.app.calls == 0
    assert (await guarded.send(TWICE, OWN, headers=proved, scheme="DPoP")).status == 200


@pytest.mark.parametrize(
    ("policy", "token", "kind"),
    [("off", BOUND, rejections.TOKEN_BOUND), ("required", BEARER, rejections.TOKEN_UNBOUND)],
)
async def test_the_policy_of_the_resource_says_which_tokens_are_taken(
    policy: Policy, token: bytes, kind: rejections.Kind
) -> None:
    guarded = Guarded(policy)
    outcome = await guarded.send(token, OWN)
    assert (outcome.status, guarded.app.calls) == (401, 0)
    assert outcome.json()["error_description"] == kind.description


# tls-04, RFC 9440 §2.4
async def test_behind_a_proxy_that_says_so_the_field_is_the_certificate_of_the_client() -> None:
    guarded = Guarded(proxies=True)
    outcome = await guarded.proxied(BOUND, (b"client-cert", certificates.field(OWN)), own=(OTHER,))
    assert outcome.status == 200
    assert guarded.app.seen(b"client-cert") == []


async def test_the_certificate_of_the_proxy_itself_is_never_the_client_s() -> None:
    for proxies in (False, True):
        for headers in ((), ((b"x-forwarded-proto", b"https"),)):
            guarded = Guarded(proxies=proxies)
            guarded.refused(await guarded.proxied(BOUND, *headers, own=(OWN,)), rejections.CERTIFICATE_MISSING)


@pytest.mark.parametrize(
    ("proxies", "client"), [(False, PROXY), (True, ("192.0.2.7", 1)), (True, None), (False, ("192.0.2.7", 1))]
)
async def test_nobody_else_s_word_for_a_certificate_counts(proxies: bool, client: Any) -> None:
    guarded = Guarded(proxies=proxies)
    outcome = await guarded.proxied(BOUND, (b"client-cert", certificates.field(OWN)), client=client)
    guarded.refused(outcome, rejections.CERTIFICATE_MISSING)


async def test_the_field_of_a_stranger_changes_nothing_about_the_certificate_of_its_connection() -> None:
    guarded = Guarded(proxies=True)
    field_of_own = (b"client-cert", certificates.field(OWN))
    guarded.refused(
        await guarded.proxied(BOUND, field_of_own, client=("192.0.2.7", 1), own=(OTHER,)),
        rejections.CERTIFICATE_BINDING,
    )
    field_of_other = (b"client-cert", certificates.field(OTHER))
    outcome = await guarded.proxied(BOUND, field_of_other, client=("192.0.2.7", 1), own=(OWN,))
    assert (outcome.status, guarded.app.seen(b"client-cert")) == (200, [])


def test_a_stack_without_the_layers_it_hangs_on_is_not_built() -> None:
    resource = Resource(RESOURCE, "/mcp", certificates="allowed")
    token = Token((resource,), ISSUERS, certificates=True)
    with pytest.raises(ConfigurationError, match="Certificate needs ClientCertificate, which no layer"):
        guard(CountingApp(), token, Certificate())
    with pytest.raises(ConfigurationError, match="put Token before Certificate"):
        guard(CountingApp(), Proxy(), Certificate(), token)


def test_the_complete_stack_has_the_layer_where_a_resource_asks_for_it() -> None:
    def names(policy: Policy) -> list[str]:
        resources = [Resource(RESOURCE, "/mcp", dpop="off", certificates=policy)]
        return [type(layer).__name__ for layer in standard(resources=resources, issuers=ISSUERS)]

    for policy in ("allowed", "required"):
        found = names(policy)
        assert found[found.index("Token") + 1] == "Certificate"
    assert "Certificate" not in names("off")
