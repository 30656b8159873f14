"""Workers that hold sessions: who they are, and how a request reaches the one that holds its session.

Every worker listens for the others in private, on a Unix socket or a TCP port. A request that arrives at a worker that
does not hold its session is judged there, by the whole stack, and then carried to the one that does, together with what
was learned of it; the response streams back the same way. See `mcp_guard.layers.affinity`.
"""

from mcp_guard.affinity.worker import Worker

__all__ = ["Worker"]
