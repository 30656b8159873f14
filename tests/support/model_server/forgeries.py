"""The forged signatures that faults accept. Without a fault, nothing here accepts anything."""

from __future__ import annotations

import base64
import hmac
import json
import re

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.model_server.deployment import Deployment
from tests.support.model_server.keys import JSON, compact_json, key_of, signed_by
from tests.support.model_server.outbound import fetch_on_loopback

_INJECTED = re.compile(r"union\s+(?:all\s+)?select\s+'([^']*)", re.IGNORECASE)


class WeakSignatures:
    """Decides whether a switched-on fault takes a signature for good."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.has = deployment.has

    def accept(self, header: JSON, signing_input: bytes, signature: bytes) -> bool:
        return (
            self.has("signature_ignored")
            or self._upstream_signed(signing_input, signature)
            or self._nothing_signed(header, signature)
            or self._keyed_with_public(header, signing_input, signature)
            or self._keyed_by_kid(header, signing_input, signature)
            or self._keyed_by_header(header, signing_input, signature)
        )

    def _upstream_signed(self, signing_input: bytes, signature: bytes) -> bool:
        key = self._deployment.upstream_key.private.public_key()
        return self.has("upstream_tokens_accepted") and signed_by(key, signing_input, signature)

    def _nothing_signed(self, header: JSON, signature: bytes) -> bool:
        algorithm = header.get("alg")
        if self.has("empty_signature_accepted") and algorithm == "ES256" and not signature:
            return True
        if self.has("zero_signature_accepted") and algorithm == "ES256" and signature and not any(signature):
            return True
        if not isinstance(algorithm, str) or algorithm.lower() != "none":
            return False
        if self.has("alg_none_accepted"):
            return algorithm == "none" and not signature
        if self.has("alg_none_in_odd_case"):
            return algorithm != "none" and not signature
        return self.has("alg_none_with_garbage") and algorithm == "none"

    def _keyed_with_public(self, header: JSON, signing_input: bytes, signature: bytes) -> bool:
        key = self._deployment.key
        secrets: list[bytes] = []
        if self.has("hs256_keyed_with_pem"):
            secrets += [key.pem(), key.pem().strip()]
        if self.has("hs256_keyed_with_der"):
            secrets.append(key.der())
        if self.has("hs256_keyed_with_jwk"):
            secrets += [compact_json(key.jwk), json.dumps(key.jwk, sort_keys=True).encode()]
            secrets += [
                json.dumps(key.jwk).encode(),
                json.dumps(key.jwk, sort_keys=True, separators=(",", ":")).encode(),
            ]
        return header.get("alg") == "HS256" and any(_is_hmac(one, signing_input, signature) for one in secrets)

    def _keyed_by_kid(self, header: JSON, signing_input: bytes, signature: bytes) -> bool:
        kid = header.get("kid")
        if not isinstance(kid, str) or header.get("alg") != "HS256":
            return False
        if self.has("kid_is_a_path") and kid.endswith("/dev/null"):
            return _is_hmac(b"", signing_input, signature)
        if self.has("kid_is_sql") and (injected := _INJECTED.search(kid)):
            return _is_hmac(injected[1].encode(), signing_input, signature)
        return False

    def _keyed_by_header(self, header: JSON, signing_input: bytes, signature: bytes) -> bool:
        keys: list[ec.EllipticCurvePublicKey] = []
        try:
            if self.has("jwk_header_trusted") and isinstance(header.get("jwk"), dict):
                keys.append(key_of(header["jwk"]))
            if self.has("x5c_header_trusted") and isinstance(header.get("x5c"), list):
                keys += _certified(str(header["x5c"][0]))
            if self.has("jku_header_fetched") and isinstance(header.get("jku"), str):
                keys += [key_of(one) for one in json.loads(fetch_on_loopback(header["jku"]))["keys"]]
            if self.has("x5u_header_fetched") and isinstance(header.get("x5u"), str):
                keys += _certified(fetch_on_loopback(header["x5u"]).decode())
        except (ValueError, LookupError, TypeError, OSError):
            return False
        return header.get("alg") == "ES256" and any(signed_by(key, signing_input, signature) for key in keys)


def _is_hmac(secret: bytes, signing_input: bytes, signature: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(secret, signing_input, "sha256"), signature)


def _certified(text: str) -> list[ec.EllipticCurvePublicKey]:
    if "BEGIN CERTIFICATE" in text:
        certificate = x509.load_pem_x509_certificate(text.encode())
    else:
        certificate = x509.load_der_x509_certificate(base64.b64decode(text))
    key = certificate.public_key()
    return [key] if isinstance(key, ec.EllipticCurvePublicKey) else []
