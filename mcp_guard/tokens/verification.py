"""The verification of one token: by the issuer that it names, with that issuer's keys and rules alone."""

from collections.abc import Sequence, Set
from typing import NamedTuple

from mcp_guard.clock import Clock
from mcp_guard.failures import ConfigurationError
from mcp_guard.keysources import KeySource
from mcp_guard.protocol import jwt
from mcp_guard.protocol.jwt import AccessToken, Fault, Rules, TokenError
from mcp_guard.tokens.issuers import TrustedIssuer


class Verified(NamedTuple):
    """What a token says, and until when (`Clock.monotonic`) that may be believed without asking again."""

    token: AccessToken
    good_until: float
    leeway_seconds: float


class Verification:
    """Verifies the tokens of `issuers`. Leeway and lifetime are in seconds.

    Raises:
        ConfigurationError: there is no issuer, or one is there twice.
    """

    def __init__(
        self, issuers: Sequence[TrustedIssuer], clock: Clock, leeway_seconds: float, maximum_lifetime_seconds: float
    ) -> None:
        if not issuers:
            raise ConfigurationError("issuers: at least one is needed")
        self._clock = clock
        self._trusted: dict[str, tuple[Rules, KeySource]] = {}
        for one in issuers:
            if one.issuer in self._trusted:
                raise ConfigurationError(f"issuers: {one.issuer!r} is there twice")
            rules = Rules(
                one.issuer, leeway_seconds, maximum_lifetime_seconds, one.insecure_accept_untyped, one.tenant_claim
            )
            self._trusted[one.issuer] = (rules, one.keys)

    async def verify(self, token: bytes, audiences: Set[str]) -> Verified:
        """What `token` says, for a resource that is known by `audiences`.

        Raises:
            TokenError: it is not to be believed, or not meant for this resource.
            KeySourceUnavailable: that cannot be told now.
        """
        unverified = jwt.read(token)
        if unverified.issuer not in self._trusted:
            raise TokenError(Fault.ISSUER, "iss is not a trusted issuer")
        rules, keys = self._trusted[unverified.issuer]
        jwt.check_type(unverified, rules)
        header = unverified.jws.header
        found = await keys.find(header.kid, header.alg)
        if found is None:
            raise TokenError(Fault.KEY, "the issuer has no such key for this algorithm")
        if not found.key.verifies(unverified.jws):
            raise TokenError(Fault.SIGNATURE, "the signature is not the key's")
        judged = jwt.judge(unverified, rules, audiences, self._clock.wall())
        return Verified(judged, found.good_until, rules.leeway_seconds)
