"""OAuth logins of the SDK's own client, with the walker in place of a browser."""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

import anyio.to_thread
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from tests.end_to_end.walker import walk


@dataclass
class Memory:
    """The SDK's token storage, in memory."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@dataclass
class Login:
    """The two handlers of a login: where the browser is sent, and what it comes back with."""

    user: str
    password: str
    came_back: list[str] = field(default_factory=list)

    async def redirect(self, url: str) -> None:
        self.came_back.append(await anyio.to_thread.run_sync(walk, url, self.user, self.password))

    async def callback(self) -> AuthorizationCodeResult:
        answer = dict(parse_qsl(urlsplit(self.came_back[-1]).query))
        return AuthorizationCodeResult(code=answer["code"], state=answer.get("state"), iss=answer.get("iss"))


def provider(url: str, user: str, password: str) -> OAuthClientProvider:
    """The SDK's OAuth for the MCP endpoint `url`."""
    login = Login(user, password)
    metadata = OAuthClientMetadata(
        client_name="end-to-end test", redirect_uris=[AnyUrl("http://127.0.0.1:3999/callback")]
    )
    return OAuthClientProvider(
        server_url=url,
        client_metadata=metadata,
        storage=Memory(),
        redirect_handler=login.redirect,
        callback_handler=login.callback,
    )
