"""Authorization field values around a good Bearer one."""

from __future__ import annotations

from hypothesis import strategies as st

_TOKEN68 = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/"


def authorization_classics(token: str) -> list[tuple[str, str | bytes]]:
    """Values built on a good token outside the grammar of RFC 6750 §2.1: `(what was done, value)`.

    None of them may be honoured.
    """
    return [
        ("no scheme", token),
        ("another scheme", f"Basic {token}"),
        ("the scheme's name cut", f"Beare {token}"),
        ("the scheme's name extended", f"Bearers {token}"),
        ("no space", f"Bearer{token}"),
        ("a colon after the scheme", f"Bearer: {token}"),
        ("an equals sign after the scheme", f"Bearer={token}"),
        ("a quoted token", f'Bearer "{token}"'),
        ("a second word", f"Bearer {token} {token}"),
        ("a comma and a second challenge", f"Bearer {token}, Basic eDp5"),
        ("a parameter", f"Bearer token={token}"),
        ("a token in angle brackets", f"Bearer <{token}>"),
        ("a NUL after the token", f"Bearer {token}".encode() + b"\x00"),
        ("an octet above 127 after the token", f"Bearer {token}".encode() + b"\xff"),
    ]


def garbage_tokens() -> st.SearchStrategy[str]:
    """Tokens nobody issued: token68 text, with or without the shape of a JWS."""
    piece = st.text(st.sampled_from(_TOKEN68.replace(".", "")), min_size=1, max_size=40)
    return st.one_of(piece, st.lists(piece, min_size=2, max_size=5).map(".".join))
