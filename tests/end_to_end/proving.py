"""A client that proves with each request that it has the key of its token (RFC 9449)."""

import time
from collections.abc import Generator
from dataclasses import dataclass, field

import httpx2

from tests.guard.proving import proof
from tests.guard.proving import thumbprint as thumbprint_of
from tests.guard.signing import SigningKey


@dataclass(eq=False)
class Prover(httpx2.Auth):
    """Sends `token` with a new proof each time, and keeps to the nonce that it was last told."""

    key: SigningKey = field(default_factory=SigningKey.new)
    token: str = ""
    nonce: str | None = None
    told: list[str] = field(default_factory=list)

    @property
    def thumbprint(self) -> str:
        return thumbprint_of(self.key)

    def fields(self, method: str, url: str) -> dict[str, str]:
        """The fields of one request."""
        proved = proof(self.key, self.token.encode(), htm=method, htu=url, iat=time.time(), nonce=self.nonce)
        return {"authorization": f"DPoP {self.token}", "dpop": proved.decode()}

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Sent again once with a nonce, when one is asked for."""
        for _ in range(2):
            request.headers.update(self.fields(request.method, str(request.url).partition("?")[0]))
            answer = yield request
            told = answer.headers.get("dpop-nonce")
            if told is None:
                return
            self.nonce = told
            self.told.append(told)
            if answer.status_code != httpx2.codes.UNAUTHORIZED:
                return
