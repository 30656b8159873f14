"""The process of a deployment: `python -m tests.guard.faults.serve` starts its workers behind one socket, and anew.

It serves as the variable FAULTS says, in JSON: the fields of `Settings`. The first line of output is the port.
"""

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from mcp_guard.supervisor import Supervisor

VARIABLE = "FAULTS"
AUTHORITY = "127.0.0.1:9"
"""The public host: that of a balancer in front, which the tests do without."""
MCP_URL = f"http://{AUTHORITY}/mcp"


@dataclass(frozen=True)
class Settings:
    """`deadline_ms` is the store's. With `lifespan` "off" the guard starts with the first request."""

    folder: str
    store: str
    ring: str
    jwks: dict[str, Any] = field(default_factory=dict)
    workers: int = 2
    deadline_ms: int = 100
    replicas: int = 0
    lifespan: str = "on"
    streams: int = 32

    def environment(self) -> dict[str, str]:
        """The environment of a process that serves."""
        return {**os.environ, VARIABLE: json.dumps(asdict(self))}


def main() -> int:
    """Serve until terminated."""
    settings = Settings(**json.loads(os.environ[VARIABLE]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    web = {"lifespan": settings.lifespan}
    return Supervisor("tests.guard.faults.worker:application", listener, settings.workers, web).run()


if __name__ == "__main__":
    sys.exit(main())
