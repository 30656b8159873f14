"""A server under load: `python -m tests.guard.load.server bare|guarded FOLDER PRINCIPALS`.

The first line of output is the port. A token for each principal is in FOLDER/tokens.json, the audit in
FOLDER/audit.jsonl. The app opens a stream for every GET: an idle one, or with the query `busy` one of events of 1 KiB,
a hundred a second. It answers every POST: at once, or the calls of the tool `slow` after `SLOW_SECONDS`.
"""

import asyncio
import gc
import json
import logging
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

from mcp_guard.asgi import ASGIApp, Receive, Scope, Send
from mcp_guard.serving import Server, configuration
from tests.benchmarks.peers import PLENTY_OF_ALL, Keys
from tests.guard.asgi import read_all

SLOW_SECONDS = 1.5
STREAMS_PER_PRINCIPAL = 64
EVENT = b"data: " + b"x" * 1018 + b"\n\n"
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}'


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """See the module's docstring."""
    if scope["type"] == "lifespan":
        raise RuntimeError("this app has no lifespan")
    if scope["method"] == "GET":
        await stream(scope, receive, send)
        return
    data = await read_all(receive)
    if b'"slow"' in data:
        await asyncio.sleep(SLOW_SECONDS)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """A stream that is open until its client leaves or the app is stopped."""
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
    if scope["query_string"] == b"busy":
        while True:
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
            await asyncio.sleep(0.01)
    while (await receive())["type"] != "http.disconnect":
        pass


def served(kind: str, url: str, keys: Keys, folder: Path) -> ASGIApp:
    """The app, bare or behind the complete stack."""
    if kind == "bare":
        return app
    from mcp_guard.auditlog import AuditLog, FileSink
    from mcp_guard.facts import Resource
    from mcp_guard.keysources import StaticKeys
    from mcp_guard.profiles import standard
    from mcp_guard.stack import guard
    from mcp_guard.tokens import TrustedIssuer
    from tests.benchmarks.peers import ISSUER

    layers = standard(
        resources=(Resource(url, "/mcp", scopes=frozenset({"mcp:tools"})),),
        issuers=(TrustedIssuer(ISSUER, StaticKeys(keys.jwks())),),
        audit=AuditLog(FileSink(folder / "audit.jsonl")),
        limits=replace(PLENTY_OF_ALL, streams=STREAMS_PER_PRINCIPAL),
    )
    return guard(app, *layers)


def main() -> int:
    """Serve until terminated."""
    kind, folder, principals = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    logging.disable(logging.CRITICAL)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    port = listener.getsockname()[1]
    url, keys = f"http://127.0.0.1:{port}/mcp", Keys()
    tokens = [keys.token(url, sub=f"user-{number}") for number in range(principals)]
    (folder / "tokens.json").write_text(json.dumps(tokens), "utf-8")
    target = served(kind, url, keys, folder)
    gc.collect()
    gc.freeze()
    print(port, flush=True)
    Server(configuration(target, lifespan="auto", log_level="critical")).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
