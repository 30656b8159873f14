"""Two users, a session each, and requests of all kinds in either: who may be served, in whatever order they come."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

USERS = "AB"
KINDS = ("request", "notification", "response", "GET", "DELETE")
LONGEST = 4
"""Steps of a sequence: enough for an attempt, what it may have changed, and one more of each."""


@dataclass(frozen=True)
class Attempt:
    """One request within a session: whose, of which kind, and in whose session."""

    user: str
    kind: str
    session_of: str

    @property
    def is_strange(self) -> bool:
        """Whether the model says that it must meet an unknown session: the session is another user's."""
        return self.user != self.session_of

    def __str__(self) -> str:
        return f"{self.kind} by user {self.user} in the session of user {self.session_of}"


def classic_sequences() -> list[list[Attempt]]:
    """Each kind of attempt by a stranger, and the owner's next request."""
    return [[Attempt("B", kind, "A"), Attempt("A", "request", "A")] for kind in KINDS]


def sequences() -> st.SearchStrategy[list[Attempt]]:
    """Attempts of both users in both sessions, in any order."""
    drawn = st.builds(Attempt, st.sampled_from(USERS), st.sampled_from(KINDS), st.sampled_from(USERS))
    return st.lists(drawn, min_size=2, max_size=LONGEST)
