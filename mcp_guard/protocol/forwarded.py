"""What proxies say of the client: `X-Forwarded-*` and `Forwarded` (RFC 7239).

Both are lists to which each proxy appends what it saw, so the end of a list is written by the nearest proxy and the
beginning by whoever sent the request. A list is read from its end, for as long as the address that wrote the next entry
is trusted; what lies beyond is a claim of the client's and is not looked at.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

MAX_HOPS: Final = 64
"""Entries a list may have. More is no chain of proxies."""

SCHEMES: Final = frozenset({"http", "https"})

_NODE = re.compile(r"(?P<v4>[0-9.]{7,15})(?::[0-9]{1,5})?|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?")
_BARE_V6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PAIR = re.compile(rf'(?P<name>{_WORD})=(?:(?P<token>{_WORD})|"(?P<quoted>(?:[\t !#-\[\]-~]|\\[\t -~])*)")')
_NEXT_PAIR = re.compile(r"[ \t]*;[ \t]*")
_NEXT_ELEMENT = re.compile(r"[ \t]*,[ \t]*")


class ForwardedError(ValueError):
    """A forwarding field of a trusted proxy has no clear meaning. The message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One entry: who connected to the proxy that wrote it, and how. `address` is None when the entry names none."""

    address: Address | None
    proto: str | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What may be believed: the client's address, and the scheme and host it used, where they were said."""

    client: Address | None
    proto: str | None = None
    host: str | None = None

    def contradicts(self, other: "Reading") -> bool:
        """Whether the two name different clients, or different schemes where both name one."""
        if self.client != other.client:
            return True
        return self.proto is not None and other.proto is not None and self.proto != other.proto


Trust: TypeAlias = Callable[[Address], bool]


@lru_cache(4096)
def read_address(text: str) -> Address | None:
    """An address as servers write it, None when it is none.

    An IPv4-mapped IPv6 address is the IPv4 one (RFC 4291 §2.5.5.2); a zone is dropped (RFC 4007 §11).
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def read_node(text: str) -> Address | None:
    """The address in a node of RFC 7239 §6, or as `X-Forwarded-For` spells it; None for `unknown`, names, anything."""
    found = _NODE.fullmatch(text)
    if found is not None:
        return read_address(found["v4"] or found["v6"])
    return read_address(text) if _BARE_V6.fullmatch(text) else None


def walk(hops: Sequence[Hop], peer: Address | None, trusts: Trust) -> Reading:
    """Read a list from its end. `peer` sent the request, and is trusted; None is a peer without an address.

    The client is the right-most address that is not trusted. Where an entry names no address, the client is the nearest
    address known, so that whoever hides shares one name with everybody who does. Scheme and host are those of the last
    entry that was looked at: a trusted proxy wrote it, about the client.
    """
    reading = Reading(peer)
    for hop in reversed(hops):
        reading = Reading(hop.address or reading.client, hop.proto, hop.host)
        if hop.address is None or not trusts(hop.address):
            break
    return reading


def x_forwarded(
    addresses: Sequence[bytes], protos: Sequence[bytes], hosts: Sequence[bytes], peer: Address | None, trusts: Trust
) -> Reading:
    """Read the values of `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.

    Scheme and host have no place in the list of addresses: each must be one clear value, set by the nearest proxy.

    Raises:
        ForwardedError: a scheme or host is given twice or as a list, the scheme is not exactly `http` or `https`, or
            there are more than `MAX_HOPS` addresses.
    """
    named = [part.strip() for value in addresses for part in value.decode("latin-1").split(",")]
    if len(named) > MAX_HOPS:
        raise ForwardedError(f"X-Forwarded-For has more than {MAX_HOPS} entries")
    client = walk([Hop(read_node(name)) for name in named], peer, trusts).client
    proto = _only("X-Forwarded-Proto", protos)
    return Reading(client, None if proto is None else _scheme(proto), _only("X-Forwarded-Host", hosts))


def forwarded(values: Sequence[bytes], peer: Address | None, trusts: Trust) -> Reading:
    """Read the values of `Forwarded` (RFC 7239 §4).

    Raises:
        ForwardedError: it does not follow the grammar, repeats a parameter in an element, has more than `MAX_HOPS`
            elements, or a scheme other than `http` and `https` where it matters.
    """
    reading = walk(_elements(b", ".join(values).decode("latin-1")), peer, trusts)
    if reading.proto is not None:
        _scheme(reading.proto)
    return reading


def _elements(text: str) -> list[Hop]:
    hops: list[Hop] = []
    parameters: dict[str, str] = {}
    position = 0
    while True:
        found = _PAIR.match(text, position)
        if found is None:
            raise ForwardedError("Forwarded does not follow its grammar")
        name = found["name"].lower()
        if name in parameters:
            raise ForwardedError("Forwarded repeats a parameter in one element")
        quoted = found["quoted"]
        parameters[name] = found["token"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        following = _NEXT_PAIR.match(text, found.end())
        if following is None:
            hops.append(Hop(read_node(parameters.get("for", "")), parameters.get("proto"), parameters.get("host")))
            if len(hops) > MAX_HOPS:
                raise ForwardedError(f"Forwarded has more than {MAX_HOPS} elements")
            if found.end() == len(text):
                return hops
            parameters = {}
            following = _NEXT_ELEMENT.match(text, found.end())
        if following is None:
            raise ForwardedError("Forwarded does not follow its grammar")
        position = following.end()


def _only(field: str, values: Sequence[bytes]) -> str | None:
    if not values:
        return None
    if len(values) > 1 or b"," in values[0]:
        raise ForwardedError(f"{field} has more than one value")
    return values[0].decode("latin-1")


def _scheme(text: str) -> str:
    if text not in SCHEMES:
        raise ForwardedError("the scheme is neither http nor https")
    return text
