"""The command line: `demo`, `serve`, `token`, `audit verify`, `keys`, `revoke`, `db`.

Whatever goes wrong is said in one sentence on standard error that names the cause, with exit status 1; a wrong use of
the command line exits with 2.
"""

import argparse
import getpass
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from mcp_guard.asgi import ASGIApp
from mcp_guard.auditlog import AuditLog, FileSink, Flaw, Head, NullSink, verify
from mcp_guard.failures import ConfigurationError, Unavailable
from mcp_guard.secret import Secret

BACKLOG = 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Answers the exit status."""
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except (ConfigurationError, Unavailable) as error:
        print(f"mcp-guard: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(prog="mcp-guard", description="Guards MCP servers on the internet.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="serve a guarded demo with its own authorization server")
    demo.add_argument("--port", type=int, default=8765, help="the loopback port to listen on (default 8765)")
    demo.add_argument("--users", metavar="NAME:PASSWORD,…", help="the users; by default alice and bob, new passwords")
    demo.add_argument("--audit", type=Path, metavar="FILE", help="write the audit log to FILE")
    demo.set_defaults(run=run_demo)

    serve = commands.add_parser("serve", help="serve an ASGI app behind the complete stack, set up by MCP_* variables")
    serve.add_argument("app", metavar="MODULE:APP", help="where to import the app from")
    serve.add_argument("--workers", type=int, metavar="N", help="how many processes serve (default MCP_WORKERS, or 1)")
    serve.set_defaults(run=run_serve)

    token = commands.add_parser("token", help="log in at an MCP endpoint's authorization server, print an access token")
    token.add_argument("url", metavar="URL", help="the MCP endpoint")
    token.add_argument("--user", metavar="NAME", help="the user; the password comes from MCP_PASSWORD or a prompt")
    token.add_argument("--browser", action="store_true", help="log in with a browser instead")
    token.set_defaults(run=run_token)

    audit = commands.add_parser("audit", help="work on an audit log").add_subparsers(required=True, metavar="COMMAND")
    check = audit.add_parser("verify", help="follow the hash chain of an audit log")
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument("--head", metavar="SEQ:HASH", help="a head kept elsewhere, which the chain must contain")
    check.set_defaults(run=run_audit_verify)

    add_state_commands(commands)
    return top


def add_state_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands that work on the state that workers share."""
    keys = commands.add_parser("keys", help="work on the key ring that workers share")
    new = keys.add_subparsers(required=True, metavar="COMMAND").add_parser("new", help="print a new key")
    new.set_defaults(run=run_keys_new)

    revoke = commands.add_parser("revoke", help="refuse, at every worker, what was issued until now")
    what = revoke.add_subparsers(required=True, metavar="WHAT", dest="what")
    user = what.add_parser("user", help="every token of a person")
    client = what.add_parser("client", help="every token of a client")
    for one, name in ((user, "subject"), (client, "client")):
        one.add_argument("issuer", metavar="ISSUER", help="the issuer, as the tokens spell it")
        one.add_argument(name, metavar=name.upper(), help="as the tokens spell it")
    what.add_parser("token", help="one access token, read from MCP_TOKEN or from standard input")
    what.add_parser("session", help="one session, its id read from MCP_SESSION or from standard input")
    revoke.set_defaults(run=run_revoke)

    database = commands.add_parser("db", help="work on the PostgreSQL store at MCP_DATABASE_URL")
    tasks = database.add_subparsers(required=True, metavar="COMMAND", dest="task")
    tasks.add_parser("migrate", help="make the tables, or bring them to this release; safe to repeat")
    tasks.add_parser("status", help="print the version, the rows of each table and the last cleanup")
    tasks.add_parser("cleanup", help="remove what has expired, once")
    database.set_defaults(run=run_db)


def run_demo(options: argparse.Namespace) -> int:
    """Serve the demo until it is interrupted."""
    require("mcp", "uvicorn", "authlib", "argon2", extra="demo")
    from mcp_guard.demo import build_demo, introduction, new_users, parse_users

    users = parse_users(options.users) if options.users is not None else new_users()
    listener = listen("127.0.0.1", options.port)
    port = listener.getsockname()[1]
    audit = AuditLog(FileSink(options.audit)) if options.audit else AuditLog(NullSink())
    demo = build_demo(port, users, audit)
    print(introduction(demo), flush=True)
    run_server(demo.app, listener)
    return 0


