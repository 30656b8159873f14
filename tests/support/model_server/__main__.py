"""`python -m tests.support.model_server --port N --fault NAME --minting`: serve until interrupted.

Prints one line, `ready URL`, once the port is bound. The users and their passwords are in `USERS`.
"""

from __future__ import annotations

import argparse
import socket
import sys

import uvicorn

from tests.support.model_server import FAULTS, ModelServer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.model_server")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: chosen by the kernel)")
    parser.add_argument("--fault", action="append", default=[], choices=sorted(FAULTS), metavar="NAME")
    parser.add_argument("--minting", action="store_true", help="also answer POST /-/mint")
    parser.add_argument("--list", action="store_true", help="list the faults and end")
    options = parser.parse_args()
    if options.list:
        for fault in FAULTS.values():
            print(f"{fault.requirement}  {fault.name}  {fault.sentence}")
        return 0
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = ModelServer(url, options.fault, minting=options.minting)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1))
    print(f"ready {url}", flush=True)
    server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
