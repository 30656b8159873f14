"""Where an issuer's endpoints are, by its metadata (RFC 8414 §3, OpenID Connect Discovery 1.0 §4).

The issuer is the operator's choice, what its metadata names is the issuer's. An endpoint on another origin than the
issuer's has to be https and at a public address, unless the issuer was itself configured by a loopback or private
address.
"""

from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from mcp_guard.failures import ConfigurationError
from mcp_guard.outbound import FetchError, JsonClient, NotThere, check_url, is_public
from mcp_guard.protocol.authorization_metadata import Issuer
from mcp_guard.protocol.uris import is_loopback

OPENID = "/.well-known/openid-configuration"


class Place(NamedTuple):
    """An endpoint, and whether only public addresses may be connected to for it."""

    url: str
    public: bool


class IssuerMetadata:
    """The metadata of `issuer`; `instead` is the setting that makes up for an issuer that has none.

    Raises:
        ConfigurationError: the issuer is not https (http is for loopback hosts), or no URL that metadata can be at.
    """

    def __init__(self, issuer: str, instead: str) -> None:
        self._issuer = issuer
        try:
            parsed = Issuer.parse(issuer)
        except ConfigurationError as fault:
            raise ConfigurationError(f"{fault}; or give its {instead}") from None
        self._origin = parsed.url.origin
        self._is_internal = _is_internal(parsed.url.host)
        origin, path = self._origin, parsed.path
        places = (f"{origin}{parsed.well_known_path}", f"{origin}{OPENID}{path}", f"{origin}{path}{OPENID}")
        self.urls = tuple(dict.fromkeys(places))
        """Where it may be, in the order of MCP 2025-11-25 (Authorization Server Metadata Discovery)."""

    async def endpoint(self, member: str, client: JsonClient) -> Place:
        """What the metadata says in `member`, such as `jwks_uri`.

        Raises:
            FetchError: there is no metadata, it is another issuer's, or the URL may not be fetched.
        """
        for url in self.urls:
            try:
                metadata = await client.get(url)
            except NotThere:
                continue
            if not isinstance(metadata, dict) or metadata.get("issuer") != self._issuer:
                raise FetchError(f"{url} is the metadata of another issuer")
            location = metadata.get(member)
            return self._place(location if isinstance(location, str) else "", member, url)
        raise FetchError(f"no metadata at {', '.join(self.urls)}")

    def _place(self, location: str, member: str, url: str) -> Place:
        try:
            check_url(location, member)
        except ConfigurationError as fault:
            raise FetchError(f"{url}: {fault}") from None
        parts = urlsplit(location)
        if self._is_internal or f"{parts.scheme}://{parts.netloc}" == self._origin:
            return Place(location, public=False)
        if parts.scheme != "https":
            raise FetchError(f"{url}: {member} must be https")
        return Place(location, public=True)


def _is_internal(host: str) -> bool:
    if is_loopback(host):
        return True
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return not is_public(host.strip("[]"))
