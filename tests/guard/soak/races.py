"""A worker that races: `python -m tests.guard.soak.races SETTINGS` tries what it is told to, many times at once.

SETTINGS is JSON: the `store`'s URL, the `ring`, and the `client` that codes belong to. Each line of input is a round:
`kind`, the `item` that is good for one use, and how many `tries` to make. Each line of output says how many succeeded.
Every try goes through the endpoint or the layer that decides, as a request does.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from mcp_guard.asgi import ASGIApp, Receive, Scope, Send
from mcp_guard.check import compile_layers
from mcp_guard.clock import SystemClock
from mcp_guard.facts import Principal
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.request_state import RequestState
from mcp_guard.layers.session import Session
from mcp_guard.oauth import AuthorizationServer
from mcp_guard.sessions import SessionTerms
from mcp_guard.stores.base import Claim
from mcp_guard.stores.valkey import ValkeyStore
from tests.guard.asgi import body, drive, http_scope, read_all, start
from tests.guard.oauth.flow import ISSUER, KEYS, REDIRECT, RESOURCE, SCOPES, UNLIMITED, USERS, VERIFIER
from tests.guard.stubs import Facts

TOOL = "pay"
MODERN = [(b"mcp-protocol-version", b"2026-07-28")]
FORM = [(b"content-type", b"application/x-www-form-urlencoded")]

Attempt = Callable[[Any], Awaitable[bool]]


def server_on(store: ValkeyStore) -> AuthorizationServer:
    """The embedded authorization server on this store."""
    return AuthorizationServer(
        issuer=ISSUER,
        store=store,
        users=USERS,
        resources=[RESOURCE],
        scopes=SCOPES,
        keys=KEYS,
        clock=SystemClock(),
        limits=UNLIMITED,
        name="Races",
    )


async def paying(scope: Scope, receive: Receive, send: Send) -> None:
    """An app whose tool does something that must not be done twice."""
    await read_all(receive)
    await send(start(200, (b"content-type", b"application/json")))
    await send(body(b'{"jsonrpc":"2.0","id":1,"result":{"paid":true}}'))


async def opening(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that hands out the session id that it is told to."""
    await read_all(receive)
    wanted = dict(scope["headers"])[b"x-wanted"]
    await send(start(200, (b"content-type", b"application/json"), (b"mcp-session-id", wanted)))
    await send(body(b"{}"))


def retry(state: str) -> bytes:
    """The retry of a call with the state that the app gave out."""
    params = {"name": TOOL, "arguments": {"amount": 5}, "requestState": state}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()


INITIALIZE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}).encode()


class Racer:
    """What can be tried, each on the state that all workers share."""

    def __init__(self, store: ValkeyStore, ring: KeyRing, client: str) -> None:
        self.store, self.client = store, client
        self.server = server_on(store)
        people: dict[bytes, Principal] = Facts().people
        layer = RequestState(ring=ring, store=store, single_use=frozenset({TOOL}))
        self.paying: ASGIApp = compile_layers((Facts(people), layer), paying)
        # Sessions that are soon over, so that their number is not what decides.
        brief = SessionTerms(ttl=timedelta(seconds=5), per_principal=10_000)
        session = Session(store=store, ring=ring, terms=brief)
        self.opening: ASGIApp = compile_layers((Facts(people), session), opening)
        self.attempts: Mapping[str, Attempt] = {
            "code": self.code,
            "refresh": self.refresh,
            "state": self.state,
            "proof": self.proof,
            "session": self.session,
        }

    async def code(self, code: str) -> bool:
        fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER}
        return await self._token(fields)

    async def refresh(self, token: str) -> bool:
        return await self._token({"grant_type": "refresh_token", "refresh_token": token})

    async def _token(self, fields: Mapping[str, str]) -> bool:
        form = urlencode({**fields, "client_id": self.client}).encode()
        answer = await drive(self.server, http_scope("POST", "/token", FORM), form)
        assert answer.status in (200, 400), answer.sent
        return answer.status == 200

    async def state(self, state: str) -> bool:
        answer = await drive(self.paying, http_scope(headers=MODERN), retry(state))
        assert answer.status in (200, 400), answer.sent
        return answer.status == 200

    async def proof(self, item: list[Any]) -> bool:
        identifier, issued = item
        (first,) = await self.store.run([Claim(f"mcp:proof:{identifier}", timedelta(minutes=5), float(issued))])
        return first is True

    async def session(self, session: str) -> bool:
        wanted = http_scope(headers=[(b"x-wanted", session.encode())])
        answer = await drive(self.opening, wanted, INITIALIZE)
        assert answer.status in (200, 503), answer.sent
        return answer.status == 200


async def main() -> None:
    """Race until there is nothing more to do."""
    settings = json.loads(sys.argv[1])
    store = ValkeyStore(settings["store"], deadline=timedelta(seconds=10))
    await store.start()
    racer = Racer(store, KeyRing.parse(settings["ring"]), settings["client"])
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        told = json.loads(line)
        attempt = racer.attempts[told["kind"]]
        results = await asyncio.gather(*[attempt(told["item"]) for _ in range(told["tries"])])
        print(sum(results), flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
