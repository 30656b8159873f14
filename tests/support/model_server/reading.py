"""Reading the body of a POST: bounded, UTF-8, unambiguous JSON; and the ways in which a fault reads it otherwise."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import anyio
from starlette.requests import Request

from tests.support.model_server.keys import JSON
from tests.support.model_server.strict import strict_json
from tests.support.model_server.verification import Crashed

BODY_BYTES = 1 << 20


class TooLarge(Exception):
    """The body is longer than BODY_BYTES."""


class Reader:
    """Reads bodies for one server."""

    def __init__(self, has: Callable[[str], bool]) -> None:
        self._one_at_a_time = anyio.Lock()
        self.has = has

    async def value(self, request: Request) -> Any:
        """The JSON value of a body, which is kept for whoever reads it again.

        Raises:
            TooLarge: there is too much of it. ValueError: not JSON, not UTF-8, nested too deeply, ambiguous, or
            encoded. Crashed: a fault does not expect that.
        """
        data = await self._body(request)
        if request.headers.get("content-encoding") == "gzip" and self.has("gzip_bombs_expand"):
            data = gzip.decompress(data)
        try:
            return self._parsed(data)
        except (ValueError, RecursionError) as error:
            if any(self.has(fault) for fault in _crashes(error)):
                raise Crashed(str(error)) from error
            raise

    async def executed(self, request: Request, judged: JSON) -> JSON:
        """The message that is carried out where `judged` was judged: the same, but for a fault that reads it anew."""
        if self.has("last_duplicate_runs"):
            return dict(json.loads(await request.body()))
        if self.has("first_duplicate_runs"):
            return dict(_first_of_duplicates(await request.body()))
        if self.has("members_of_other_case_run") and isinstance(judged.get("params"), dict):
            return {**judged, "params": {name.lower(): value for name, value in judged["params"].items()}}
        return judged

    async def _body(self, request: Request) -> bytes:
        if self.has("slow_bodies_block"):
            async with self._one_at_a_time:
                return await self._bounded(request)
        return await self._bounded(request)

    async def _bounded(self, request: Request) -> bytes:
        has = self.has
        if has("body_unbounded") or has("chunked_body_unbounded") or hasattr(request, "_body"):
            return await request.body()
        read = bytearray()
        async for piece in request.stream():
            read += piece
            if len(read) > BODY_BYTES:
                raise TooLarge
        request._body = bytes(read)
        return request._body

    def _parsed(self, data: bytes) -> Any:
        has = self.has
        if has("utf_16_is_read"):
            return json.loads(data)
        if has("broken_utf_8_is_replaced"):
            return strict_json(data.decode("utf-8", "replace").encode())
        if has("text_behind_json_ignored"):
            return json.JSONDecoder().raw_decode(data.decode("utf-8").lstrip())[0]
        if has("last_duplicate_runs"):
            return _first_of_duplicates(data)
        if has("first_duplicate_runs"):
            return json.loads(data)
        return strict_json(data)


def _first_of_duplicates(data: bytes) -> Any:
    return json.loads(data, object_pairs_hook=lambda pairs: dict(reversed(pairs)))


def _crashes(error: Exception) -> Iterator[str]:
    """The faults that end in a crash where a sound server says what is wrong with the body."""
    yield "bad_json_is_500"
    if "nested" in str(error):
        yield "deep_json_is_500"
    if "surrogate" in str(error):
        yield "lone_surrogate_is_500"
    if "infinite" in str(error):
        yield "infinity_is_500"
