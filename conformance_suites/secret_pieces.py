"""Parts of a credential long enough to be no accident when they turn up elsewhere."""

from __future__ import annotations

PIECE = 20


def pieces(credential: str) -> set[str]:
    """Overlapping parts of `PIECE` characters: of a JWT those of its signature, since the rest is no secret."""
    parts = credential.split(".")
    secret = parts[2] if len(parts) == 3 and credential.startswith("ey") else credential
    secret = secret.strip()
    return {secret[start : start + PIECE] for start in range(0, len(secret) - PIECE + 1, PIECE // 2)}
