"""Carries each request of a session to the worker that holds it, where an app keeps its sessions in one process.

Decides: which worker runs the request. One without a session, or of a session of this worker, goes on inwards; one of
another's is carried there over a private connection, and its response streams back. Refuses with `session_not_found`
(404) when that worker is dead, and with `unavailable` (503) when it cannot be reached now, has another key ring, or
more requests are being carried than are allowed. Does not: judge the request; everything further out has done so, and
the worker that holds the session runs the layers further in and the app alone. Needs the principal. Must stand after:
session, whose handle names the worker, and every other layer that judges; before: bridge.

The app sees the verified principal and the other facts as they were found here, under the connection's seal, and never
a claim of a client. What it does not see is what frameworks outside the guard put into the scope, so the layer stands
in a stack around the whole app. A request that was carried once is not carried on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mcp_guard import rejections
from mcp_guard.affinity.forward import Forward
from mcp_guard.affinity.homes import Home
from mcp_guard.affinity.worker import Worker
from mcp_guard.asgi import ASGIApp
from mcp_guard.check import Junction
from mcp_guard.facts import Principal, SessionHandle
from mcp_guard.failures import ConfigurationError, Unavailable
from mcp_guard.layer import ADMITTED, Admission, Managed, RequestHead


@dataclass(frozen=True)
class Affinity(Junction):
    """`worker` is this process's own; the session layer is told its `home`.

    `max_forwards` is how many requests may be on their way to other workers at once, open streams included.
    """

    needs = (Principal,)

    worker: Worker
    max_forwards: int = 10_000

    def __post_init__(self) -> None:
        if self.max_forwards < 1:
            raise ConfigurationError(f"max_forwards must be at least 1, not {self.max_forwards}")

    def managed(self) -> Sequence[Managed]:
        return (self.worker.store, self.worker)

    def join(self, inward: ASGIApp) -> None:
        self.worker.join(inward)

    async def admit(self, request: RequestHead) -> Admission:
        session = request.get(SessionHandle)
        if session is None or session.home is None or session.home == self.worker.home():
            return ADMITTED
        try:
            home = Home.parse(session.home)
        except ValueError as error:
            raise rejections.SESSION_NOT_FOUND.because(f"session {session.fingerprint}: its home is {error}") from None
        peers = self.worker.peers
        if peers.busy >= self.max_forwards:
            raise Unavailable(f"{self.max_forwards} requests are on their way to other workers already")
        return Admission(divert=Forward(peers, home))
