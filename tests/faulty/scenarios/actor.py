"""Whoever talks to a model server in a scenario, and the notebook of what was seen."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import anyio

from tests.support.asgi_client import SILENCE_SECONDS, Answer, send
from tests.support.model_server import USERS, ModelServer
from tests.support.scripted_login import forms_of

BASE = "http://127.0.0.1:4711"
HOST = ("Host", "127.0.0.1:4711")
ACCEPT = ("Accept", "application/json, text/event-stream")
MODERN, LEGACY = "2026-07-28", "2025-11-25"
REDIRECT = "http://127.0.0.1:9/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
Headers = list[tuple[str, str]]
Seen = dict[str, object]


class Actor:
    """Sends requests to one server and notes observations under labels."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self.seen: Seen = {}

    async def follow(self, *steps: Step) -> Seen:
        """Take the steps one after the other; one that cannot go on is an observation too."""
        for step in steps:
            await self._take(step)
        return self.seen

    async def at_once(self, *steps: Step) -> Seen:
        """Take steps that do not touch each other."""
        async with anyio.create_task_group() as tasks:
            for step in steps:
                tasks.start_soon(self._take, step)
        return self.seen

    async def _take(self, step: Step) -> None:
        try:
            await step(self)
        except (LookupError, TypeError, AttributeError, ValueError, StopIteration) as error:
            self.note(f"{step.__name__} broke off", type(error).__name__)

    def note(self, label: str, value: object) -> None:
        self.seen[label] = value

    # ------------------------------------------------------------------------------------------------ as an MCP client

    async def send(
        self,
        method: str,
        target: str,
        *headers: tuple[str, str],
        body: bytes = b"",
        peer: int = 1,
        silence: float = SILENCE_SECONDS,
    ) -> Answer:
        named = {name.lower() for name, _ in headers}
        extra = [] if "host" in named else [HOST]
        return await send(self.server, method, target, [*extra, *headers], body, peer, silence)

    async def rpc(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *headers: tuple[str, str],
        request_id: object = 1,
        target: str = "/mcp",
        meta: Mapping[str, Any] | None = None,
        peer: int = 1,
        silence: float = SILENCE_SECONDS,
    ) -> Answer:
        """A POST of the stateless era; with a session header or a legacy method, of the session era."""
        legacy = method == "initialize" or any(name == "Mcp-Session-Id" for name, _ in headers)
        body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": dict(params or {})}
        extra: Headers = [ACCEPT, ("Content-Type", "application/json")]
        if request_id is not None:
            body["id"] = request_id
        if not legacy:
            about = {"protocolVersion": MODERN, "clientCapabilities": {}, **(meta or {})}
            body["params"]["_meta"] = {f"io.modelcontextprotocol/{name}": value for name, value in about.items()}
            extra += [("MCP-Protocol-Version", MODERN), ("Mcp-Method", method)]
            extra += [("Mcp-Name", str(body["params"]["name"]))] if method == "tools/call" else []
        return await self.send(
            "POST", target, *extra, *headers, body=json.dumps(body).encode(), peer=peer, silence=silence
        )

    def token(self, subject: str = "alice", **settings: Any) -> tuple[str, str]:
        """A good Authorization header, minted."""
        return bearer(self.server.mint(subject=subject, **settings))

    # ---------------------------------------------------------------------------------------------- as an OAuth client

    async def register(self, **members: Any) -> dict[str, Any]:
        wanted = {"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none", **members}
        answer = await self.send("POST", self.path("/register"), body=json.dumps(wanted).encode())
        registered: dict[str, Any] = answer.json()
        return registered

    async def two_clients(self) -> tuple[str, str]:
        """The ids of two public clients."""
        return (await self.register())["client_id"], (await self.register())["client_id"]

    async def authorize(
        self, client: str, *, approve: bool = True, user: str = "alice", **parameters: str | None
    ) -> dict[str, str]:
        """The answer at the redirect URI; empty when the server showed a page instead."""
        wanted = {
            "response_type": "code",
            "client_id": client,
            "redirect_uri": REDIRECT,
            "state": "s",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": f"{BASE}/mcp",
            **parameters,
        }
        query = urlencode({name: value for name, value in wanted.items() if value is not None})
        answer = await self.send("GET", f"{self.path('/authorize')}?{query}")
        for _ in range(3):
            if answer.status == 303:
                return dict(parse_qsl(urlsplit(answer.header("location")).query))
            forms = forms_of(answer.text)
            if not forms:
                return {}
            fields = {**forms[0].fields, "decision": "approve" if approve else "deny"}
            fields |= {"username": user, "password": USERS[user]} if "password" in fields else {}
            cookie = ("Cookie", answer.header("set-cookie").partition(";")[0])
            answer = await self.send("POST", forms[0].action, cookie, body=urlencode(fields).encode())
        return {}

    async def form(self, path: str, fields: Mapping[str, str | None], *headers: tuple[str, str]) -> Answer:
        text = urlencode({name: value for name, value in fields.items() if value is not None})
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        return await self.send("POST", self.path(path), kind, *headers, body=text.encode())

    async def redeem(self, client: str, code: str, **fields: str | None) -> Answer:
        wanted = {
            "grant_type": "authorization_code",
            "client_id": client,
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER,
            "resource": f"{BASE}/mcp",
            **fields,
        }
        return await self.form("/token", wanted)

    async def refresh(self, client: str, text: str, **fields: str | None) -> Answer:
        return await self.form(
            "/token", {"grant_type": "refresh_token", "client_id": client, "refresh_token": text, **fields}
        )

    async def works(self, token: str) -> int:
        """What the MCP endpoint answers to this access token."""
        return (await self.rpc("tools/list", None, bearer(token), peer=99)).status

    def path(self, path: str) -> str:
        return self.server.deployment.prefix + path


Step = Callable[[Actor], Awaitable[None]]


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


def shape(text: str) -> str:
    """A random text reduced to what is not random about it."""
    return re.sub(r"[A-Za-z0-9_-]{16,}", lambda found: f"<{min(len(found[0]), 99)}>", text)


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return found


def header_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    return found
