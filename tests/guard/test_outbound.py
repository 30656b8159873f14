"""Where an issuer may send the guard: public addresses alone, checked once and connected to as checked."""

import asyncio
import socket
import ssl
from typing import Any

import pytest
import trustme

from mcp_guard.clock import ManualClock
from mcp_guard.discovery import IssuerMetadata
from mcp_guard.failures import ConfigurationError, KeySourceUnavailable
from mcp_guard.keysources import RemoteKeys
from mcp_guard.outbound import FetchError, JsonClient, Unreachable, is_public, public_addresses
from tests.guard.introspecting import Endpoint, endpoint
from tests.guard.signing import SigningKey, jwk_set


class Resolver:
    """Stands for the system's resolver: each name has the answers it is given, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[list[str]]]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", self.resolve)

    def resolve(self, host: Any, port: Any, *rest: Any, **more: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        self.asked.append(name)
        if name not in self.answers:
            addresses = [name]
            if not name.replace(".", "").isdigit():
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
        else:
            left = self.answers[name]
            addresses = left.pop(0) if len(left) > 1 else left[0]
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in addresses
        ]


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "1.1.1.1"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff0e::1",
        "::ffff:169.254.169.254",
        "::ffff:1.1.1.1",
        "::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "localhost",
        "",
    ],
)
def test_no_other_address_is(address: str) -> None:
    assert not is_public(address)


async def test_a_name_with_one_address_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch, {"keys.example": [["1.1.1.1", "10.0.0.1"]]})
    with pytest.raises(FetchError, match=r"10\.0\.0\.1, which is not an address of the public internet") as caught:
        await public_addresses("keys.example", 443)
    assert not isinstance(caught.value, Unreachable), "keys do not decide because of it"


async def test_a_name_that_does_not_resolve_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    Resolver(monkeypatch, {})
    with pytest.raises(Unreachable, match="cannot be resolved"):
        await public_addresses("nowhere.example", 443)


@pytest.mark.parametrize(
    ("location", "public"),
    [
        ("https://as.example.com/jwks", False),
        ("https://as.example.com:8443/jwks", True),
        ("https://keys.example/jwks", True),
        ("https://10.0.0.1/jwks", True),
    ],
)
def test_another_origin_than_the_issuers_has_to_be_public(location: str, *, public: bool) -> None:
    issuer = IssuerMetadata("https://as.example.com", "jwks_url")
    assert issuer._place(location, "jwks_uri", "m").public is public


@pytest.mark.parametrize("location", ["http://127.0.0.1/jwks", "http://localhost:1/x", "http://keys.example/", "", "x"])
def test_a_public_issuer_names_https_alone(location: str) -> None:
    with pytest.raises(FetchError):
        IssuerMetadata("https://as.example.com", "jwks_url")._place(location, "jwks_uri", "m")


@pytest.mark.parametrize(
    "issuer", ["http://127.0.0.1:1", "http://localhost:1", "https://10.0.0.7", "https://[fd00::1]"]
)
def test_an_issuer_inside_may_name_what_is_inside(issuer: str) -> None:
    assert not IssuerMetadata(issuer, "jwks_url")._place("https://10.0.0.8/jwks", "jwks_uri", "m").public


def test_an_address_of_the_internet_is_no_reason_to_trust_what_is_inside() -> None:
    assert IssuerMetadata("https://1.1.1.1", "jwks_url")._place("https://10.0.0.8/jwks", "jwks_uri", "m").public


def test_an_issuer_without_a_url_has_no_metadata() -> None:
    with pytest.raises(ConfigurationError, match="jwks_url"):
        IssuerMetadata("my-issuer", "jwks_url")


async def test_a_name_that_turns_inward_after_the_check_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with endpoint() as inside:
        resolver = Resolver(monkeypatch, {"rebind.example": [["127.0.0.3"], ["127.0.0.1"]]})
        monkeypatch.setattr("mcp_guard.outbound.is_public", lambda address: address != "127.0.0.1")
        async with JsonClient(ssl.create_default_context()) as client:
            with pytest.raises(Unreachable):
                await client.get(f"https://rebind.example:{inside.port}/jwks", public=True)
        assert resolver.asked.count("rebind.example") == 1
        assert inside.heads == []


async def test_the_checked_address_is_connected_to_with_the_hosts_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    served, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("keys.example").configure_cert(served)
    authority.configure_trust(trusting)
    one = Endpoint(documents={"/jwks": jwk_set(SigningKey.new())})
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=served)
    one.port = server.sockets[0].getsockname()[1]
    names = {"keys.example": [["127.0.0.2", "127.0.0.1"]], "other.example": [["127.0.0.1"]]}
    resolver = Resolver(monkeypatch, names)
    monkeypatch.setattr("mcp_guard.outbound.is_public", lambda address: True)
    async with JsonClient(trusting) as client:
        assert await client.get(f"https://keys.example:{one.port}/jwks", public=True) == one.documents["/jwks"]
        assert resolver.asked.count("keys.example") == 1
    async with JsonClient(trusting) as client:
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            await client.get(f"https://other.example:{one.port}/jwks", public=True)
    server.close()
    await server.wait_closed()


async def test_keys_at_a_place_inside_are_not_fetched_for_an_issuer_outside(
    monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    keys = RemoteKeys("https://as.example.com", clock=clock)
    fetched: list[str] = []

    async def get(self: JsonClient, url: str, *, public: bool = False) -> Any:
        if public:
            await public_addresses("169.254.169.254", 443)
        fetched.append(url)
        return {"issuer": "https://as.example.com", "jwks_uri": "https://169.254.169.254/latest"}

    monkeypatch.setattr(JsonClient, "get", get)
    with pytest.raises(KeySourceUnavailable, match="not an address of the public internet"):
        await keys.find("k1", "ES256")
    assert len(fetched) == 1