def run_serve(options: argparse.Namespace) -> int:
    """Serve the named app behind the stack that the environment describes."""
    require("uvicorn", extra="demo")
    from mcp_guard.config import load
    from mcp_guard.deployment import APP_VARIABLE, application, encryption_of

    os.environ[APP_VARIABLE] = options.app
    if options.workers is not None:
        os.environ["MCP_WORKERS"] = str(options.workers)
    settings = load()
    tls = {"encryption": encryption_of(settings)}
    app = application() if settings.workers == 1 else None
    listener = listen(settings.host, settings.port)
    print(f"Serving {settings.public_url} on {settings.host}:{listener.getsockname()[1]}", flush=True)
    return run_workers(settings.workers, listener, tls) if app is None else run_server(app, listener, **tls)


def run_token(options: argparse.Namespace) -> int:
    """Log in and print the access token, and nothing else, on standard output."""
    from mcp_guard.login import Login, LoginError

    try:
        if options.browser:
            token = Login(options.url).with_browser(lambda text: print(text, file=sys.stderr, flush=True))
        elif options.user is None:
            raise ConfigurationError("token needs --user NAME, or --browser")
        else:
            given = os.environ.get("MCP_PASSWORD")
            password = Secret(given if given is not None else getpass.getpass(f"Password of {options.user}: "))
            token = Login(options.url).with_password(options.user, password)
    except LoginError as error:
        raise ConfigurationError(str(error)) from error
    print(token)
    return 0


def run_audit_verify(options: argparse.Namespace) -> int:
    """Follow a chain and say where it stands, or where it breaks."""
    expected = None
    if options.head is not None:
        seq, _, digest = options.head.partition(":")
        if not seq.isdigit() or len(digest) != 64:
            raise ConfigurationError("--head must be SEQ:HASH as an earlier run printed it")
        expected = Head(int(seq), digest)
    try:
        with options.file.open("rb") as lines:
            outcome = verify(lines, expected)
    except OSError as error:
        raise ConfigurationError(f"{options.file}: {error.strerror}") from error
    if isinstance(outcome, Flaw):
        print(f"{options.file}: line {outcome.line}: {outcome.problem}", file=sys.stderr)
        return 1
    print(f"{options.file}: {outcome.seq} records, head {outcome.seq}:{outcome.hash}")
    return 0


def run_db(options: argparse.Namespace) -> int:
    """Do one of the tasks of `db` and print what it says."""
    require("psycopg", "psycopg_pool", extra="postgres")
    from mcp_guard import database

    print(database.run(options.task))
    return 0


def run_keys_new(options: argparse.Namespace) -> int:
    """Print a new key, and nothing else."""
    from mcp_guard.keyring import new_key

    print(new_key().reveal())
    return 0


def run_revoke(options: argparse.Namespace) -> int:
    """Write a revocation into the store that the environment names."""
    from mcp_guard.config import load_state
    from mcp_guard.revoking import revoke

    print(revoke(load_state().store, options.what, vars(options)))
    return 0


def require(*modules: str, extra: str) -> None:
    """Check that optional packages are installed.

    Raises:
        ConfigurationError: naming the extra that brings the missing one.
    """
    for module in modules:
        try:
            import_module(module)
        except ImportError:
            raise ConfigurationError(
                f"{module} is not installed; it comes with: pip install 'mcp-guard[{extra}]'"
            ) from None


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: from here on connections wait, and none is refused while the server starts.

    Raises:
        ConfigurationError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only on sockets that name their protocol; with it, answers wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}") from error
    return listener


def run_workers(workers: int, listener: socket.socket, settings: dict[str, Any]) -> int:
    """Serve on `listener` with several processes until interrupted. Answers 1 when one of them could not start."""
    from mcp_guard.supervisor import Supervisor

    with closing(listener):
        return Supervisor("mcp_guard.deployment:application", listener, workers, settings).run()


def run_server(app: ASGIApp, listener: socket.socket, **tls: Any) -> int:
    """Serve on `listener` until interrupted. Answers 1 when the app did not start."""
    from mcp_guard.serving import serve

    with closing(listener):
        return 0 if serve(app, listener, **tls) else 1


if __name__ == "__main__":
    sys.exit(main())
