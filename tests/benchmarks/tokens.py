"""B2 for access tokens: one that was not seen before, beside its bare signature check, PyJWT and joserfc."""

import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from joserfc import jwk as joserfc_jwk
from joserfc import jwt as joserfc_jwt

from mcp_guard.clock import SystemClock
from mcp_guard.keysources import StaticKeys
from mcp_guard.tokens import TrustedIssuer, Verification
from tests.benchmarks.in_process import Row
from tests.benchmarks.timing import microseconds

URL = "https://mcp.example.com/mcp"
ISSUER = "https://as.example.com"
TOKENS = 200
CALLS = 300
GOALS = {"ES256": 1.25, "RS256": 1.6, "EdDSA": 1.15}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def private_key(algorithm: str) -> PrivateKey:
    """A key for one of `GOALS`."""
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ed25519.Ed25519PrivateKey.generate()


def bare_check(private: PrivateKey) -> Callable[[], None]:
    """The verification of one signature by `cryptography`, with the key at hand."""
    message = b"m" * 500
    if isinstance(private, ec.EllipticCurvePrivateKey):
        public, signature = private.public_key(), private.sign(message, ec.ECDSA(hashes.SHA256()))
        return lambda: public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    if isinstance(private, rsa.RSAPrivateKey):
        modulus, signed = private.public_key(), private.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return lambda: modulus.verify(signed, message, padding.PKCS1v15(), hashes.SHA256())
    point, mark = private.public_key(), private.sign(message)
    return lambda: point.verify(mark, message)


class Issuer:
    """An issuer with one key, and tokens that differ from each other."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm, self.private = algorithm, private_key(algorithm)
        public: Any = self.private.public_key()
        member = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(public))
        self.jwks = {"keys": [{**member, "kid": "k", "use": "sig", "alg": algorithm}]}
        self.public = public
        self.tokens = itertools.cycle([self.token(number) for number in range(TOKENS)])

    def token(self, number: int) -> str:
        """A good token."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": "alice",
            "aud": URL,
            "client_id": "c1",
            "scope": "mcp:tools",
            "iat": now,
            "exp": now + 3600,
            "jti": f"t{number}",
        }
        headers = {"typ": "at+jwt", "kid": "k"}
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers=headers)


def candidates(issuer: Issuer) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """What is compared, each with a token that it has not seen for a while, and with nothing remembered."""
    check = bare_check(issuer.private)
    trusted = TrustedIssuer(ISSUER, StaticKeys(issuer.jwks))
    lifetime = timedelta(hours=24).total_seconds()
    verification = Verification((trusted,), SystemClock(), 10.0, lifetime)
    key = joserfc_jwk.import_key(issuer.jwks["keys"][0])
    registry = joserfc_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": URL}, exp={"essential": True}
    )

    async def raw() -> None:
        check()

    async def guard() -> None:
        await verification.verify(next(issuer.tokens).encode(), {URL})

    async def pyjwt() -> None:
        options: Any = {"require": ["exp", "aud", "iss", "sub"]}
        jwt.decode(next(issuer.tokens), issuer.public, [issuer.algorithm], options=options, audience=URL, issuer=ISSUER)

    async def joserfc() -> None:
        registry.validate(joserfc_jwt.decode(next(issuer.tokens), key, algorithms=[issuer.algorithm]).claims)

    yield "raw", raw
    yield "guard", guard
    yield "PyJWT", pyjwt
    yield "joserfc", joserfc


async def measure() -> list[Row]:
    """Measure B2 for tokens of each algorithm."""
    rows: list[Row] = []
    for algorithm, goal in GOALS.items():
        costs = await microseconds(dict(candidates(Issuer(algorithm))), CALLS)
        raw = costs["raw"]
        rows += [
            Row(f"B2 {algorithm} token, cold / raw verify", costs["guard"] / raw, "×", goal),
            Row(f"B2 {algorithm} token by PyJWT / raw verify", costs["PyJWT"] / raw, "×", float("inf")),
            Row(f"B2 {algorithm} token by joserfc / raw verify", costs["joserfc"] / raw, "×", float("inf")),
            Row(f"B2 {algorithm} raw verify", raw, "µs", float("inf")),
        ]
    return rows
