"""How two workers prove to each other that they have a key of the ring, and agree on the keys of their connection.

The one that asks says its name and a nonce. The one that listens answers with its own, and with a proof for each key
that it has, because a ring that is being rotated may differ between workers for a while. The asker picks the newest of
its keys that is among them and proves that it has it too. Names, nonces and roles are part of every proof and of both
keys of the connection, so that nothing said on one connection means anything on another.

There is no exchange of ephemeral keys: who has recorded a connection and gets hold of the ring's key later can read it.
"""

import hmac
import secrets
from collections.abc import Sequence

from mcp_guard.affinity.frames import Frame, Kind
from mcp_guard.affinity.link import Link
from mcp_guard.keyring import KEY_BYTES, KeyRing

PROTOCOL = b"mcp-guard affinity 1"
NAME_BYTES = 32
NONCE_BYTES = 32

_ASKER, _OWNER = "affinity: proof of the asker", "affinity: proof of the owner"
_TO_OWNER, _TO_ASKER = "affinity: frames to the owner", "affinity: frames to the asker"


class HandshakeFailed(Exception):
    """The other side is not a worker, or not of this version."""


class Left(HandshakeFailed):
    """The other side closed the connection."""


class KeysDiffer(HandshakeFailed):
    """The other side has none of our keys."""


async def ask(link: Link, ring: KeyRing, asker: str) -> str:
    """Greet a worker that listens. Answers its name, proved; the link is sealed.

    Raises:
        HandshakeFailed: it does not prove to be a worker.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    link.write(Frame(Kind.HELLO, PROTOCOL + asker.encode() + nonce))
    content = await _next(link, Kind.WELCOME)
    owner, owner_nonce, proofs = _cut(content, NAME_BYTES, NONCE_BYTES)
    offered = [proofs[at : at + KEY_BYTES] for at in range(0, len(proofs), KEY_BYTES)]
    context = (asker.encode(), nonce, owner, owner_nonce)
    mine, theirs = _first_common(ring.derive(_OWNER, *context), offered)
    link.write(Frame(Kind.CONFIRM, bytes((theirs,)) + ring.derive(_ASKER, *context)[mine]))
    link.seal(ring.derive(_TO_OWNER, *context)[mine], ring.derive(_TO_ASKER, *context)[mine])
    return owner.decode("ascii")


async def welcome(link: Link, ring: KeyRing, owner: str) -> None:
    """Answer a worker that asks; the link is sealed.

    Raises:
        HandshakeFailed: it does not prove to be a worker.
    """
    content = await _next(link, Kind.HELLO)
    protocol, asker, nonce = _cut(content, len(PROTOCOL), NAME_BYTES)
    if protocol != PROTOCOL or len(nonce) != NONCE_BYTES:
        raise HandshakeFailed("it speaks another protocol")
    owner_nonce = secrets.token_bytes(NONCE_BYTES)
    context = (asker, nonce, owner.encode(), owner_nonce)
    link.write(Frame(Kind.WELCOME, owner.encode() + owner_nonce + b"".join(ring.derive(_OWNER, *context))))
    choice, proof = _cut(await _next(link, Kind.CONFIRM), 1)
    proofs = ring.derive(_ASKER, *context)
    if choice[0] >= len(proofs) or not hmac.compare_digest(proof, proofs[choice[0]]):
        raise KeysDiffer("it does not have the key that it chose")
    link.seal(ring.derive(_TO_ASKER, *context)[choice[0]], ring.derive(_TO_OWNER, *context)[choice[0]])


async def _next(link: Link, kind: Kind) -> bytes:
    frame = await link.next()
    if frame is None:
        raise Left("it left")
    if frame.kind != kind:
        raise HandshakeFailed(f"it did not send {kind.name}")
    return frame.content


def _cut(content: bytes, *lengths: int) -> list[bytes]:
    """The content cut at the given lengths, and what is left of it, which is not nothing."""
    pieces = []
    for length in lengths:
        pieces.append(content[:length])
        content = content[length:]
    if not content:
        raise HandshakeFailed("it says too little")
    return [*pieces, content]


def _first_common(mine: Sequence[bytes], offered: Sequence[bytes]) -> tuple[int, int]:
    """The places, in both, of the newest of my keys that the other side has too."""
    for place, own in enumerate(mine):
        for other, proof in enumerate(offered):
            if hmac.compare_digest(own, proof):
                return place, other
    raise KeysDiffer("it has none of the keys of this worker")
