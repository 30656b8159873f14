"""One exchange: one scope copy, one send wrapper, refusals.

Every check that admitted the request leaves an `Admission`; together they say what the app is shown and what becomes of
its response. A refusal is sent the same way as a response of the app, so that headers and observers of the layers
further out apply to it too. Whatever is not a `Rejection` refuses with 503.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

from mcp_guard import rejections
from mcp_guard.asgi import ASGIApp, Message, RawHeaders, Receive, Scope, Send
from mcp_guard.body import Body
from mcp_guard.delivery import Delivery
from mcp_guard.facts import FACTS_KEY, Call
from mcp_guard.failures import Unavailable
from mcp_guard.layer import (
    ADMITTED,
    Admission,
    Around,
    ClientDisconnected,
    RequestHead,
    ResponseCut,
)
from mcp_guard.refusal import FIELDS, body_of, guard_fault, unavailable
from mcp_guard.rejections import Rejection
from mcp_guard.said import SaidFields
from mcp_guard.stores.base import Store
from mcp_guard.watches import Watches

logger = logging.getLogger("mcp_guard")

HEAD_MEMBERS = frozenset({"headers", "method", "path", "query_string", "raw_path"})
"""What a `RequestHead` takes from the scope; when none of it changes, the same head goes on inward."""

CLOSING_SECONDS = 1.0
"""How long the end of a response that is ended from outside may take to be handed to the server."""


NOTHING_SAID = SaidFields()
"""Takes the place of what was said, once a response has begun."""


class Step(Protocol):
    """One or more checks that decide together."""

    async def decide(self, exchange: "Exchange") -> bool:
        """Run the checks. Answers True when the request goes on to the next step."""


@dataclass(eq=False, slots=True)
class Exchange:
    """One request and its response."""

    outer_scope: Scope
    outer_receive: Receive
    outer_send: Send
    scope: Scope = field(init=False)
    facts: dict[type, Any] = field(init=False)
    body: Body = field(init=False)
    request: RequestHead = field(init=False)
    last: Admission = ADMITTED
    said: SaidFields = field(default_factory=SaidFields)
    arounds: list[Around] = field(default_factory=list)
    watches: Watches = field(default_factory=Watches)
    delivery: Delivery = field(init=False)
    started: bool = False
    refused: bool = False

    def __post_init__(self) -> None:
        # Some servers append trailers to the live header list: whatever is decided on is a copy from before receive().
        self.scope = {**self.outer_scope, "headers": list(self.outer_scope["headers"])}
        self.facts = self.scope.setdefault(FACTS_KEY, {})
        self.body = Body(self.outer_receive)
        self.delivery = Delivery(self.outer_send)
        self.request = RequestHead(self.scope, self.facts, self.body.read, self.delivery)

    async def run(self, steps: Sequence[Step], app: ASGIApp) -> None:
        """Take the exchange through the steps and to the app, and see it to its end."""
        # One frame for all of it: while a stream is open, each frame below it costs memory.
        try:
            try:
                for step in steps:
                    if not await step.decide(self):
                        break
                await self.respond(app)
            except (Rejection, Unavailable) as fault:
                await self.refuse(fault if isinstance(fault, Rejection) else unavailable(fault))
            except (ClientDisconnected, ResponseCut):
                raise
            except Exception:
                logger.exception("a guard layer failed; the request is refused")
                await self.refuse(guard_fault())
        except ClientDisconnected:
            logger.debug("the client went away before its request was complete")
        except ResponseCut as cut:
            logger.warning("a response was cut: %s", cut)
        finally:
            self.watches.end()

    def admit(self, admission: Admission, store: Store | None = None) -> bool:
        """Take note of what a check said. Answers True when the request goes on to the next step."""
        # Said by most layers of every request: taken apart at once, which is cheaper than to ask for it by name.
        facts, fixed, defaults, hide, members, body, watch, rewrite, around, answer, divert = admission
        for fact in facts:
            self.facts[type(fact)] = fact
        if watch is not None or rewrite is not None:
            self.watches.add(watch, rewrite, store)
        if around is not None:
            self.arounds.append(around)
        if fixed or defaults:
            self.said.take(admission)
        if hide and not hide.isdisjoint(self.request.fields):
            self.show({"headers": [pair for pair in self.request.headers if pair[0] not in hide]})
        if members:
            self.show(members)
        if body is not None:
            self.show_body(body)
        self.last = admission
        return answer is None and divert is None

    def show(self, members: Mapping[str, Any]) -> None:
        """Change what the layers further in and the app are shown of the request."""
        self.scope.update(members)
        if not HEAD_MEMBERS.isdisjoint(members):
            self.request = RequestHead(self.scope, self.facts, self.body.read, self.delivery)

    def show_body(self, body: bytes) -> None:
        """Put another body in the place of the client's."""
        length = (b"content-length", str(len(body)).encode())
        self.body.content = body
        self.show({"headers": [length if pair[0] == b"content-length" else pair for pair in self.request.headers]})

    def respond(self, app: ASGIApp) -> Coroutine[Any, Any, None]:
        """Give the answer of a layer, or call the app that the request is for."""
        answer, divert = self.last.answer, self.last.divert
        self.last = ADMITTED
        if answer is not None:
            return self.send_whole(answer.status, list(answer.headers), answer.body)
        return self.call(app if divert is None else divert)

    async def call(self, app: ASGIApp) -> None:
        """Run the app within the `arounds`; a failure of its own before it responds becomes a plain 500."""
        with within(self.arounds):
            # A stream may be open for hours: what it needs no more is let go of.
            del self.request, self.arounds
            self.delivery.begin()
            stopped = False
            try:
                await app(self.scope, self.body.receive, self.send)
            except (Rejection, Unavailable, ResponseCut):
                raise
            except asyncio.CancelledError:
                stopped = self.delivery.over()
                if not stopped:
                    raise
            except Exception:
                logger.exception("the guarded app failed")
                await self.refuse(rejections.APP_FAULT.because("the app raised an exception"))
            finally:
                stopped = self.delivery.over() or stopped
            if stopped:
                await self.finish()

    async def finish(self) -> None:
        """End a response that was ended from outside; one that had not begun becomes a refusal."""
        reason = self.delivery.reason or ""
        logger.info("a response was ended: %s", reason)
        if not self.started:
            await self.refuse(unavailable(Unavailable(reason)))
            return
        if self.refused:
            return
        self.refused = True
        if self.delivery.is_cut:
            raise ResponseCut(reason)
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await self.outer_send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            raise ResponseCut(f"{reason}; the client does not read") from None

    async def send(self, message: Message) -> None:
        """The app's `send`: shows the response to the watches and adds what the checks said."""
        # An app that does not stop when it is told to sends nothing more.
        if self.refused or self.delivery.stopping:
            return
        kind = message["type"]
        if kind == "http.response.start":
            await self.send_start(message)
        elif kind == "http.response.body":
            await self.send_body(message)
        elif not self.started:
            logger.debug("%s is not passed on: nothing goes out before the start of the response", kind)
        elif kind != "http.response.trailers" and self.watches.want_body:
            self.cut(f"{kind} carries a body that cannot be judged")
        else:
            await self.outer_send(message)

    async def send_start(self, message: Message) -> None:
        if self.started:
            if self.body.gone:
                # The SDK answers an HTTP+SSE stream once more when its client has left; nobody is there to hear it.
                return
            raise RuntimeError("the app started its response twice")
        status, headers = message["status"], list(message.get("headers", ()))
        try:
            headers = await self.watches.on_start(status, headers)
        except (Rejection, Unavailable) as fault:
            await self.refuse(fault if isinstance(fault, Rejection) else unavailable(fault))
            return
        except Exception:
            logger.exception("a guard layer failed; the response is refused")
            await self.refuse(guard_fault())
            return
        self.started = True
        if self.scope["type"] == "websocket":
            # Closed before it is accepted; servers answer such a handshake with 403.
            self.refused = True
            await self.outer_send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        headers, self.said = self.said.on(headers), NOTHING_SAID
        await self.outer_send({**message, "headers": headers})

    async def send_body(self, message: Message) -> None:
        if not self.started:
            raise RuntimeError("the app sent a body before it started its response")
        chunk, more = message.get("body", b""), message.get("more_body", False)
        try:
            passed = await self.watches.on_body(chunk, more)
        except (Rejection, Unavailable) as fault:
            self.cut(str(fault))
        except Exception:
            logger.exception("a guard layer failed; the response is cut")
            self.cut(str(guard_fault()))
        else:
            if passed is chunk:
                await self.delivery.body(message)
            elif passed or not more:
                await self.delivery.body({**message, "body": passed})

    def cut(self, reason: str) -> None:
        """End a response that has begun: nothing more is sent, and the server closes the connection.

        Raises:
            ResponseCut: always, to unwind the app.
        """
        self.refused = True
        raise ResponseCut(reason)

    async def refuse(self, rejection: Rejection) -> None:
        """Send a refusal in place of the app's response; when that has begun, cut it."""
        # Kept as a fact, it must not hold on to the frames that hold the facts: nothing waits for the cycle collector.
        rejection.__traceback__ = rejection.__context__ = rejection.__cause__ = None
        self.facts.setdefault(Rejection, rejection)
        if self.refused:
            return
        if self.started:
            self.cut(str(rejection))
        body = body_of(rejection, self.facts.get(Call))
        await self.send_whole(rejection.kind.status, [*FIELDS, *rejection.headers], body)
        self.refused = True

    async def send_whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a complete response through the watches; to HEAD, its header section alone (RFC 9110 §9.3.2)."""
        names = {name for name, _ in headers}
        if b"content-length" not in names:
            headers = [*headers, (b"content-length", str(len(body)).encode())]
        if self.scope.get("method") == "HEAD":
            body = b""
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


def within(arounds: Sequence[Around]) -> AbstractContextManager[Any]:
    """All of them as one, the first outermost."""
    if len(arounds) == 1:
        return arounds[0]()
    with ExitStack() as entered:
        for around in arounds:
            entered.enter_context(around())
        return entered.pop_all()
