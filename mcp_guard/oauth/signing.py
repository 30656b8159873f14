"""Signing keys and the access tokens they sign (RFC 7515, RFC 7517, RFC 9068).

ES256 alone. A key's id is its thumbprint (RFC 7638), so it follows from the key and needs no bookkeeping.
"""

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from mcp_guard.failures import ConfigurationError

ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"  # noqa: S105 - a media type, not a password
_OTHERS_MAY_READ = 0o077


class SigningKeys:
    """Keys that sign with the first and publish all, so that a new one can be announced before it is used.

    To rotate: put the new key at the end, wait until every cache of the key set has expired (ten minutes), move it to
    the front, wait until the last token of the old one has expired, drop the old one.
    """

    def __init__(self, keys: Sequence[EllipticCurvePrivateKey]) -> None:
        if not keys:
            raise ConfigurationError("keys must hold at least one private key")
        for key in keys:
            if not isinstance(key.curve, SECP256R1):
                raise ConfigurationError("keys must be private keys on the curve P-256")
        self._keys = [ECKey.import_key(key) for key in keys]
        self.ids = tuple(key.thumbprint() for key in self._keys)
        if len(set(self.ids)) != len(self.ids):
            raise ConfigurationError("keys must differ from each other")

    @classmethod
    def generate(cls) -> "SigningKeys":
        """One new key, lost with the process: tokens do not survive a restart, and other workers cannot verify them."""
        key = ECKey.generate_key("P-256").private_key
        return cls([key] if key is not None else [])

    @classmethod
    def from_file(cls, path: str | Path) -> "SigningKeys":
        """Read a PEM file of one or more private keys, a JWK or a JWK set; the first signs.

        Raises:
            ConfigurationError: the file is missing, readable by others, or holds anything but P-256 private keys.
        """
        data = _read_private(Path(path))
        try:
            keys = _from_pem(data) if b"-----BEGIN" in data else _from_jwk(data)
            return cls(keys)
        except ConfigurationError as fault:
            raise ConfigurationError(f"signing keys: {path}: {fault}") from None

    def public_set(self) -> dict[str, Any]:
        """The JWK set to publish: public members only."""
        return {
            "keys": [
                {**_public_members(key), "kid": kid, "use": "sig", "alg": ALGORITHM}
                for key, kid in zip(self._keys, self.ids, strict=True)
            ]
        }

    def sign(self, claims: Mapping[str, Any]) -> str:
        """An access token with these claims (RFC 9068 §2.1)."""
        header = {"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": self.ids[0]}
        return jwt.encode(header, dict(claims), self._keys[0], algorithms=[ALGORITHM])

    def __repr__(self) -> str:
        return f"SigningKeys(ids={self.ids})"


def _public_members(key: ECKey) -> dict[str, Any]:
    members = key.as_dict(private=False)
    return {name: members[name] for name in ("kty", "crv", "x", "y")}


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigurationError(f"signing keys: {path} is not a file")
            if mode & _OTHERS_MAY_READ:
                raise ConfigurationError(
                    f"signing keys: {path} may be read by others (mode {stat.S_IMODE(mode):04o}); it must be 0600"
                )
            return file.read()
    except OSError as fault:
        raise ConfigurationError(f"signing keys: {path} cannot be read: {fault.strerror}") from None


def _from_pem(data: bytes) -> list[EllipticCurvePrivateKey]:
    keys = []
    for part in data.split(b"-----BEGIN ")[1:]:
        if b"PRIVATE KEY" not in part.partition(b"\n")[0]:
            continue  # openssl ecparam writes a block of parameters before the key.
        try:
            key = load_pem_private_key(b"-----BEGIN " + part, password=None)
        except TypeError:
            raise ConfigurationError("a key is encrypted; it must be plain") from None
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigurationError("a PEM block is not a private key") from None
        if not isinstance(key, EllipticCurvePrivateKey):
            raise ConfigurationError("keys must be private keys on the curve P-256")
        keys.append(key)
    return keys


def _from_jwk(data: bytes) -> list[EllipticCurvePrivateKey]:
    try:
        document = json.loads(data)
    except ValueError:
        raise ConfigurationError("is neither PEM nor JSON") from None
    members = document.get("keys", [document]) if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise ConfigurationError("is neither a JWK nor a JWK set")
    keys = []
    for member in members:
        try:
            key = ECKey.import_key(member).private_key
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            raise ConfigurationError("a member is not an EC key") from None
        if key is None:
            raise ConfigurationError("a member has no private key")
        keys.append(key)
    return keys
