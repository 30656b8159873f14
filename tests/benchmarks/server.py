"""One server under load: `python -m tests.benchmarks.server KIND AUDIT [STORE]`.

KIND is `bare`, `guard` or `sdk`: a server on the real SDK, alone or behind one of the two; `collected` is the bare one
without `gc.freeze`. `fastmcp`, `fastmcp-guard` and `fastmcp-auth` are one on FastMCP: alone, behind the guard, and with
FastMCP's own authentication. `echo`, `echo-guard` and `echo-trips` are the app that only says OK: alone, behind the
guard on the Valkey at STORE, and after three questions to it.
"""

import gc
import logging
import socket
import sys
from datetime import timedelta
from pathlib import Path

import uvicorn
from fastmcp import FastMCP
from fastmcp.server.auth import AuthProvider, RemoteAuthProvider
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl

from mcp_guard.asgi import ASGIApp
from mcp_guard.stores.valkey import ValkeyStore
from tests.benchmarks.peers import ISSUER, Keys, after_three_trips, bare, fastmcp_verifier, guarded, sdk_auth

PATIENT = timedelta(seconds=5)


def real() -> ASGIApp:
    """A server on the real SDK with one tool."""
    mcp = MCPServer("bench")

    @mcp.tool()
    def add(a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    return mcp.streamable_http_app(json_response=True, transport_security=unchecked)


def on_fastmcp(auth: AuthProvider | None = None) -> ASGIApp:
    """The same on FastMCP."""
    mcp = FastMCP("bench", auth=auth)

    @mcp.tool
    def add(a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    app: ASGIApp = mcp.http_app(json_response=True)
    return app


def application(kind: str, url: str, keys: Keys, audit: Path, store: str) -> ASGIApp:
    """What is served."""
    if kind == "guard":
        return guarded(real(), url, keys, audit)
    if kind == "sdk":
        return sdk_auth(real(), url, keys)
    if kind == "fastmcp":
        return on_fastmcp()
    if kind == "fastmcp-guard":
        return guarded(on_fastmcp(), url, keys, audit)
    if kind == "fastmcp-auth":
        return on_fastmcp(RemoteAuthProvider(fastmcp_verifier(keys, url), [AnyHttpUrl(ISSUER)], url))
    if kind == "echo":
        return bare
    if kind == "echo-guard":
        return guarded(bare, url, keys, audit, ValkeyStore(store, deadline=PATIENT))
    if kind == "echo-trips":
        return after_three_trips(bare, store)
    return real()


def main() -> None:
    """Serve until terminated; the first line of output is the port and a token."""
    kind, audit, store = sys.argv[1], Path(sys.argv[2]), "".join(sys.argv[3:])
    logging.disable(logging.CRITICAL)
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    bound.listen(128)
    port = bound.getsockname()[1]
    url, keys = f"http://127.0.0.1:{port}/mcp", Keys()
    served = application(kind, url, keys, audit, store)
    if kind != "collected":
        gc.collect()
        gc.freeze()
    print(port, keys.token(url), flush=True)
    config = uvicorn.Config(served, log_level="critical", access_log=False, proxy_headers=False, lifespan="auto")
    uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main()
