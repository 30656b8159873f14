"""HTTP+SSE (2024-11-05): a stream whose first event names the URL to post to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tests.support.model_server.deployment import MESSAGES_PATH
from tests.support.model_server.legacy import LegacyEra
from tests.support.model_server.principal import Principal
from tests.support.model_server.protocol import RpcError, is_request, read_message
from tests.support.model_server.sessions import Session, Sessions
from tests.support.model_server.streams import EventStream, Stream, frame
from tests.support.model_server.tools import Tools

KEY = "session_id"


class HttpSse:
    """The two endpoints of the transport."""

    def __init__(self, tools: Tools, sessions: Sessions, live: Callable[[Principal], bool]) -> None:
        self._tools = tools
        self._sessions = sessions
        self._live = live
        self._legacy = LegacyEra(tools, sessions)
        self.has = tools.has

    async def stream(self, request: Request, principal: Principal) -> Response:
        """GET: open a session and its stream."""
        if request.method != "GET":
            return JSONResponse({"error": "method_not_allowed"}, 405, headers={"Allow": "GET"})
        self._tools.require_base(principal)
        session = self._sessions.create(principal)
        if session is None:
            return JSONResponse({"error": "too many sessions"}, 429, headers={"Retry-After": "60"})
        origin = f"http://{request.headers.get('host')}" if self.has("endpoint_event_follows_host") else ""
        stream = Stream()
        session.streams.append(stream)
        endpoint = frame(None, event="endpoint", data=f"{origin}{MESSAGES_PATH}?{KEY}={session.id}")
        return EventStream(self._frames(session, stream, principal, endpoint))

    async def _frames(
        self, session: Session, stream: Stream, principal: Principal, endpoint: str
    ) -> AsyncIterator[str]:
        def alive() -> bool:
            return not session.ended and self._live(principal)

        yield endpoint
        try:
            async for one in stream.frames(alive):
                yield one
        finally:
            self._sessions.end(session)

    async def message(self, request: Request, principal: Principal) -> Response:
        """POST: a message for the session in the query; its answer goes out on the stream."""
        if request.method != "POST":
            return JSONResponse({"error": "method_not_allowed"}, 405, headers={"Allow": "POST"})
        keys = request.query_params.getlist(KEY)
        if not keys:
            return PlainTextResponse("the session id is missing", 400)
        found = self._sessions.owned(keys[0], principal, unbound=self.has("messages_unbound"))
        if len(keys) > 1 or found is None:
            return PlainTextResponse("the session is not known", 404)
        try:
            message = await read_message(request)
        except RpcError as error:
            return error.response()
        if is_request(message):
            answer = self._legacy.answer(found, request, principal, message)
            found.streams[0].put(frame(answer, event="message"))
        else:
            self._legacy.take(found, message)
        return PlainTextResponse("Accepted", 202)
