"""Grants: a code becomes tokens once, a refresh token becomes the next once, and reuse ends the grant.

Everything is validated before anything changes, the proof of possession last of all. What changes does so by one
compare-and-set, so that of any number of simultaneous attempts exactly one succeeds; the others are reuse, and end the
grant (OAuth 2.1 §4.1.3 and §4.3.1).

A refresh token is 64 random-looking bytes: a part that is new with each rotation, and the secret of its family masked
with that part. The store keeps a digest of each, in one record for the family however often it rotates. Who holds any
token of the family, old or new, holds its secret: so an old token is told apart from one that never existed, and a
stranger can end nobody's grant. Nor can a thief end the grant of a client whose tokens are bound to its key.
"""

import hashlib
import math
import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NoReturn

from mcp_guard import revocation
from mcp_guard.oauth import clients, errors, possession
from mcp_guard.oauth.deployment import Deployment
from mcp_guard.oauth.errors import OAuthError
from mcp_guard.oauth.records import (
    BrowserSession,
    Client,
    Code,
    Family,
    Transaction,
    code_key,
    decode,
    encode,
    family_key,
)
from mcp_guard.protocol import b64url, pkce
from mcp_guard.protocol.dpop import Proof
from mcp_guard.protocol.metadata import canonical_resource
from mcp_guard.secret import digest, mint_token
from mcp_guard.stores.base import Delete, Get, Put

USED_CODE_MEMORY = timedelta(days=1)
"""How long a redeemed code is remembered, so that its reuse is recognised."""

_PART = 32
_MASK = b"mcp-guard refresh token family"


@dataclass(frozen=True, slots=True)
class Issued:
    """What a token response is made of, and for whom. `jkt` is the thumbprint of the key that it is bound to."""

    access_token: str
    jkt: str | None
    scopes: tuple[str, ...]
    refresh_token: str | None
    subject: str
    tenant: str | None


async def issue_code(deployment: Deployment, transaction: Transaction, session: BrowserSession) -> str:
    """A code for the client, once the person has approved."""
    code = mint_token()
    record = Code(
        client_id=transaction.client_id,
        redirect_uri=transaction.redirect_uri,
        challenge=transaction.challenge,
        resource=transaction.resource,
        scopes=transaction.scopes,
        subject=session.subject,
        tenant=session.tenant,
        grant=mint_token(),
        expires_at=deployment.clock.wall() + deployment.lifetimes.code.total_seconds(),
        used=False,
        jkt=transaction.jkt,
    )
    await deployment.store.run([Put(code_key(code), encode(record), deployment.lifetimes.code)])
    return code


async def redeem_code(
    deployment: Deployment,
    client: Client,
    code: str,
    *,
    redirect_uri: str | None,
    verifier: str,
    resource: str | None,
    proof: Proof | None,
) -> Issued:
    """Exchange a code for tokens (OAuth 2.1 §4.1.3).

    Raises:
        OAuthError: `invalid_grant`, `invalid_target` or `invalid_dpop_proof`.
    """
    key = code_key(code)
    (data,) = await deployment.store.run([Get(key)])
    record = decode(Code, data)
    if (
        record is None
        or record.client_id != client.client_id
        or record.redirect_uri != redirect_uri
        or not pkce.verifies(verifier, record.challenge)
    ):
        raise OAuthError(errors.INVALID_GRANT, "The code is not valid for this request")
    check_resource(resource, record.resource)
    if not record.used and record.expires_at <= deployment.clock.wall():
        raise OAuthError(errors.INVALID_GRANT, "The code is not valid for this request")
    possession.check_key(proof, record.jkt)
    await possession.use(deployment, proof)
    if not record.used:
        used = encode(replace(record, used=True))
        (won,) = await deployment.store.run([Put(key, used, USED_CODE_MEMORY, only_if_equal=encode(record))])
        if won is True:
            return await _first_tokens(deployment, client, record, proof)
    await revoke_grant(deployment, record.grant)
    raise OAuthError(
        errors.INVALID_GRANT,
        "The code is not valid for this request",
        reason="the code was used before: its grant was revoked",
    )


async def _first_tokens(deployment: Deployment, client: Client, record: Code, proof: Proof | None) -> Issued:
    operations: list[Any] = [clients.keep(deployment, client)]
    refresh_token = None
    if "refresh_token" in client.grant_types:
        family_secret, tip = secrets.token_bytes(_PART), secrets.token_bytes(_PART)
        refresh_token = _join(tip, family_secret)
        family = Family(
            client_id=record.client_id,
            resource=record.resource,
            scopes=record.scopes,
            subject=record.subject,
            tenant=record.tenant,
            grant=record.grant,
            head=_head(tip),
            expires_at=deployment.clock.wall() + deployment.lifetimes.refresh_token.total_seconds(),
            jkt=possession.key_of_family(client, proof),
        )
        operations.append(Put(_key(family_secret), encode(family), deployment.lifetimes.refresh_token))
    await deployment.store.run(operations)
    return _issued(deployment, record, record.scopes, refresh_token, proof)


