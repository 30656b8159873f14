"""What an issuer's tokens must say beyond the rules for all access tokens: claims, age, a single audience.

Judged after `jwt.judge`, for signed tokens and introspected ones alike. Time is passed in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mcp_guard.protocol.jwt import AccessToken, Fault, TokenError


@dataclass(frozen=True, slots=True)
class ClaimPolicy:
    """`required` are claims that must be there, each with the values that are accepted, or none for any.

    Of a claim that is a list one element has to be accepted. `maximum_age_seconds` is counted from `iat`.
    `single_audience` refuses tokens that are meant for another resource too.
    """

    required: Mapping[str, frozenset[str]] = field(default_factory=dict)
    maximum_age_seconds: float | None = None
    single_audience: bool = False

    def judge(self, token: AccessToken, now: float, leeway_seconds: float) -> AccessToken:
        """`token`, which expires at its maximum age if that is earlier.

        Raises:
            TokenError: `CLAIMS`, `AUDIENCE` or `LIFETIME`, for the first thing that is not as it must be.
        """
        for name, accepted in self.required.items():
            if name not in token.claims or not _is_accepted(token.claims[name], accepted):
                raise TokenError(Fault.CLAIMS, f"{name} is missing, or has none of the accepted values")
        audience = token.claims.get("aud")
        if self.single_audience and isinstance(audience, list) and len(audience) != 1:
            raise TokenError(Fault.AUDIENCE, "aud names more than one resource")
        if self.maximum_age_seconds is None:
            return token
        if "iat" not in token.claims:
            raise TokenError(Fault.LIFETIME, "iat is missing, and the age of tokens is limited")
        oldest = float(token.claims["iat"]) + self.maximum_age_seconds
        if now >= oldest + leeway_seconds:
            raise TokenError(Fault.LIFETIME, f"the token is {now - oldest:.0f} s older than is accepted")
        return token._replace(expires_at=min(token.expires_at, oldest))


def _is_accepted(value: object, accepted: frozenset[str]) -> bool:
    if value is None:
        return False
    if not accepted:
        return True
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, str) and one in accepted for one in values)
