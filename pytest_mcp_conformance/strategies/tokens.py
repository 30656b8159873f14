"""Ways to bend a good token. Each leaves a token that nobody issued."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from pytest_mcp_conformance.forge.jws import Jws, b64url, compact, dump, read_jws, unsigned

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
NONE_SPELLINGS = ("none", "None", "NONE", "nOnE", "nonE", "none ", " none", "none\x00", "", "null")


@dataclass(frozen=True, repr=False)
class Bent:
    """A bent token and, in words that hold no secret, what was done to it."""

    what: str
    token: str

    def __repr__(self) -> str:
        return f"Bent({self.what!r})"


def bent_texts(token: str) -> st.SearchStrategy[Bent]:
    """One character of a token replaced, removed or doubled; works on opaque tokens too.

    The last character of each base64url part is left alone: its low bits may carry nothing (RFC 4648 §3.5), which
    another requirement judges.
    """
    edges = {len(token) - 1} | {at - 1 for at, c in enumerate(token) if c == "."}
    places = [at for at, c in enumerate(token) if c != "." and at not in edges] or [0]

    def replace(at: int, letter: str) -> Bent:
        other = letter if letter != token[at] else _ALPHABET[(_ALPHABET.find(letter) + 1) % len(_ALPHABET)]
        return Bent(f"character {at} replaced", token[:at] + other + token[at + 1 :])

    where = st.sampled_from(places)
    return st.one_of(
        st.builds(replace, where, st.sampled_from(_ALPHABET)),
        where.map(lambda at: Bent(f"character {at} removed", token[:at] + token[at + 1 :])),
        where.map(lambda at: Bent(f"character {at} doubled", token[:at] + token[at] + token[at:])),
    )


def none_spellings() -> st.SearchStrategy[str]:
    """Values of `alg` a careless comparison takes for none."""
    cases = st.tuples(*(st.sampled_from([c, c.upper()]) for c in "none")).map("".join)
    return st.one_of(cases, st.sampled_from(NONE_SPELLINGS))


def unsigned_token(jws: Jws, alg: str) -> Bent:
    """The token's header and claims with `alg` replaced and no signature."""
    header: dict[str, Any] = {**jws.header, "alg": alg}
    return Bent(f"alg replaced by {alg!r}, no signature", compact(header, jws.claims, unsigned))


def cut_signatures(token: str) -> list[Bent]:
    """The token with its signature missing, halved, swapped for another, or moved; empty for an opaque token."""
    jws = read_jws(token)
    if jws is None:
        return []
    signed, _, signature = token.rpartition(".")
    return [
        Bent("the signature emptied", f"{signed}."),
        Bent("the signature and its dot removed", signed),
        Bent("half of the signature removed", f"{signed}.{signature[: len(signature) // 2]}"),
        Bent("the signature replaced by zeros", f"{signed}.{b64url(bytes(64))}"),
        Bent("the header used as signature", f"{signed}.{b64url(dump(jws.header))}"),
        Bent("the signature twice", f"{token}.{signature}"),
    ]


def respelled(token: str) -> list[Bent]:
    """Other texts that a loose reader takes for the same token: other final bits, padding, other cases, other order."""
    parts = token.split(".")
    found = [
        Bent("its case swapped", token.swapcase()),
        Bent("a word put after it", f"{token}A"),
        Bent("a word put before it", f"A{token}"),
        Bent("its halves swapped", token[len(token) // 2 :] + token[: len(token) // 2]),
    ]
    if read_jws(token) is None:
        return [*found, Bent("padded", f"{token}=")]
    signed, _, signature = token.rpartition(".")
    found.append(Bent("its signature padded", token + "=" * (-len(signature) % 4 or 4)))
    found.append(Bent("its parts swapped", ".".join((parts[1], parts[0], parts[2]))))
    found.append(Bent("its header padded", ".".join((parts[0] + "=" * (-len(parts[0]) % 4 or 4), *parts[1:]))))
    found.append(Bent("standard base64 in its signature", f"{signed}.{signature.replace('-', '+').replace('_', '/')}"))
    if len(signature) % 4:
        last = _ALPHABET.index(signature[-1]) ^ 1
        found.append(Bent("the idle bits of its last character set", f"{token[:-1]}{_ALPHABET[last]}"))
    return [bent for bent in found if bent.token != token]
