"""The corpus: attacks by id, each a generator of shots at a live deployment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.guard.attacks.http2 import Http2Request
from tests.guard.attacks.raw import Observation, Request

if TYPE_CHECKING:
    from tests.guard.attacks.deployment import Deployment

TIME_BOUND_SECONDS = 2.0
"""How long one shot may take; generous, because the machine is shared. Hangs and quadratic work are far above it."""


@dataclass(frozen=True)
class Shot:
    """One request of an attack and what must come of it.

    `statuses` are the acceptable answers. `reaches_app` says whether the downstream app is called, once; then 200 is
    the only answer that may call it. `check` looks at the answer further. `name` tells shots of one attack apart.
    """

    name: str
    request: Request | Http2Request | bytes
    statuses: tuple[int, ...]
    reaches_app: bool = False
    check: Callable[[Observation], None] | None = None
    time_bound_seconds: float = TIME_BOUND_SECONDS


Generator = Callable[["Deployment"], Iterator[Shot]]


@dataclass(frozen=True)
class Attack:
    """One entry of the corpus."""

    id: str
    shots: Generator = field(repr=False)


CORPUS: dict[str, Attack] = {}


def attack(identifier: str) -> Callable[[Generator], Generator]:
    """Register a generator of shots under the id of the attack."""

    def register(shots: Generator) -> Generator:
        if identifier in CORPUS:
            raise ValueError(f"{identifier} is registered twice")
        CORPUS[identifier] = Attack(identifier, shots)
        return shots

    return register
