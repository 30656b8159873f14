"""Three readers of access tokens: the guard, PyJWT and joserfc, all told to be as strict as they can be."""

from collections.abc import Mapping
from typing import Any

import jwt as pyjwt
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization
from joserfc.jws import JWSRegistry

from mcp_guard.asgi import Message
from mcp_guard.clock import ManualClock
from mcp_guard.delivery import Delivery
from mcp_guard.facts import Principal, Resource
from mcp_guard.keysources import StaticKeys
from mcp_guard.layer import RequestHead
from mcp_guard.layers.token import Token
from mcp_guard.rejections import Rejection
from mcp_guard.tokens import TrustedIssuer

ISSUER = "https://as.example.com"
RESOURCE = "https://mcp.example.com/mcp"
LEEWAY_SECONDS = 10
ALGORITHMS = ["ES256", "ES384", "RS256", "PS256"]
REQUIRED = ["exp", "iat", "iss", "aud", "sub"]


class Guard:
    """The guard's layer, asked outside any server."""

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        self.clock = ManualClock()
        self.layer = Token(
            (Resource(RESOURCE, "/mcp"),), (TrustedIssuer(ISSUER, StaticKeys(jwks)),), self.clock, cached_tokens=0
        )

    def accepts(self, token: bytes, now: int) -> bool:
        """Whether a request with this token is let through."""
        self.clock.now = float(now)
        scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": [(b"authorization", b"Bearer " + token)]}

        async def no_body(limit_bytes: int) -> bytes:
            raise AssertionError("the body is not the token layer's to read")

        async def unsent(message: Message) -> None:
            raise AssertionError("the response is not the token layer's to send")

        deciding = self.layer.admit(RequestHead(scope, {}, no_body, Delivery(unsent)))
        try:
            deciding.send(None)
        except StopIteration as done:
            return any(isinstance(fact, Principal) for fact in done.value.facts)
        except Rejection:
            return False
        raise AssertionError("keys at hand are found without waiting")


class PyJwt:
    """PyJWT with every claim required that it can check."""

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        self.keys = {jwk["kid"]: pyjwt.PyJWK(dict(jwk)) for jwk in jwks["keys"]}

    def accepts(self, token: bytes) -> bool:
        """By the system's clock, the only one it knows."""
        try:
            key = self.keys[pyjwt.get_unverified_header(token)["kid"]]
            pyjwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=RESOURCE,
                issuer=ISSUER,
                leeway=LEEWAY_SECONDS,
                options={"require": REQUIRED},
            )
        except (pyjwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            return False
        return True


class Joserfc:
    """joserfc with a key set and its claims registry."""

    def __init__(self, jwks: KeySetSerialization) -> None:
        self.keys = KeySet.import_key_set(jwks)
        self.registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        self.registry.max_header_length = 8192

    def accepts(self, token: bytes, now: int) -> bool:
        claims = joserfc_jwt.JWTClaimsRegistry(
            now=now,
            leeway=LEEWAY_SECONDS,
            exp={"essential": True},
            iat={"essential": True},
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": RESOURCE},
            sub={"essential": True},
        )
        try:
            read = joserfc_jwt.decode(token, self.keys, registry=self.registry)
            claims.validate(read.claims)
        except (JoseError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            return False
        return True
