"""The verification of one token: by the issuer that it names, with that issuer's keys and rules alone.

A token goes to one issuer and to no other: a JWT to the one that it names, any other to the one that is declared to
issue such. However a token is verified, what it says is judged by the same rules.
"""

import logging
from collections.abc import Sequence, Set
from math import inf
from typing import Final, NamedTuple

from mcp_guard.clock import Clock
from mcp_guard.facts import VerifiedBy
from mcp_guard.failures import ConfigurationError, IntrospectionUnavailable
from mcp_guard.introspection import Introspection
from mcp_guard.keysources import KeySource
from mcp_guard.protocol import introspection, jwt
from mcp_guard.protocol.claim_policy import ClaimPolicy
from mcp_guard.protocol.jwt import AccessToken, Fault, Rules, TokenError, UnverifiedToken
from mcp_guard.tokens.issuers import TrustedIssuer

logger = logging.getLogger("mcp_guard")

JWT_DOTS: Final = 2
FALLBACK_SECONDS: Final = 1.0
"""For how long a token is believed that its issuer could not be asked about."""


class Verified(NamedTuple):
    """What a token says, and until when (`Clock.monotonic`) that may be believed without asking again."""

    token: AccessToken
    good_until: float
    leeway_seconds: float
    by: VerifiedBy = "signature"


class _Issuer:
    """An issuer, and everything about it that does not depend on the token."""

    def __init__(self, one: TrustedIssuer, leeway_seconds: float, maximum_lifetime_seconds: float) -> None:
        warns = one.policy.over_lifetime == "warn"
        self.settings = one
        self.warns_beyond = maximum_lifetime_seconds if warns else inf
        self.rules = Rules(
            one.issuer,
            leeway_seconds,
            inf if warns else maximum_lifetime_seconds,
            one.insecure_accept_untyped,
            one.tenant_claim,
            one.policy.client_claim,
        )
        age = one.policy.maximum_age
        self.policy = ClaimPolicy(
            dict(one.policy.required_claims), None if age is None else age.total_seconds(), one.policy.single_audience
        )

    def judge(self, token: AccessToken, now: float) -> AccessToken:
        """What the token says, by the issuer's own policy.

        Raises:
            TokenError: it is not to be believed.
        """
        lifetime = token.expires_at - float(token.claims.get("iat", now))
        if lifetime > self.warns_beyond:
            logger.warning("tokens of %s live for %.0f s, longer than the policy", self.rules.issuer, lifetime)
            self.warns_beyond = inf
        return self.policy.judge(token, now, self.rules.leeway_seconds)


class Verification:
    """Verifies the tokens of `issuers`. Leeway and lifetime are in seconds.

    Raises:
        ConfigurationError: there is no issuer, one is there twice, or several issue tokens that are no JWT.
    """

    def __init__(
        self, issuers: Sequence[TrustedIssuer], clock: Clock, leeway_seconds: float, maximum_lifetime_seconds: float
    ) -> None:
        if not issuers:
            raise ConfigurationError("issuers: at least one is needed")
        self._clock = clock
        self._trusted: dict[str, _Issuer] = {}
        self._of_opaque: _Issuer | None = None
        for one in issuers:
            if one.issuer in self._trusted:
                raise ConfigurationError(f"issuers: {one.issuer!r} is there twice")
            issuer = self._trusted[one.issuer] = _Issuer(one, leeway_seconds, maximum_lifetime_seconds)
            if one.issues_opaque:
                if self._of_opaque is not None:
                    raise ConfigurationError(
                        f"issuers: {self._of_opaque.settings.issuer!r} and {one.issuer!r} both issue opaque tokens: "
                        "nobody could tell whose one is, and none is shown to an issuer that did not issue it"
                    )
                self._of_opaque = issuer

    async def verify(self, token: bytes, audiences: Set[str]) -> Verified:
        """What `token` says, for a resource that is known by `audiences`.

        Raises:
            TokenError: it is not to be believed, or not meant for this resource.
            KeySourceUnavailable: that cannot be told now, nor
            IntrospectionUnavailable: by asking its issuer.
        """
        if self._of_opaque is not None and token.count(b".") < JWT_DOTS:
            issuer = self._of_opaque
            return await self._ask(issuer, issuer.settings.introspection, token, audiences)
        unverified = jwt.read(token)
        if unverified.issuer not in self._trusted:
            raise TokenError(Fault.ISSUER, "iss is not a trusted issuer")
        issuer = self._trusted[unverified.issuer]
        jwt.check_type(unverified, issuer.rules)
        if unverified.jws.header.alg not in issuer.settings.policy.algorithms:
            raise TokenError(Fault.ALGORITHM, "alg is not one that is accepted of this issuer")
        if issuer.settings.introspection is None:
            return await self._check(issuer, issuer.settings.keys, unverified, audiences)
        try:
            return await self._ask(issuer, issuer.settings.introspection, token, audiences)
        except IntrospectionUnavailable as fault:
            if issuer.settings.fallback != "local" or not fault.is_outage:
                raise
        verified = await self._check(issuer, issuer.settings.keys, unverified, audiences)
        until = min(verified.good_until, self._clock.monotonic() + FALLBACK_SECONDS)
        return verified._replace(good_until=until, by="fallback")

    async def _check(
        self, issuer: _Issuer, keys: KeySource | None, unverified: UnverifiedToken, audiences: Set[str]
    ) -> Verified:
        """By the issuer's keys."""
        if keys is None:
            raise TokenError(Fault.KEY, "the issuer has no keys here")
        header = unverified.jws.header
        found = await keys.find(header.kid, header.alg)
        if found is None:
            raise TokenError(Fault.KEY, "the issuer has no such key for this algorithm")
        if not found.key.verifies(unverified.jws):
            raise TokenError(Fault.SIGNATURE, "the signature is not the key's")
        now = self._clock.wall()
        judged = issuer.judge(jwt.judge(unverified, issuer.rules, audiences, now), now)
        return Verified(judged, found.good_until, issuer.rules.leeway_seconds)

    async def _ask(
        self, issuer: _Issuer, endpoint: Introspection | None, token: bytes, audiences: Set[str]
    ) -> Verified:
        """By asking the issuer."""
        if endpoint is None:
            raise TokenError(Fault.MALFORMED, "the token is no JWT")
        said, good_until = await endpoint.ask(token)
        if said is None:
            raise TokenError(Fault.INACTIVE, "the issuer says that the token is not active")
        now = self._clock.wall()
        missing = issuer.settings.insecure_accept_missing_audience
        judged = introspection.judge(said, issuer.rules, audiences, now, accept_missing_audience=missing)
        return Verified(issuer.judge(judged, now), good_until, issuer.rules.leeway_seconds, "introspection")
