"""B2 for proofs of possession: judging one, beside its bare signature check and other libraries; and judging and
remembering one while few and while many others are remembered.
"""

import hashlib
import itertools
import json
import secrets
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from joserfc import jwk as joserfc_jwk
from joserfc import jwt as joserfc_jwt

from mcp_guard.clock import SystemClock
from mcp_guard.protocol import b64url, dpop
from mcp_guard.protocol.dpop import Proof, Target
from mcp_guard.stores.base import Claim
from mcp_guard.stores.memory import MemoryStore
from tests.benchmarks.in_process import Row
from tests.benchmarks.timing import microseconds

URL = "https://mcp.example.com/mcp"
NOW = 1_800_000_000
TOKEN = b"an.access.token" * 40
PROOFS = 300
LIVE = 100_000
ALGORITHM = ec.ECDSA(hashes.SHA256())


class Sender:
    """A client with a key, and one proof of it."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        numbers = private.public_key().public_numbers()
        x, y = (b64url.encode(number.to_bytes(32)) for number in (numbers.x, numbers.y))
        self.jwk = {"kty": "EC", "crv": "P-256", "x": x, "y": y}
        ath = b64url.encode(hashlib.sha256(TOKEN).digest())
        claims = {"jti": secrets.token_hex(16), "htm": "POST", "htu": URL, "iat": NOW, "ath": ath}
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk}
        self.signed = ".".join(b64url.encode(json.dumps(part).encode()) for part in (header, claims)).encode()
        self.signature = private.sign(self.signed, ALGORITHM)
        r, s = utils.decode_dss_signature(self.signature)
        self.proof = self.signed + b"." + b64url.encode(r.to_bytes(32) + s.to_bytes(32)).encode()
        self.public = private.public_key()
        self.point = b"\x04" + numbers.x.to_bytes(32) + numbers.y.to_bytes(32)
        members = json.dumps(dict(sorted(self.jwk.items())), separators=(",", ":")).encode()
        thumbprint = b64url.encode(hashlib.sha256(members).digest())
        self.target = Target("POST", URL, hashlib.sha256(TOKEN).digest(), thumbprint)


def judged(sender: Sender) -> Proof:
    """What the guard does with a proof, but for remembering it."""
    proof = dpop.parse([sender.proof])
    dpop.check(proof, sender.target, NOW)
    return proof


def in_turn(senders: list[Sender], do: Callable[[Sender], object]) -> Callable[[], Awaitable[None]]:
    turns: Iterator[Sender] = itertools.cycle(senders)

    async def one() -> None:
        do(next(turns))

    return one


def by_joserfc(sender: Sender) -> object:
    header: Any = jwt.get_unverified_header(sender.proof)
    return joserfc_jwt.decode(sender.proof.decode(), joserfc_jwk.ECKey.import_key(header["jwk"]), algorithms=["ES256"])


def by_pyjwt(sender: Sender) -> object:
    header = jwt.get_unverified_header(sender.proof)
    options: Any = {"verify_iat": False}
    return jwt.decode(sender.proof, jwt.PyJWK(header["jwk"]).key, algorithms=["ES256"], options=options)


def on_first_sight(sender: Sender) -> object:
    dpop._brought.cache_clear()
    return judged(sender)


async def measure() -> list[Row]:
    """Measure B2 of proofs."""
    private = ec.generate_private_key(ec.SECP256R1())
    known = [Sender(private) for _ in range(PROOFS)]
    new = [Sender(ec.generate_private_key(ec.SECP256R1())) for _ in range(PROOFS)]
    curve = ec.SECP256R1()

    def load_and_verify(one: Sender) -> None:
        ec.EllipticCurvePublicKey.from_encoded_point(curve, one.point).verify(one.signature, one.signed, ALGORITHM)

    costs = await microseconds(
        {
            "raw": in_turn(known, lambda one: one.public.verify(one.signature, one.signed, ALGORITHM)),
            "known": in_turn(known, judged),
            "raw new": in_turn(new, load_and_verify),
            "new": in_turn(new, on_first_sight),
            "joserfc": in_turn(new, by_joserfc),
            "PyJWT": in_turn(new, by_pyjwt),
        },
        PROOFS,
    )
    remembered = await remembering(known)
    return [
        Row("B2 DPoP proof of a known key / raw verify", costs["known"] / costs["raw"], "×", 1.2),
        Row("B2 DPoP proof of a new key / raw verify", costs["new"] / costs["raw"], "×", 1.4),
        Row("B2 DPoP proof of a new key / raw load and verify", costs["new"] / costs["raw new"], "×", float("inf")),
        Row("B2 DPoP proof of a known key", costs["known"], "µs", float("inf")),
        Row("B2 the same by joserfc, its signature alone", costs["joserfc"], "µs", float("inf")),
        Row("B2 the same by PyJWT, its signature alone", costs["PyJWT"], "µs", float("inf")),
        Row("B2 DPoP proof with 100,000 live ones / with few", remembered["many"] / remembered["few"], "×", 1.1),
    ]


async def remembering(known: list[Sender]) -> dict[str, float]:
    """What a proof costs with its claim in memory, beside few live proofs and beside many."""
    clock = SystemClock()
    stores = {"few": MemoryStore(clock), "many": MemoryStore(clock)}
    issued, ttl = clock.wall() + 1, timedelta(hours=1)
    for _ in range(LIVE):
        stores["many"].run_now([Claim(f"mcp:proof:{secrets.token_hex(32)}", ttl, issued)])

    def claiming(store: MemoryStore) -> Callable[[], Awaitable[None]]:
        turns = itertools.cycle(known)

        async def one() -> None:
            judged(next(turns))
            await store.run([Claim(f"mcp:proof:{secrets.token_hex(32)}", ttl, issued)])

        return one

    return await microseconds({name: claiming(store) for name, store in stores.items()}, PROOFS)
