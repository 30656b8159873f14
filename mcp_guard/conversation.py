"""What is said on an open WebSocket: each message of the client is judged like the body of a POST.

A message becomes a request of its own, which passes every layer of the stack; the app that it reaches at their end is
the one on the socket. What the app answers goes back as the response of that request, so that layers which watch or
change responses do. Whatever else the app says is an event of the stream that the handshake opened. One message is
judged after the other, and answers come as they are ready.
"""

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from mcp_guard import closes, rejections
from mcp_guard.asgi import ASGIApp, Message, Receive, Scope, Send
from mcp_guard.clock import Clock
from mcp_guard.closes import Close
from mcp_guard.facts import FACTS_KEY, Call, MessageKind, Principal, RpcMessage, Socket, facts_of
from mcp_guard.protocol.event_stream import with_data, write_event
from mcp_guard.protocol.mcp import LEGACY_REVISIONS
from mcp_guard.refusal import jsonrpc_error
from mcp_guard.rejections import Rejection
from mcp_guard.sockets import EVENT_STREAM, SCHEMES, SWITCHING, Line, SocketTerms
from mcp_guard.spoken import Spoken, as_post
from mcp_guard.streams import SHUTTING_DOWN

logger = logging.getLogger("mcp_guard")

STOP_SECONDS: Final = 5.0
"""How long the app may take to end when its socket is closed."""
RETRY_SECONDS: Final = 1
JSON: Final = (b"content-type", b"application/json")
APP_SCHEMES: Final = {web: socket for socket, web in SCHEMES.items()}

Known: TypeAlias = tuple[type, object]
"""An id with its type: 1, 1.0 and True are equal in Python."""


