"""One bounded GET of a JSON document from a URL that the operator chose, or an issuer the operator trusts.

No redirect is followed, no proxy of the environment is used, no cookie is kept, nothing is decompressed. The host is
not resolved and pinned here: URLs that a client chose need that too and are not fetched by this module.
"""

import asyncio
import ssl
from collections.abc import Awaitable
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol import strict_json
from mcp_guard.protocol.strict_json import JsonError
from mcp_guard.protocol.uris import is_loopback

MAX_BYTES: Final = 256 * 1024
TOTAL_SECONDS: Final = 2.0
_HEADERS: Final = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "mcp-guard"}
_OK: Final = 200


class FetchError(Exception):
    """The document could not be had. `reason` names the URL and what went wrong."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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
    """Fetches documents within one deadline. Used as an async context manager, once for each task.

    `tls` verifies the servers' certificates; by default against the system's authorities.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._client = httpx.AsyncClient(
            verify=tls, trust_env=False, follow_redirects=False, headers=_HEADERS, timeout=TOTAL_SECONDS
        )

    async def __aenter__(self) -> "JsonClient":
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self._client.__aexit__(*failure)

    async def get(self, url: str) -> Any:
        """The JSON value at `url`, at most 256 KiB, read strictly.

        Raises:
            FetchError: no connection, any answer but 200, too much, or not JSON; `NotThere` for 4xx.
        """
        try:
            async with self._client.stream("GET", url) as response:
                return strict_json.loads(await _body(url, response))
        except JsonError as fault:
            raise FetchError(f"{url}: the answer {fault.reason}") from None
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as fault:
            raise FetchError(f"{url} cannot be reached: {str(fault) or type(fault).__name__}") from None


async def within_deadline(task: Awaitable[Any], what: str) -> Any:
    """The result of the awaitable `task`, which has two seconds in all, however slowly bytes arrive.

    Raises:
        FetchError: they have passed; `what` is named in the reason.
    """
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            return await task
    except TimeoutError:
        raise FetchError(f"{what} did not answer within {TOTAL_SECONDS:g} s") from None


async def _body(url: str, response: httpx.Response) -> bytes:
    if response.is_client_error:
        raise NotThere(f"{url} answered {response.status_code}")
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
