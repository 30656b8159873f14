"""The registry of faults: each is one switch in the server, named after what goes wrong, bound to what it violates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.support.model_server.faults import (
    audiences,
    authorization,
    inputs,
    limits,
    metadata,
    origins,
    pkce,
    possession,
    redirects,
    registration,
    sessions,
    tokens,
    transport,
)
from tests.support.model_server.faults.fault import Fault

_ALL: tuple[Fault, ...] = (
    *metadata.FAULTS,
    *redirects.FAULTS,
    *registration.FAULTS,
    *authorization.FAULTS,
    *audiences.FAULTS,
    *tokens.FAULTS,
    *pkce.FAULTS,
    *sessions.FAULTS,
    *origins.FAULTS,
    *inputs.FAULTS,
    *transport.FAULTS,
    *limits.FAULTS,
    *possession.FAULTS,
)
FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _ALL}
"""Every fault by name. Names are unique: `len(FAULTS)` equals the number of rows."""

ROWS = len(_ALL)


class UnknownFault(LookupError):
    """A fault is named that the registry does not hold."""


class Switches:
    """The faults that are on in one server."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = frozenset(names)
        for name in sorted(self.names):
            _known(name)

    def has(self, name: str) -> bool:
        """Whether this fault is on.

        Raises:
            UnknownFault: the name is not in the registry, so the switch could never be turned.
        """
        return _known(name).name in self.names


def _known(name: str) -> Fault:
    try:
        return FAULTS[name]
    except KeyError:
        raise UnknownFault(f"there is no fault named {name!r}") from None


__all__ = ["FAULTS", "ROWS", "Fault", "Switches", "UnknownFault"]
