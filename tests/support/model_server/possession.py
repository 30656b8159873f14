"""What a token is bound to, and whether the sender has it: a key (RFC 9449 §7) or a certificate (RFC 8705 §3)."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request

from tests.support.model_server.deployment import Deployment
from tests.support.model_server.keys import b64url
from tests.support.model_server.principal import InvalidToken, Principal, Refused
from tests.support.model_server.proofs import Asked, ProofError, Proofs

_BYTES = re.compile(r":([A-Za-z0-9+/=]+):")


def comes_with_a_proof(request: Request) -> bool:
    """Whether the client uses the DPoP scheme (RFC 9449 §7.1)."""
    return request.headers.get("authorization", "").partition(" ")[0].lower() == "dpop"


class Possession:
    """Asks the sender of a bound token for what it is bound to."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._proofs = Proofs(deployment, at_resource=True)
        self.has = deployment.has

    async def check(self, request: Request, principal: Principal) -> None:
        """Raises: Refused, when a token comes without what it is bound to, or by a scheme that is not its own."""
        if principal.x5t and not self._has_certificate(request, principal.x5t):
            raise InvalidToken("the token is bound to a certificate")
        if principal.jkt:
            await self._check_key(request, principal)
        elif comes_with_a_proof(request):
            raise InvalidToken("the token is bound to no key")

    async def _check_key(self, request: Request, principal: Principal) -> None:
        has, proved = self.has, "dpop" in request.headers
        if not comes_with_a_proof(request):
            if has("bound_token_as_bearer") or (proved and has("bound_token_as_bearer_with_proof")):
                return
            raise InvalidToken("the token is bound to a key")
        if not proved and has("proof_optional"):
            return
        url = self._deployment.base + request.scope["path"]
        try:
            await self._proofs.check(request, Asked(url, principal.token, principal.jkt))
        except ProofError as error:
            raise Refused(401, error.slug, error.reason, nonce=error.nonce) from None

    def _has_certificate(self, request: Request, thumbprint: str) -> bool:
        """Whether the sender showed the certificate: to this server nobody can, and a fault believes a header."""
        if self.has("certificate_binding_ignored"):
            return True
        text = _BYTES.fullmatch(request.headers.get("client-cert", ""))
        if text is None or not self.has("certificate_field_believed"):
            return False
        try:
            octets = x509.load_der_x509_certificate(b64decode(text[1])).public_bytes(Encoding.DER)
        except ValueError:
            return False
        return b64url(hashlib.sha256(octets).digest()) == thumbprint
