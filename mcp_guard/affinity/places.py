"""Where a worker listens: a directory for its Unix socket, or an address and a port for TCP.

The directory belongs to the user that the workers run as, and nobody else may enter it. A socket appears in it when it
listens already, so that one that refuses is known to be a dead worker's, and is removed by the next that starts.
"""

import os
import re
import socket
import stat
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from mcp_guard.affinity.homes import MAX_SOCKET_PATH_BYTES, NAME, Home
from mcp_guard.failures import ConfigurationError, Unavailable

BACKLOG = 1024
_PLACE = re.compile(r"unix:(?P<path>/.*)|tcp:(?P<host>[^:]+|\[[^\]]+\]):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Place:
    """`listen` as it was read. `advertised` is the IP address under which the others reach a TCP listener."""

    directory: Path | None = None
    host: str = ""
    port: int = 0
    advertised: str = ""

    @classmethod
    def parse(cls, listen: str, advertise: str | None) -> "Place":
        """The place of `unix:<absolute directory>` or `tcp:<IP address>:<port>`, port 0 for one that is free.

        Raises:
            ConfigurationError: naming the setting that cannot work.
        """
        found = _PLACE.fullmatch(listen)
        if found is None:
            raise ConfigurationError(f"listen: {listen!r} is neither unix:<directory> nor tcp:<IP address>:<port>")
        if found["path"] is not None:
            return cls._on_one_host(Path(found["path"]), advertise)
        host, port = _address("listen", found["host"].strip("[]")), int(found["port"])
        advertised = host if advertise is None else _address("advertise", advertise)
        if ip_address(advertised).is_unspecified:
            raise ConfigurationError(f"advertise: needed when listening on {host}, and must be one address")
        if port > 65535:
            raise ConfigurationError(f"listen: {port} is no port")
        return cls(host=host, port=port, advertised=advertised)

    @classmethod
    def _on_one_host(cls, directory: Path, advertise: str | None) -> "Place":
        if advertise is not None:
            raise ConfigurationError("advertise: has a meaning for tcp alone")
        longest = str(directory / f"{'0' * 32}.sock")
        if not longest.isascii() or not longest.isprintable() or " " in longest or "/../" in longest:
            raise ConfigurationError(f"listen: {str(directory)!r} must be plain ASCII without blanks and '..'")
        if len(longest) > MAX_SOCKET_PATH_BYTES:
            raise ConfigurationError(f"listen: the path of a socket in {directory} is too long")
        return cls(directory=directory)

    def open(self, name: str) -> tuple[socket.socket, Home]:
        """A listening socket for the worker `name`, and where it is reached.

        Raises:
            ConfigurationError: the directory is not ours alone.
            Unavailable: the address or the path cannot be had.
        """
        try:
            return self._listen_in(self.directory, name) if self.directory is not None else self._listen_on(name)
        except OSError as error:
            raise Unavailable(f"the worker cannot listen: {error.strerror}") from None

    def _listen_on(self, name: str) -> tuple[socket.socket, Home]:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self.port), family=family, backlog=BACKLOG)
        return listener, Home(name, host=self.advertised, port=listener.getsockname()[1])

    def _listen_in(self, directory: Path, name: str) -> tuple[socket.socket, Home]:
        _make_private(directory)
        _remove_stale(directory)
        path, unborn = directory / f"{name}.sock", directory / f"{name}.new"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(unborn))
            unborn.chmod(0o600)
            listener.listen(BACKLOG)
            unborn.rename(path)
        except OSError:
            listener.close()
            raise
        return listener, Home(name, path=str(path))


def remove(home: Home) -> None:
    """Take the socket of a worker that no longer listens out of the directory."""
    if home.path is not None:
        Path(home.path).unlink(missing_ok=True)


def _address(setting: str, text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ConfigurationError(f"{setting}: {text!r} is no IP address") from None


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigurationError(f"listen: {directory} must be a directory of this user alone; chmod 700 it")


def _remove_stale(directory: Path) -> None:
    """Remove the sockets on which nobody listens any more."""
    for path in directory.glob("*.sock"):
        if NAME.fullmatch(path.stem) is None:
            continue
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue
