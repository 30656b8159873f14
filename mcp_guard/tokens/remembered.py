"""Tokens that were verified, remembered for as long as what was found out about them holds."""

from dataclasses import dataclass, field

from mcp_guard.layer import Admission


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """What a verified token comes to. `good_until` is by the monotonic clock, the other times by the wall clock."""

    admission: Admission
    not_before: float
    expires_at: float
    good_until: float


@dataclass(eq=False, slots=True)
class RememberedTokens:
    """Verified tokens, by the digest of the field they came in, in two generations.

    When the young one is full the old one is dropped, at no cost a token.
    """

    capacity: int
    young: dict[bytes, Remembered] = field(default_factory=dict)
    old: dict[bytes, Remembered] = field(default_factory=dict)

    def get(self, key: bytes) -> Remembered | None:
        found = self.young.get(key)
        if found is None and (found := self.old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: bytes, token: Remembered) -> None:
        if len(self.young) >= (self.capacity + 1) // 2:
            self.young, self.old = {}, self.young
        self.young[key] = token

    def drop(self, key: bytes) -> None:
        self.young.pop(key, None)
        self.old.pop(key, None)

    def clear(self) -> None:
        self.young, self.old = {}, {}
