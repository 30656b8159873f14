"""A connection to one server, of valkey-py, and what is settled when it is made: that the server is a primary, and
whether its memory of claims goes on.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Sequence
from typing import Any, Protocol

from valkey.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from valkey.exceptions import ResponseError, ValkeyError

from mcp_guard.failures import StoreUnavailable
from mcp_guard.stores.valkey.address import Address, Credentials, Node
from mcp_guard.stores.valkey.encoding import Names, command, script

logger = logging.getLogger("mcp_guard")

EPOCH = script("epoch")
CLOSE_SECONDS = 0.5
CLASSES = {
    "NoScriptError": "NOSCRIPT",
    "ReadOnlyError": "READONLY",
    "BusyLoadingError": "LOADING",
    "NoPermissionError": "NOPERM",
    "OutOfMemoryError": "OOM",
    "AuthenticationError": "NOAUTH or WRONGPASS",
}
"""What valkey-py calls the errors whose first word it leaves out."""


class Unsent(StoreUnavailable):
    """Nothing was carried out: no connection, or an error that comes before everything else."""


class Redirected(Unsent):
    """Another node of the cluster has the slot: for good (`MOVED`), or for this once (`ASK`)."""

    def __init__(self, error: ResponseError) -> None:
        kind, _, place = str(error).split(" ")[:3]
        host, _, port = place.rpartition(":")
        super().__init__(f"valkey: {kind}")
        self.once = kind == "ASK"
        self.node = Node(host, int(port))


class Link(Protocol):
    """A connection of valkey-py, with `lost`."""

    @property
    def lost(self) -> bool:
        """Whether the server closed it, as far as is known."""

    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...
    async def send_packed_command(self, command: Sequence[bytes], check_health: bool = True) -> None: ...
    async def read_response(
        self,
        disable_decoding: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - it is valkey-py's
    ) -> Any: ...


class _Notices:
    _reader: asyncio.StreamReader | None

    @property
    def lost(self) -> bool:
        return self._reader is None or self._reader.at_eof() or self._reader.exception() is not None


class _Tcp(_Notices, Connection):
    pass


class _Tls(_Notices, SSLConnection):
    pass


class _Unix(_Notices, UnixDomainSocketConnection):
    pass


def unconnected(address: Address, node: Node, credentials: Credentials, db: int = 0) -> Link:
    """A connection to `node` that is yet to be opened. Its deadlines are those of whoever uses it."""
    password = credentials.password.reveal() if credentials.password is not None else None
    options: dict[str, Any] = {
        "username": credentials.username,
        "password": password,
        "db": db,
        "socket_timeout": None,
        "lib_name": None,
        "lib_version": None,
    }
    if node.port == 0:
        return _Unix(path=node.host, **options)
    options |= {"host": node.host, "port": node.port, "socket_keepalive": True}
    if address.tls is None:
        return _Tcp(**options)
    options |= {"ssl_ca_certs": address.tls.ca, "ssl_certfile": address.tls.cert, "ssl_keyfile": address.tls.key}
    return _Tls(ssl_check_hostname=True, **options)


async def ask(link: Link, commands: Sequence[bytes]) -> list[Any]:
    """Send commands at once and read as many replies; an error reply stands in its place.

    Raises:
        ValkeyError, OSError: the connection failed.
    """
    await link.send_packed_command(commands, check_health=False)
    return [await reply(link) for _ in commands]


async def reply(link: Link) -> Any:
    """The next reply; an error reply is answered, not raised."""
    try:
        return await link.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def class_of(error: BaseException) -> str:
    """The first word of a server's error, or what else happened, in words that hold nothing of a request."""
    known = CLASSES.get(type(error).__name__)
    if known is not None:
        return known
    if isinstance(error, ResponseError):
        if str(error).startswith("ACL failure in script"):
            return "NOPERM"
        word = str(error).partition(" ")[0]
        return word if re.fullmatch("[A-Z]{2,20}", word) else "ERR"
    return "no deadline kept" if isinstance(error, TimeoutError) else "connection lost"


def refusal(error: ResponseError) -> StoreUnavailable:
    """What a caller is told when the server refuses a whole call."""
    name = class_of(error)
    return Redirected(error) if name in ("MOVED", "ASK") else StoreUnavailable(f"valkey: {name}")


async def connected(address: Address, node: Node, credentials: Credentials, db: int = 0) -> Link:
    """A connection to `node`, on which nothing was asked.

    Raises:
        ValkeyError, OSError: it cannot be reached, or does not let us in.
    """
    link = unconnected(address, node, credentials, db)
    try:
        await link.connect()
    except BaseException:
        await drop(link)
        raise
    return link


async def greeted(address: Address, node: Node, names: Names) -> Link:
    """A connection to a primary, ready for use.

    Raises:
        StoreUnavailable: the server is no primary, or refuses what is asked of it first.
        ValkeyError, OSError: it cannot be reached.
    """
    link = await connected(address, node, address.credentials, address.db)
    try:
        await greet(link, names)
    except BaseException:
        await drop(link)
        raise
    return link


async def drop(link: Link, *, wait: bool = False) -> None:
    """Close a connection, whatever state it is in; `wait` until it is closed."""
    with contextlib.suppress(ValkeyError, OSError, RuntimeError):
        # RuntimeError: the event loop that it was made on is closed.
        async with asyncio.timeout(CLOSE_SECONDS):
            await link.disconnect(nowait=not wait)


async def greet(link: Link, names: Names) -> None:
    """Make sure that the server is a primary, and begin a new memory of claims when its history of writes is another.

    Raises:
        StoreUnavailable: it is a replica, or refuses to say.
        ValkeyError, OSError: the connection failed.
    """
    (answer,) = await ask(link, [command(b"INFO", b"replication")])
    replication = info(answer)
    if isinstance(answer, ResponseError):
        if class_of(answer) != "NOPERM":
            raise Unsent(f"valkey: {class_of(answer)}")
        logger.warning("valkey: INFO is not permitted: neither the server's role nor a failover can be noticed")
    elif replication.get("role") != "master":
        raise Unsent("valkey: READONLY")
    history = replication.get("master_replid", "unknown").encode()
    calls = [
        command(b"EVAL", EPOCH.text, b"1", names.epoch(partition), history) for partition in range(names.partitions)
    ]
    for outcome in await ask(link, calls):
        if outcome == 1:
            logger.info("valkey: the memory of claims begins now")
        elif isinstance(outcome, ResponseError) and class_of(outcome) not in ("MOVED", "ASK"):
            raise Unsent(f"valkey: {class_of(outcome)}")


def info(answer: object) -> dict[str, str]:
    """The fields of an answer to INFO; none when it is an error."""
    if not isinstance(answer, bytes):
        return {}
    lines = answer.decode("utf-8", "replace").splitlines()
    return dict([line.split(":", 1) for line in lines if ":" in line])
