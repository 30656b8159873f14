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
from mcp_guard.protocol.dpop import Fault, Proof, ProofError, Target
from mcp_guard.protocol.nonces import Nonces
from mcp_guard.stores.base import Claim

NONCE_PURPOSE = "dpop-nonce of an authorization server"

CLOCKS_APART = timedelta(seconds=30)
"""How far the clocks of workers and the store's may differ: so much longer than it holds, a proof is remembered."""


def proof_of(deployment: Deployment, request: Request, client: Client) -> Proof | None:
    """The proof of a token request of `client`, checked in all but its being used before; None when there is none.

    Raises:
        OAuthError: `use_dpop_nonce`: it holds, but for a nonce of this server; `invalid_dpop_proof`: it does not, or
            there is none and the client gets no bearer tokens.
    """
    policy, values = deployment.proofs.policy, request.values(b"dpop")
    if policy == "off":
        return None
    if not values:
        if client.dpop_bound or policy == "required":
            raise _missing()
        return None
    now, nonces = deployment.clock.wall(), _nonces(deployment)
    accepts = None if nonces is None else lambda nonce: nonces.accepts(nonce, now)
    try:
        proof = dpop.parse(values)
        dpop.check(proof, _target(deployment), now, deployment.proofs.window, accepts)
    except ProofError as fault:
        error = errors.USE_DPOP_NONCE if fault.fault is Fault.NONCE else errors.INVALID_DPOP_PROOF
        headers = next_nonce(deployment) if fault.fault is Fault.NONCE else []
        raise OAuthError(error, f"The DPoP proof does not hold: {fault.reason}", headers=headers) from None
    return proof


def next_nonce(deployment: Deployment, proof: Proof | None = None) -> list[tuple[bytes, bytes]]:
    """The field that hands out the current nonce (RFC 9449 §8), where nonces are asked for and `proof` has another."""
    nonces = _nonces(deployment)
    if nonces is None:
        return []
    current = nonces.current(deployment.clock.wall())
    return [] if proof is not None and proof.nonce == current else [(b"dpop-nonce", current.encode())]


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
        OAuthError: `invalid_dpop_proof`: it counted before, or it is from before the store's memory began.
    """
    if proof is None:
        return
    left = proof.issued_at + deployment.proofs.window.lifetime_seconds - deployment.clock.wall()
    claim = Claim(proof_key(proof.digest), timedelta(seconds=max(0.0, left)) + CLOCKS_APART, proof.issued_at)
    (first,) = await deployment.store.run([claim])
    if first is not True:
        raise OAuthError(errors.INVALID_DPOP_PROOF, "The DPoP proof was used before")


def key_of_family(client: Client, proof: Proof | None) -> str | None:
    """What refresh tokens are bound to: those of confidential clients to nothing, since these prove who they are."""
    return proof.thumbprint if proof is not None and client.is_public else None


def _missing() -> OAuthError:
    return OAuthError(errors.INVALID_DPOP_PROOF, "A DPoP proof is required")


def _nonces(deployment: Deployment) -> Nonces | None:
    ring = deployment.proofs.nonces
    return None if ring is None else Nonces(ring, NONCE_PURPOSE)


def _target(deployment: Deployment) -> Target:
    return Target("POST", uris.normalised(deployment.issuer.endpoint("token")))
