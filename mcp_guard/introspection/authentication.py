"""How the guard says who it is at an introspection endpoint (RFC 7662 §2.1, RFC 6749 §2.3.1, RFC 7523 §2.2)."""

import secrets
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol import introspection
from mcp_guard.secret import Secret

ASSERTION_SECONDS: Final = 60
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384"}
_LEAST_RSA_BITS: Final = 2048


class Credentials(NamedTuple):
    """What goes along with one request: fields of the form, and header fields."""

    fields: dict[str, str]
    headers: dict[str, str]


class ClientAuthentication(Protocol):
    """Who asks."""

    def credentials(self, issuer: str, now: float) -> Credentials:
        """For one request to `issuer`; `now` is in seconds since 1970."""


@dataclass(frozen=True)
class ClientSecret:
    """`client_secret_basic`."""

    client_id: str
    secret: Secret

    def __post_init__(self) -> None:
        _check_client_id(self.client_id)
        if not self.secret.reveal():
            raise ConfigurationError("client secret must not be empty")

    def credentials(self, issuer: str, now: float) -> Credentials:
        return Credentials({}, {"authorization": introspection.basic(self.client_id, self.secret.reveal())})


class PrivateKeyJwt:
    """`private_key_jwt`: an assertion for each request, good for a minute and for the issuer alone (RFC 7523 §3)."""

    def __init__(self, client_id: str, pem: Secret, key_id: str | None = None) -> None:
        """`pem` is a private key of P-256, P-384 or RSA; `key_id` is what the issuer knows it by.

        Raises:
            ConfigurationError: it is none, or `client_id` is empty.
        """
        _check_client_id(client_id)
        self._client_id = client_id
        self._key, self._algorithm = _read_key(pem)
        self._header = {"alg": self._algorithm, "typ": "JWT", **({} if key_id is None else {"kid": key_id})}

    def credentials(self, issuer: str, now: float) -> Credentials:
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": issuer,
            "jti": secrets.token_urlsafe(16),
            "iat": int(now),
            "exp": int(now) + ASSERTION_SECONDS,
        }
        assertion = jwt.encode(self._header, claims, self._key, algorithms=[self._algorithm])
        return Credentials(
            {
                "client_id": self._client_id,
                "client_assertion_type": introspection.ASSERTION_TYPE,
                "client_assertion": assertion,
            },
            {},
        )

    def __repr__(self) -> str:
        return f"PrivateKeyJwt(client_id={self._client_id!r}, algorithm={self._algorithm!r})"


@dataclass(frozen=True)
class Anonymous:
    """No authentication. Only for an endpoint on a loopback host, where `Introspection` takes it."""

    def credentials(self, issuer: str, now: float) -> Credentials:
        return Credentials({}, {})


def _check_client_id(client_id: str) -> None:
    if not client_id or not client_id.isascii() or not client_id.isprintable():
        raise ConfigurationError("client id must be visible ASCII characters")


def _read_key(pem: Secret) -> tuple[ECKey | RSAKey, str]:
    try:
        key = load_pem_private_key(pem.reveal().encode(), password=None)
    except (ValueError, TypeError):
        raise ConfigurationError("client key must be a private key in PEM that is not encrypted") from None
    if isinstance(key, EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return ECKey.import_key(key), _CURVES[key.curve.name]
    if isinstance(key, RSAPrivateKey) and key.key_size >= _LEAST_RSA_BITS:
        return RSAKey.import_key(key), "PS256"
    raise ConfigurationError("client key must be on P-256 or P-384, or RSA of at least 2048 bits")
