"""Where the keys of an issuer come from. A source belongs to one issuer; issuers never share keys.

`StaticKeys` is a JWK Set at hand, `RemoteKeys` one that the issuer publishes. A source that cannot decide raises
`KeySourceUnavailable`, which is answered 503: a 401 would make clients throw good tokens away.
"""

from mcp_guard.keysources.base import Found, KeySource
from mcp_guard.keysources.remote import Freshness, RemoteKeys
from mcp_guard.keysources.static import StaticKeys

__all__ = ["Found", "Freshness", "KeySource", "RemoteKeys", "StaticKeys"]