@dataclass(eq=False, slots=True)
class Conversation:
    """One open socket. `opening` is the request that opened it, `judge` the layers around `inward`."""

    terms: SocketTerms
    clock: Clock
    line: Line
    opening: Scope
    subprotocols: tuple[str, ...]
    judge: ASGIApp
    event: Send | None = None
    inbox: asyncio.Queue[tuple[Message, Spoken | None]] = field(default_factory=asyncio.Queue)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    pending: dict[Known, Spoken] = field(default_factory=dict)
    judging: set[asyncio.Task[None]] = field(default_factory=set)
    accepted: bool = False
    revision: str | None = None
    refused: int = 0

    async def run(self, scope: Scope, send: Send, app: ASGIApp) -> None:
        """Run the app on the socket, until either ends, or the token of `scope` expires."""
        self.event = send
        self.inbox.put_nowait(({"type": "websocket.connect"}, None))
        left = facts_of(scope)[Principal].expires_at - self.clock.wall()
        serving = asyncio.ensure_future(app(self._shown(scope), self.receive, self.send))
        reading, ended = asyncio.create_task(self.read()), asyncio.create_task(self.over.wait())
        try:
            try:
                async with asyncio.timeout(left):
                    await asyncio.wait({serving, reading, ended}, return_when=asyncio.FIRST_COMPLETED)
            except TimeoutError:
                await self.end(closes.AUTHORIZATION_OVER, "the token expired")
            if not serving.done():
                self.inbox.put_nowait(({"type": "websocket.disconnect", "code": self.line.socket.code}, None))
                await asyncio.wait({serving}, timeout=STOP_SECONDS)
            for task in (serving, reading):
                if task.done():
                    task.result()
            self.line.decide(closes.ENDED)
        except asyncio.CancelledError as stop:
            reason = str(stop)
            going = reason in ("", SHUTTING_DOWN)
            self.line.decide(closes.GOING_AWAY if going else closes.AUTHORIZATION_OVER, reason or None)
            raise
        except Exception:
            self.line.decide(closes.FAILED)
            raise
        finally:
            tasks: set[asyncio.Future[Any]] = {serving, reading, ended, *self.judging}
            for one in tasks:
                one.cancel()
            await asyncio.wait(tasks)

    def _shown(self, scope: Scope) -> Scope:
        """What the app is shown: the socket, with what the layers changed of the request."""
        members = {name: value for name, value in scope.items() if name != "method"}
        scheme = APP_SCHEMES.get(scope["scheme"], scope["scheme"])
        return {**members, "type": "websocket", "scheme": scheme, "subprotocols": list(self.subprotocols)}

    async def read(self) -> None:
        """Judge one message of the client after the other."""
        while not self.over.is_set():
            message = await self.line.receive()
            if message["type"] == "websocket.disconnect":
                self.over.set()
                return
            text = message.get("text")
            if text is None:
                await self.end(closes.NOT_TEXT)
                return
            data = text.encode("utf-8", "surrogatepass")
            if len(data) > self.terms.max_message_bytes:
                await self.end(closes.MESSAGE_TOO_LARGE)
                return
            said = Spoken(data)
            task = asyncio.create_task(self.judged(said))
            self.judging.add(task)
            task.add_done_callback(self.judging.discard)
            await said.judged.wait()

    async def judged(self, said: Spoken) -> None:
        """Take a message through the layers, and say what comes of it."""
        facts: dict[type, Any] = {Socket: self.line.socket, Conversation: self, Spoken: said}
        scope = {**as_post(self.opening, said.data, self.revision), FACTS_KEY: facts}
        try:
            await self.judge(scope, said.receive, said.send)
            await self.settle(said, facts)
        except OSError:
            self.line.gone(None)
            self.over.set()
        except Exception:
            logger.exception("a message of a socket could not be judged")
            await self.end(closes.FAILED)
        finally:
            said.judged.set()
            said.done.set()

    async def take(self, said: Spoken, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a message that every layer has let through to the app, and answer it.

        Raises:
            Rejection: it cannot be told from another one, or there are too many.
        """
        message = self._told_apart(facts_of(scope)[Call])
        body = (await receive())["body"]
        self.refused = 0
        self.inbox.put_nowait(({"type": "websocket.receive", "text": body.decode()}, said))
        if message.kind is not MessageKind.REQUEST:
            await said.taken.wait()
            await respond(send, 202)
            return
        known = (type(message.id), message.id)
        self.pending[known] = said
        try:
            answer = await said.answer
        finally:
            del self.pending[known]
        if message.method == "initialize":
            self._learn(answer)
        await respond(send, 200, answer)

    def _told_apart(self, call: Call) -> RpcMessage:
        """The one message of a call, whose answer will be known."""
        if call.batch:
            raise rejections.BATCH.because("batches are not taken on WebSockets")
        message = call.messages[0]
        if message.kind is MessageKind.REQUEST:
            if (type(message.id), message.id) in self.pending:
                raise rejections.NOT_JSON_RPC.because("the id of an unanswered request is used again")
            if len(self.pending) >= self.terms.max_in_flight:
                raise rejections.limited(f"{self.terms.max_in_flight} requests are unanswered", RETRY_SECONDS)
        return message

    def _learn(self, answer: bytes) -> None:
        """Take note of the revision that the app chose: later messages are read by its rules."""
        result = json.loads(answer).get("result")
        chosen = result.get("protocolVersion") if isinstance(result, dict) else None
        if chosen in LEGACY_REVISIONS:
            self.revision = chosen

    async def settle(self, said: Spoken, facts: dict[type, Any]) -> None:
        """Say on the socket what became of a message."""
        refusal: Rejection | None = facts.get(Rejection)
        call: Call | None = facts.get(Call)
        if refusal is None and said.complete:
            if said.status != 202:
                await self.line.say(said.body.decode("utf-8", "replace"))
            return
        if refusal is None:
            refusal = rejections.GUARD_FAULT.because("the answer could not be judged")
        self.refused += 1
        if refusal.kind.status == 401:
            await self.end(closes.AUTHORIZATION_OVER, str(refusal))
        elif refusal.kind is rejections.BODY_TOO_LARGE:
            await self.end(closes.MESSAGE_TOO_LARGE)
        else:
            if call is None or call.batch or call.messages[0].kind is MessageKind.REQUEST:
                await self.line.say(jsonrpc_error(refusal, call).decode())
            if self.refused >= self.terms.max_refused:
                await self.end(closes.TOO_MANY, f"{self.refused} messages in a row were refused")

    async def end(self, close: Close, reason: str | None = None) -> None:
        """Close the socket; the app is told that the client has left."""
        await self.line.close(close, reason)
        self.over.set()

    async def receive(self) -> Message:
        """The app's `receive`. The next message is judged when it has taken this one."""
        message, said = await self.inbox.get()
        if said is not None:
            said.taken.set()
            said.judged.set()
        return message

    async def send(self, message: Message) -> None:
        """The app's `send`.

        Raises:
            RuntimeError: the app says what it cannot say here.
        """
        kind, event = message["type"], self.event
        if self.over.is_set() or event is None:
            return
        if kind == "websocket.accept" and not self.accepted:
            self.accepted = True
            if not self.line.accepted:
                self.line.subprotocol = message.get("subprotocol")
            headers = [EVENT_STREAM, *message.get("headers", ())]
            await event({"type": "http.response.start", "status": SWITCHING, "headers": headers})
        elif kind == "websocket.send" and self.accepted:
            await self._say(message.get("text"), event)
        elif kind == "websocket.close" and self.accepted:
            reason = message.get("reason") or ""
            await self.end(Close(message.get("code", 1000), reason, "the app closed it"))
        elif kind == "websocket.close":
            await respond(event, 403)
            self.over.set()
        else:
            raise RuntimeError(f"{kind} is not what a guarded socket takes now")

    async def _say(self, text: str | None, event: Send) -> None:
        """Say what the app says: the answer to a request as the response to it, anything else as an event."""
        value = None if text is None else json.loads(text)
        if text is None or not isinstance(value, dict):
            raise RuntimeError("a guarded socket carries single JSON-RPC messages in text")
        data = text.encode("utf-8", "surrogatepass")
        if "method" in value or (value.get("id") is None and "result" not in value):
            block = write_event(with_data([], data))
            await event({"type": "http.response.body", "body": block, "more_body": True})
            return
        said = self.pending.get((type(value.get("id")), value.get("id")))
        if said is None or said.answer.done():
            logger.warning("an answer of the app to no request of the socket is dropped")
            return
        said.answer.set_result(data)
        await said.done.wait()


async def respond(send: Send, status: int, body: bytes = b"") -> None:
    """A complete response."""
    await send({"type": "http.response.start", "status": status, "headers": [JSON]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def answering(app: ASGIApp) -> ASGIApp:
    """`app`, where a request that is part of a socket goes to the conversation there."""

    async def inward(scope: Scope, receive: Receive, send: Send) -> None:
        facts = facts_of(scope)
        conversation: Conversation | None = facts.get(Conversation)
        if conversation is None:
            await app(scope, receive, send)
            return
        said: Spoken | None = facts.get(Spoken)
        if said is None:
            await conversation.run(scope, send, app)
        else:
            await conversation.take(said, scope, receive, send)

    return inward
