"""The Streamable HTTP endpoint of both eras."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.support.model_server.keys import JSON
from tests.support.model_server.legacy import LegacyEra
from tests.support.model_server.modern import ModernEra
from tests.support.model_server.principal import Principal
from tests.support.model_server.protocol import (
    HEADER_MISMATCH,
    INVALID_REQUEST,
    LEGACY,
    META_VERSION,
    RpcError,
    is_request,
    meta_of,
    read_message,
    refuse_form,
)
from tests.support.model_server.sessions import Session, Sessions
from tests.support.model_server.streams import EventStream
from tests.support.model_server.tools import Tools

SESSION = "mcp-session-id"
VERSION = "mcp-protocol-version"
UNBOUND = {"GET": "session_unbound_on_get", "DELETE": "session_unbound_on_delete"}


class StreamableHttp:
    """Decides the era of each request by itself, never from the connection."""

    def __init__(self, tools: Tools, sessions: Sessions, live: Callable[[Principal], bool]) -> None:
        self._tools = tools
        self._sessions = sessions
        self._live = live
        self._modern = ModernEra(tools)
        self._legacy = LegacyEra(tools, sessions)
        self.has = tools.has

    async def serve(self, request: Request, principal: Principal) -> Response:
        """The answer to an authenticated request.

        Raises:
            Refused: a scope is missing.
        """
        version = request.headers.get(VERSION)
        newest = version is None and await self._is_taken_for_newest(request)
        if newest or (version is not None and version not in LEGACY):
            if request.method != "POST":
                return _not_allowed("POST")
            return refuse_form(request) or await self._post_modern(request, principal)
        if request.method == "POST":
            return refuse_form(request) or await self._post(request, principal)
        if request.method not in {"GET", "DELETE"} or (version is None and SESSION not in request.headers):
            return _not_allowed("GET, POST, DELETE")
        found = self._session(request, principal, UNBOUND[request.method])
        if isinstance(found, Response):
            return found
        self._tools.require_base(principal)
        return self._get(request, principal, found) if request.method == "GET" else self._delete(found)

    async def _is_taken_for_newest(self, request: Request) -> bool:
        """Whether a fault serves a request without version header as the stateless era would."""
        if request.method != "POST" or not self.has("missing_version_is_newest"):
            return False
        try:
            return META_VERSION in meta_of(await read_message(request))
        except RpcError:
            return False

    async def _post_modern(self, request: Request, principal: Principal) -> Response:
        try:
            message = await read_message(request)
        except RpcError as error:
            return self._unread(error)
        return await self._modern.post(request, principal, message)

    def _unread(self, error: RpcError) -> Response:
        """The answer to a body that holds no message."""
        return error.response("server-error" if self.has("error_id_made_up") else None)

    async def _post(self, request: Request, principal: Principal) -> Response:
        try:
            message = await read_message(request)
        except RpcError as error:
            return self._unread(error)
        if META_VERSION in meta_of(message):
            return RpcError(HEADER_MISMATCH, "MCP-Protocol-Version differs from _meta").response(message.get("id"))
        if message.get("method") == "initialize" and is_request(message):
            return self._initialize(request, principal, message)
        found = self._session(request, principal, self._waiver(message))
        if isinstance(found, Response):
            return found
        if is_request(message):
            return self._request(found, request, principal, message)
        self._tools.require_base(self._legacy.effective(found, request, principal))
        self._legacy.take(found, message)
        return Response(status_code=202)

    def _waiver(self, message: JSON) -> str:
        """The fault that lets strangers send this message into a session."""
        if "method" not in message:
            return "elicitation_unbound"
        return "session_unbound" if "id" in message else "session_unbound_for_notifications"

    def _initialize(self, request: Request, principal: Principal, message: JSON) -> Response:
        self._tools.require_base(principal)
        session = self._sessions.create(principal, request.headers.get(SESSION))
        if session is None:
            return JSONResponse({"error": "too many sessions"}, 429, headers={"Retry-After": "60"})
        answer = self._legacy.answer(session, request, principal, message)
        if "error" in answer:
            self._sessions.end(session)
            return JSONResponse(answer, 400)
        return JSONResponse(answer, headers={SESSION: session.id})

    def _session(self, request: Request, principal: Principal, waiver: str) -> Session | Response:
        """The caller's session, or the answer 400 (none named) or 404 (none of the caller's)."""
        has, ids = self.has, request.headers.getlist(SESSION)
        if not ids or ids == [""]:
            if has("missing_session_is_served") or (has("calls_before_initialize") and request.method == "POST"):
                return self._makeshift(principal)
            return RpcError(INVALID_REQUEST, "the session id is missing").response()
        found = self._sessions.owned(ids[0], principal, unbound=has(waiver)) if len(ids) == 1 else None
        if found is not None:
            return found
        if has("unknown_session_is_served") and self._sessions.find(ids[0]) is None:
            return self._makeshift(principal)
        if has("stolen_session_is_403") and self._sessions.find(ids[0]) is not None:
            return RpcError(INVALID_REQUEST, "the session is somebody else's").response(status=403)
        status = 400 if has("unknown_session_is_400") else 404
        return RpcError(INVALID_REQUEST, "the session is not known").response(status=status)

    def _makeshift(self, principal: Principal) -> Session:
        session = Session("", principal, 0)
        session.initialized = True
        return session

    def _request(self, session: Session, request: Request, principal: Principal, message: JSON) -> Response:
        effective = self._legacy.effective(session, request, principal)
        if self._legacy.asks(session, effective, message):
            self._tools.authorize("ask", effective)
            return EventStream(self._legacy.ask(session, message))
        return JSONResponse(self._legacy.answer(session, request, principal, message))

    def _get(self, request: Request, principal: Principal, session: Session) -> Response:
        if "text/event-stream" not in request.headers.get("accept", "") and request.headers.get("accept") != "*/*":
            return JSONResponse({"error": "accept text/event-stream"}, 406)
        stream = session.open_stream(self._resumed(session, request.headers.get("last-event-id", "")))
        for text in self._missed(session, request.headers.get("last-event-id", "")):
            stream.put(text)

        def alive() -> bool:
            return not session.ended and self._live(principal)

        return EventStream(stream.frames(alive))

    def _resumed(self, session: Session, last: str) -> str | None:
        """The stream that an event of this session belongs to."""
        return next((stream_id for event_id, stream_id, _ in session.events if event_id == last), None)

    def _missed(self, session: Session, last: str) -> list[str]:
        """What followed the event on its own stream."""
        searched = self._sessions.every() if self.has("events_replayed_to_anyone") else [session]
        for one in searched:
            events = list(one.events)
            ids = [event_id for event_id, _, _ in events]
            if last in ids:
                _, own, _ = events[ids.index(last)]
                across = self.has("events_replayed_across_streams")
                return [text for _, stream, text in events[ids.index(last) + 1 :] if across or stream == own]
        return []

    def _delete(self, session: Session) -> Response:
        self._sessions.end(session)
        return Response(status_code=204)


def _not_allowed(allowed: str) -> Response:
    return JSONResponse({"error": "method_not_allowed"}, 405, headers={"Allow": allowed})
