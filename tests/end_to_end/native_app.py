"""A native app that registers by itself and asks for authorization (RFC 8252): everything but its browser."""

import base64
import hashlib
import secrets
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlencode

import httpx

from tests.end_to_end.loopback_site import Received, Site


@dataclass
class NativeApp:
    """An app that listens at `site`; `url` is what it opens in the browser."""

    issuer: str
    site: Site
    name: str = "Acme Notes"
    redirect_uri: str = ""
    tls: ssl.SSLContext | bool = True
    state: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    client_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.redirect_uri = self.redirect_uri or self.site.at("/callback")
        body = {
            "client_name": self.name,
            "redirect_uris": [self.redirect_uri],
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }
        with self._client() as client:
            answer = client.post(f"{self.issuer}/register", json=body)
        assert answer.status_code == 201, answer.text
        self.client_id = answer.json()["client_id"]

    def _client(self) -> httpx.Client:
        return httpx.Client(timeout=10, verify=self.tls)

    def url(self, scope: str | None = None) -> str:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self.issuer}/authorize?{urlencode(query if scope is None else {**query, 'scope': scope})}"

    def answer(self) -> Received:
        """The only authorization response that came."""
        (answer,) = self.site.answers()
        return answer

    def redeem(self, code: str) -> str:
        """The access token for a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "client_id": self.client_id,
            "code_verifier": self.verifier,
        }
        with self._client() as client:
            answer = client.post(f"{self.issuer}/token", data=form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])
