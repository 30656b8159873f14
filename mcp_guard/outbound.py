"""One bounded request for a JSON document, to a URL that the operator chose, or an issuer the operator trusts.

No redirect is followed, no proxy of the environment is used, no cookie is kept, nothing is decompressed. A URL that an
issuer chose is fetched from a public address alone: its host is resolved once, and the connection is to the address
that was checked. URLs that a client chose are not fetched by this module.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Mapping
from ipaddress import IPv6Network, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol import strict_json
from mcp_guard.protocol.strict_json import JsonError
from mcp_guard.protocol.uris import is_loopback

MAX_BYTES: Final = 256 * 1024
TOTAL_SECONDS: Final = 2.0
CONNECT_SECONDS: Final = 1.0
"""How long one address of several may take to be reached."""
MAX_ADDRESSES: Final = 4
HTTPS_PORT: Final = 443
IPV4: Final = 4
_CARRYING_IPV4: Final = tuple(
    map(IPv6Network, ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"))
)
"""Compatible, mapped, translated (RFC 6052, RFC 8215) and 6to4 addresses: their way ends at an IPv4 address."""
_HEADERS: Final = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "mcp-guard"}
_OK: Final = 200


class FetchError(Exception):
    """The document could not be had. `reason` names the URL and what went wrong."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unreachable(FetchError):
    """There is no answer, or one that says the server is failing: 5xx."""


class NotThere(FetchError):
    """The server says that there is no such document: any 4xx, since providers disagree which."""


def check_url(url: str, setting: str) -> str:
    """A URL that may be fetched: https, or http on a loopback host; no userinfo, no fragment. Answers `url`.

    Raises:
        ConfigurationError: it is anything else; the message names `setting`.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{setting}: {url!r} is not a URL") from None
    if not host or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ConfigurationError(f"{setting}: {url!r} is not an absolute URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigurationError(f"{setting}: {url!r} must be https, or http on a loopback host")
    if "@" in parts.netloc or parts.fragment:
        raise ConfigurationError(f"{setting}: {url!r} must have neither userinfo nor fragment")
    return url


class JsonClient:
    """Fetches documents, each of at most 256 KiB, read strictly. Closed when it is left as a context manager.

    `tls` verifies the servers' certificates, also those of servers that are reached by a checked address.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._client = httpx.AsyncClient(
            verify=tls,
            trust_env=False,
            follow_redirects=False,
            headers=_HEADERS,
            timeout=httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS),
        )

    async def __aenter__(self) -> "JsonClient":
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self._client.__aexit__(*failure)

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, url: str, *, public: bool = False) -> Any:
        """The JSON value at `url`; from a public address alone with `public`.

        Raises:
            FetchError: any answer but 200, too much, not JSON, or an address that is not public; `NotThere` for 4xx,
                `Unreachable` for no answer and 5xx.
        """
        return await self._fetch("GET", url, None, {}, public)

    async def post(self, url: str, data: Mapping[str, str], headers: Mapping[str, str], *, public: bool = False) -> Any:
        """The JSON value that is answered to a form. As `get` otherwise."""
        return await self._fetch("POST", url, data, headers, public)

    async def _fetch(
        self, method: str, url: str, data: Mapping[str, str] | None, headers: Mapping[str, str], public: bool
    ) -> Any:
        unreached: httpx.TransportError = httpx.ConnectError("no address")
        try:
            for request in await self._requests(method, url, data, headers, public):
                try:
                    response = await self._client.send(request, stream=True)
                except (httpx.ConnectError, httpx.ConnectTimeout) as fault:
                    unreached = fault
                    continue
                try:
                    return strict_json.loads(await _body(url, response))
                finally:
                    await response.aclose()
            raise unreached
        except JsonError as fault:
            raise FetchError(f"{url}: the answer {fault.reason}") from None
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as fault:
            raise Unreachable(f"{url} cannot be reached: {str(fault) or type(fault).__name__}") from None

    async def _requests(
        self, method: str, url: str, data: Mapping[str, str] | None, headers: Mapping[str, str], public: bool
    ) -> list[httpx.Request]:
        """The request; with `public` one for each address to try. The certificate has to be the host's all the same."""
        if not public:
            return [self._client.build_request(method, url, data=data, headers=headers)]
        target = httpx.URL(url)
        named = {**headers, "host": target.netloc.decode("ascii")}
        return [
            self._client.build_request(
                method,
                target.copy_with(host=address),
                data=data,
                headers=named,
                extensions={"sni_hostname": target.host},
            )
            for address in await public_addresses(target.host, target.port or HTTPS_PORT)
        ]


async def public_addresses(host: str, port: int) -> list[str]:
    """Addresses of `host`, as its name resolves now.

    Raises:
        FetchError: one of them is not an address of the public internet; `Unreachable` when there is none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as fault:
        raise Unreachable(f"{host} cannot be resolved: {fault.strerror or type(fault).__name__}") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not is_public(address):
            raise FetchError(f"{host} is at {address}, which is not an address of the public internet")
    return addresses[:MAX_ADDRESSES]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; those that carry an IPv4 address inside are not."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if parsed.is_multicast or not parsed.is_global:
        return False
    return parsed.version == IPV4 or not any(parsed in network for network in _CARRYING_IPV4)


async def within_deadline(task: Awaitable[Any], what: str) -> Any:
    """The result of the awaitable `task`, which has two seconds in all, however slowly bytes arrive.

    Raises:
        FetchError: they have passed; `what` is named in the reason.
    """
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            return await task
    except TimeoutError:
        raise Unreachable(f"{what} did not answer within {TOTAL_SECONDS:g} s") from None


async def _body(url: str, response: httpx.Response) -> bytes:
    if response.is_client_error:
        raise NotThere(f"{url} answered {response.status_code}")
    if response.is_server_error:
        raise Unreachable(f"{url} answered {response.status_code}")
    if response.status_code != _OK:
        raise FetchError(f"{url} answered {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise FetchError(f"{url}: the answer is compressed although that was not asked for")
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > MAX_BYTES:
            raise FetchError(f"{url}: the answer has more than {MAX_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)
