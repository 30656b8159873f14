"""PKCE values: verifiers near a right one, and texts that no verifier, challenge or method may be (RFC 7636)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
RESERVED = "+/=:?#&%@!$'()*,; \"<>\\^`{|}\x00\n\té☃"
SHORTEST, LONGEST = 43, 128


@dataclass(frozen=True, repr=False)
class Mutation:
    """A way to bend a verifier and, in words that hold no secret, what it does."""

    what: str
    bend: Callable[[str], str]

    def __repr__(self) -> str:
        return f"Mutation({self.what!r})"


def verifier_classics() -> list[Mutation]:
    """The bent verifiers that careless comparisons let through."""
    return [
        Mutation("one character more", lambda verifier: f"{verifier}x"),
        Mutation("the last character removed", lambda verifier: verifier[:-1]),
        Mutation("every letter in the other case", str.swapcase),
        Mutation("padding appended", lambda verifier: f"{verifier}="),
        Mutation("a space appended", lambda verifier: f"{verifier} "),
        Mutation("a NUL appended", lambda verifier: f"{verifier}\x00"),
        Mutation("the last character replaced", lambda verifier: verifier[:-1] + _other(verifier[-1])),
        Mutation("its text reversed", lambda verifier: verifier[::-1] + "~"),
    ]


def mutations(length: int) -> st.SearchStrategy[Mutation]:
    """One change to a verifier of `length` characters: cut, extended, or a character replaced."""
    places = st.integers(0, length - 1)
    texts = st.text(st.sampled_from(UNRESERVED), min_size=1, max_size=LONGEST - length)
    return st.one_of(
        st.integers(1, length - 1).map(lambda n: Mutation(f"{n} characters cut off", lambda verifier: verifier[:-n])),
        texts.map(lambda text: Mutation(f"{text!r} appended", lambda verifier: verifier + text)),
        texts.map(lambda text: Mutation(f"{text!r} put before it", lambda verifier: text + verifier)),
        places.map(lambda at: Mutation(f"character {at} replaced", lambda verifier: _replaced(verifier, at))),
    )


def malformed() -> st.SearchStrategy[str]:
    """Texts of 1 to 200 characters that are neither verifier nor challenge: too short, too long, of other letters."""
    plain = st.sampled_from(UNRESERVED)
    short = st.text(plain, min_size=1, max_size=SHORTEST - 1)
    long = st.text(plain, min_size=LONGEST + 1, max_size=200)
    odd = st.builds(
        lambda text, at, letter: text[:at] + letter + text[at + 1 :],
        st.text(plain, min_size=SHORTEST, max_size=60),
        st.integers(0, SHORTEST - 1),
        st.sampled_from(RESERVED),
    )
    return st.one_of(short, long, odd)


def malformed_classics() -> list[str]:
    """As `malformed`: the lengths on either side of the limits, and the letters of plain base64."""
    body = "conformance-check-" * 10
    right = body[:SHORTEST]
    return ["a", right[:-1], (body * 2)[: LONGEST + 1], right[:-1] + "+", right[:-1] + "/", f"{right} ", f"{right}é"]


def unknown_methods() -> st.SearchStrategy[str]:
    """Texts that are no code_challenge_method: neither S256 nor plain."""
    near = st.sampled_from(["s256", "S-256", "S256,plain", "S224", "SHA256", "S2560", "RS256", "None", "null", "PLAIN"])
    text = st.text(st.sampled_from("sSplain2564_- ,"), min_size=1, max_size=8)
    return st.one_of(near, text).filter(lambda method: method not in {"S256", "plain"})


def _replaced(verifier: str, at: int) -> str:
    return verifier[:at] + _other(verifier[at]) + verifier[at + 1 :]


def _other(letter: str) -> str:
    return UNRESERVED[(UNRESERVED.find(letter) + 1) % len(UNRESERVED)]