async def refresh(
    deployment: Deployment,
    client: Client,
    token: str,
    *,
    scopes: tuple[str, ...] | None,
    resource: str | None,
    proof: Proof | None,
) -> Issued:
    """Exchange a refresh token for new tokens (OAuth 2.1 §4.3). `scopes` narrows the access token alone.

    Raises:
        OAuthError: `invalid_grant`, `invalid_scope`, `invalid_target` or `invalid_dpop_proof`.
    """
    parts = _split(token)
    if parts is None:
        raise _refused()
    tip, family_secret = parts
    key = _key(family_secret)
    (data,) = await deployment.store.run([Get(key)])
    family = decode(Family, data)
    left = 0.0 if family is None else family.expires_at - deployment.clock.wall()
    if family is None or family.client_id != client.client_id or left <= 0:
        raise _refused()
    check_resource(resource, family.resource)
    if scopes is not None and not set(scopes) <= set(family.scopes):
        raise OAuthError(errors.INVALID_SCOPE, "The scope goes beyond what was granted")
    possession.check_key(proof, family.jkt)
    await possession.use(deployment, proof)
    if family.head != _head(tip):
        await _end(deployment, family, key)
    new_tip = secrets.token_bytes(_PART)
    successor = encode(replace(family, head=_head(new_tip), jkt=possession.key_of_family(client, proof)))
    revoked, won, _ = await deployment.store.run(
        [
            revocation.ask_revoked(family.grant),
            Put(key, successor, timedelta(seconds=math.ceil(left)), only_if_equal=encode(family)),
            clients.keep(deployment, client),
        ]
    )
    if won is not True or revocation.is_revoked(revoked):
        await _end(deployment, family, key)
    granted = family.scopes if scopes is None else scopes
    return _issued(deployment, family, granted, _join(new_tip, family_secret), proof)


async def _end(deployment: Deployment, family: Family, key: str) -> NoReturn:
    """Reuse: the whole family ends, whoever holds its newest token."""
    await revoke_grant(deployment, family.grant)
    await deployment.store.run([Delete(key)])
    raise _refused("the refresh token was used before: its grant was revoked")


async def revoke_grant(deployment: Deployment, grant: str) -> None:
    """End a grant: its access tokens and refresh tokens stop working at once."""
    keep = deployment.lifetimes.refresh_token + deployment.lifetimes.access_token + USED_CODE_MEMORY
    written = revocation.revoke(grant, keep)
    await deployment.store.run([written, revocation.announce(written.key)])


def check_resource(asked: str | None, granted: str) -> None:
    """A token request may repeat the resource of the grant, and no other (RFC 8707 §2.2).

    Raises:
        OAuthError: `invalid_target`.
    """
    if asked is not None and canonical_resource(asked) != granted:
        raise OAuthError(errors.INVALID_TARGET, "The grant is for another resource")


def _refused(reason: str | None = None) -> OAuthError:
    return OAuthError(errors.INVALID_GRANT, "The refresh token is not valid for this request", reason=reason)


def _issued(
    deployment: Deployment,
    grant: Code | Family,
    scopes: tuple[str, ...],
    refresh_token: str | None,
    proof: Proof | None,
) -> Issued:
    jkt = None if proof is None else proof.thumbprint
    access_token = _access_token(deployment, grant, scopes, jkt)
    return Issued(access_token, jkt, scopes, refresh_token, grant.subject, grant.tenant)


def _access_token(deployment: Deployment, grant: Code | Family, scopes: tuple[str, ...], jkt: str | None) -> str:
    """An access token of RFC 9068 for one resource, with the claim that names its grant. `jkt` is what it is bound to
    (RFC 9449 §6.1), None for a bearer token.
    """
    now = int(deployment.clock.wall())
    claims: dict[str, Any] = {
        "iss": deployment.issuer.identifier,
        "sub": grant.subject,
        "aud": grant.resource,
        "client_id": grant.client_id,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + int(deployment.lifetimes.access_token.total_seconds()),
        "jti": mint_token(),
        revocation.GRANT_CLAIM: grant.grant,
    }
    if grant.tenant is not None:
        claims["tenant"] = grant.tenant
    if jkt is not None:
        claims["cnf"] = {"jkt": jkt}
    return deployment.keys.sign(claims)


def _key(family_secret: bytes) -> str:
    return family_key(b64url.encode(family_secret))


def _head(tip: bytes) -> str:
    return digest(b64url.encode(tip))


def _mask(tip: bytes, part: bytes) -> bytes:
    pad = hashlib.sha256(_MASK + tip).digest()
    return bytes(left ^ right for left, right in zip(part, pad, strict=True))


def _join(tip: bytes, family_secret: bytes) -> str:
    return b64url.encode(tip + _mask(tip, family_secret))


def _split(token: str) -> tuple[bytes, bytes] | None:
    try:
        data = b64url.decode(token)
    except b64url.Base64Error:
        return None
    if len(data) != 2 * _PART:
        return None
    tip = data[:_PART]
    return tip, _mask(tip, data[_PART:])
