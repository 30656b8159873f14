"""One server under load: `python -m tests.benchmarks.server bare|guard|sdk AUDIT`."""

import gc
import logging
import socket
import sys
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from mcp_guard.asgi import ASGIApp
from tests.benchmarks.peers import Keys, guarded, sdk_auth


def main() -> None:
    """Serve until terminated; the first line of output is the port and a token."""
    kind, audit = sys.argv[1], Path(sys.argv[2])
    logging.disable(logging.CRITICAL)
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    bound.listen(128)
    port = bound.getsockname()[1]
    url, keys = f"http://127.0.0.1:{port}/mcp", Keys()
    mcp = MCPServer("bench")

    @mcp.tool()
    def add(a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = mcp.streamable_http_app(json_response=True, transport_security=unchecked)
    served: ASGIApp = app
    if kind == "guard":
        served = guarded(app, url, keys, audit)
    elif kind == "sdk":
        served = sdk_auth(app, url, keys)
    gc.collect()
    gc.freeze()
    print(port, keys.token(url), flush=True)
    config = uvicorn.Config(served, log_level="critical", access_log=False, proxy_headers=False, lifespan="on")
    uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main()
