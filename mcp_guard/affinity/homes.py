"""Where a worker is reached: a text that goes into the session record, and is read strictly from there.

`<name>@unix:<path of the socket>` on one host, `<name>@tcp:<address>:<port>` across hosts. The name is 128 random bits
in hexadecimal, new with each start of a worker, so that a path or port in other hands later is told apart.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

NAME = re.compile(r"[0-9a-f]{32}")
MAX_HOME_CHARACTERS = 256
MAX_SOCKET_PATH_BYTES = 107
"""What Linux takes as the path of a Unix socket (unix(7)), without the final NUL."""

_HOME = re.compile(
    r"(?P<name>[0-9a-f]{32})@(?:unix:(?P<path>/[\x21-\x7e]*)|tcp:(?P<host>[^:]+|\[[^\]]+\]):(?P<port>\d+))"
)


@dataclass(frozen=True, slots=True)
class Home:
    """A worker and its place: the `path` of a Unix socket, or an IP address and a port."""

    name: str
    path: str | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "Home":
        """The home that `str` wrote.

        Raises:
            ValueError: the text is none; what it says is not repeated.
        """
        found = _HOME.fullmatch(text) if len(text) <= MAX_HOME_CHARACTERS else None
        if found is None:
            raise ValueError("not the home of a worker")
        name, path, host = found["name"], found["path"], found["host"]
        if path is not None:
            if not path.endswith(f"/{name}.sock") or "/../" in path or len(path) > MAX_SOCKET_PATH_BYTES:
                raise ValueError("not the socket of the worker")
            return cls(name, path=path)
        try:
            home = cls(name, host=str(ip_address(host.strip("[]"))), port=int(found["port"]))
        except ValueError:
            raise ValueError("not an IP address") from None
        if not 1 <= home.port <= 65535 or str(home) != text:
            raise ValueError("not an address as it is written")
        return home

    def __str__(self) -> str:
        if self.path is not None:
            return f"{self.name}@unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name}@tcp:{host}:{self.port}"
