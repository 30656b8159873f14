"""Proofs of possession at the token endpoint (RFC 9449 §5): with whose key a request is made, and whose it must be.

A proof counts once. Its claim is what changes first of all that a request changes, so a request that is sent again as
it was comes to nothing, and ends nothing either.
"""

from datetime import timedelta

from mcp_guard.oauth import errors
from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.errors import OAuthError
from mcp_guard.oauth.records import Client, proof_key
from mcp_guard.oauth.web import Request
from mcp_guard.protocol import dpop, uris
from mcp_guard.protocol.dpop import Proof, ProofError, Target
from mcp_guard.stores.base import Claim


def proof_of(deployment: Deployment, request: Request, client: Client) -> Proof | None:
    """The proof of a token request of `client`, checked in all but its being used before; None when there is none.

    Raises:
        OAuthError: `invalid_dpop_proof`: it does not hold, or there is none and the client gets no bearer tokens.
    """
    terms = deployment.proofs
    values = request.values(b"dpop")
    if terms.policy == "off":
        return None
    if not values:
        if client.dpop_bound or terms.policy == "required":
            raise _missing()
        return None
    try:
        proof = dpop.parse(values)
        dpop.check(proof, _target(deployment), deployment.clock.wall(), terms.window)
    except ProofError as fault:
        raise OAuthError(errors.INVALID_DPOP_PROOF, f"The DPoP proof does not hold: {fault.reason}") from None
    return proof


def check_key(proof: Proof | None, jkt: str | None) -> None:
    """Whether a request is made with the key that its code (RFC 9449 §10) or refresh token (§5) is bound to.

    Raises:
        OAuthError: `invalid_dpop_proof` without a proof, `invalid_grant` with that of another key.
    """
    if jkt is None:
        return
    if proof is None:
        raise _missing()
    if proof.thumbprint != jkt:
        raise OAuthError(
            errors.INVALID_GRANT,
            "The code or refresh token is bound to another key",
            reason="the proof is of another key than the one that the code or refresh token is bound to",
        )


async def use(deployment: Deployment, proof: Proof | None) -> None:
    """Let a proof count (RFC 9449 §11.1).

    Raises:
        OAuthError: `invalid_dpop_proof`: it counted before, or the store cannot know.
    """
    if proof is None:
        return
    lifetime, leeway = deployment.proofs.window
    # A proof may be used from `leeway` before its time on; the second one is for clocks of workers that differ.
    claim = Claim(proof_key(proof.digest), timedelta(seconds=lifetime + 2 * leeway), proof.issued_at - leeway)
    (first,) = await deployment.store.run([claim])
    if first is not True:
        raise OAuthError(errors.INVALID_DPOP_PROOF, "The DPoP proof was used before")


def key_of_family(client: Client, proof: Proof | None) -> str | None:
    """What refresh tokens are bound to: those of confidential clients to nothing, since these prove who they are."""
    return proof.thumbprint if proof is not None and client.is_public else None


def _missing() -> OAuthError:
    return OAuthError(errors.INVALID_DPOP_PROOF, "A DPoP proof is required")


def _target(deployment: Deployment) -> Target:
    return Target("POST", uris.normalised(deployment.issuer.endpoint("token")))
