"""The demo: a real MCP server of the official SDK behind the complete stack, with the embedded authorization server.

One process, no services: state is in memory and is gone when the process ends.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from mcp_guard.auditlog import AuditLog
from mcp_guard.demo_server import demo_server
from mcp_guard.facts import Resource, ScopePolicy
from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.rate_limit import Limit
from mcp_guard.oauth import AuthorizationServer, Rate, StaticUsers
from mcp_guard.oauth import Limits as LoginLimits
from mcp_guard.profiles import Handling, Limits, standard
from mcp_guard.secret import Secret, generated_password
from mcp_guard.sessions import SessionTerms
from mcp_guard.stack import Guard, guard
from mcp_guard.stores.memory import MemoryStore

DEFAULT_PORT = 8765
DEFAULT_USER_NAMES = ("alice", "bob")
DEMO_LOGIN_LIMITS = LoginLimits(
    logins_per_user=Rate(600, timedelta(minutes=1)),
    logins_per_user_and_address=Rate(600, timedelta(minutes=1)),
    logins_per_address=Rate(1_200, timedelta(minutes=1)),
    registrations_per_address=Rate(600, timedelta(minutes=1)),
    client_failures_per_address=Rate(600, timedelta(minutes=1)),
    transactions_per_user=Rate(600, timedelta(minutes=1)),
)

CURL_BODY = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "whoami",
            "arguments": {},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "curl", "version": "8"},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    },
    separators=(",", ":"),
)

# A certification opens some hundreds of sessions within a minute, all from one address.
DEMO_LIMITS = Limits(
    address=Limit(6_000, timedelta(minutes=1)),
    principal=Limit(3_000, timedelta(minutes=1)),
    tool=Limit(120, timedelta(minutes=1)),
    connections=Limit(600, timedelta(minutes=1)),
    address_connections=Limit(1_200, timedelta(minutes=1)),
    in_flight=500,
    streams=500,
)
DEMO_SESSIONS = SessionTerms(per_principal=5_000)
# A client that is shown the tool whose scope it lacks can be asked to call it, and asks for the scope.
DEMO_HANDLING = Handling(hide=False)


@dataclass(frozen=True)
class Demo:
    """A demo that is ready to be served: the guarded app and where its endpoints are."""

    app: Guard
    origin: str
    users: Mapping[str, Secret]

    @property
    def mcp_url(self) -> str:
        return f"{self.origin}/mcp"

    @property
    def sse_url(self) -> str:
        return f"{self.origin}/sse"

    @property
    def neighbour_url(self) -> str:
        return f"{self.origin}/clock"


def build_demo(port: int, users: Mapping[str, Secret], audit: AuditLog, *, host: str = "127.0.0.1") -> Demo:
    """The demo for `port` on the loopback address, with `users` as name and password.

    Raises:
        ConfigurationError: a user's name or password cannot be used.
    """
    origin, store = f"http://{host}:{port}", MemoryStore()
    resources = demo_resources(origin)
    server = AuthorizationServer(
        issuer=origin,
        store=store,
        users=StaticUsers.from_pairs({name: password.reveal() for name, password in users.items()}),
        resources=resources,
        scopes={"mcp:tools": "Call the demo's tools", "mcp:admin": "Reset the demo's count"},
        limits=DEMO_LOGIN_LIMITS,
        name="mcp-guard demo",
    )
    layers = standard(
        resources=resources,
        authorization_server=server,
        store=store,
        audit=audit,
        limits=DEMO_LIMITS,
        sessions=DEMO_SESSIONS,
        handling=DEMO_HANDLING,
    )
    return Demo(guard(demo_server(), *layers), origin, users)


def demo_resources(origin: str) -> tuple[Resource, ...]:
    """The endpoints of the demo: two transports of one server, and a neighbour with the same issuer."""
    mcp, sse = f"{origin}/mcp", f"{origin}/sse"
    # One server's two transports: a token for either is welcome at both, because the operator says so here.
    streamable = Resource(
        mcp,
        "/mcp",
        aliases=frozenset({sse}),
        scopes=frozenset({"mcp:tools"}),
        policy=ScopePolicy(tools={"reset": frozenset({"mcp:admin"})}),
        name="mcp-guard demo",
    )
    events = replace(
        streamable,
        url=sse,
        path="/sse",
        messages="/messages/",
        aliases=frozenset({mcp}),
        name="mcp-guard demo (HTTP+SSE)",
    )
    # The neighbour's tokens are its own.
    neighbour = Resource(f"{origin}/clock", "/clock", scopes=frozenset({"mcp:tools"}), name="mcp-guard demo clock")
    return (streamable, events, neighbour)


def parse_users(text: str) -> Mapping[str, Secret]:
    """`NAME:PASSWORD,…` as a mapping.

    Raises:
        ConfigurationError: an entry has no name or no password, or a name is repeated. No password is echoed.
    """
    users: dict[str, Secret] = {}
    for number, entry in enumerate(text.split(","), start=1):
        name, _, password = entry.partition(":")
        if not name.strip() or not password:
            raise ConfigurationError(f"--users: entry {number} must be NAME:PASSWORD")
        if name.strip() in users:
            raise ConfigurationError(f"--users: {name.strip()} appears twice")
        users[name.strip()] = Secret(password)
    return users


def new_users() -> Mapping[str, Secret]:
    """The default users, with passwords made for this run."""
    return {name: generated_password() for name in DEFAULT_USER_NAMES}


def introduction(demo: Demo) -> str:
    """What a person needs to use the demo: where it is, who can log in, and commands to paste."""
    (first, password), *others = demo.users.items()
    second, second_password = others[0] if others else (first, password)
    guard_command, pytest_command = command("mcp-guard"), command("pytest")
    users = "\n".join(f"  {name}  {secret.reveal()}" for name, secret in demo.users.items())
    return f"""\
A guarded MCP server is at {demo.mcp_url} (HTTP+SSE at {demo.sse_url}). Ctrl-C ends it.
Another one, with tokens of its own, is at {demo.neighbour_url}.

Users:
{users}

Codex:
  codex mcp add demo --url {demo.mcp_url} && codex mcp login demo

Claude Code:
  claude mcp add --transport http demo {demo.mcp_url} && claude mcp login demo

curl:
  export MCP_TOKEN="$(MCP_PASSWORD={password.reveal()} {guard_command} token {demo.mcp_url} --user {first})"
  curl -sS {demo.mcp_url} -H "Authorization: Bearer $MCP_TOKEN" -H 'Content-Type: application/json' \\
    -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2026-07-28' \\
    -H 'Mcp-Method: tools/call' -H 'Mcp-Name: whoami' -d '{CURL_BODY}'

Certify it:
  MCP_CONFORMANCE_USER={first} MCP_CONFORMANCE_PASSWORD={password.reveal()} \\
  MCP_CONFORMANCE_USER_B={second} MCP_CONFORMANCE_PASSWORD_B={second_password.reveal()} \\
    {pytest_command} --mcp-target={demo.mcp_url} --mcp-conformance-login=form
"""


def command(name: str) -> str:
    """How a shell finds a program that is installed with this one: by its name, or by the path beside Python's."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not beside.exists() or (found is not None and Path(found).samefile(beside)):
        return name
    return str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside)
