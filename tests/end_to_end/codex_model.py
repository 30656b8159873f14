"""A scripted model for the Codex CLI: asks for one tool, then says it is done (Responses API, server-sent events)."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Model:
    """What the CLI said to the model; `url` is the base URL for `[model_providers.*]`."""

    tool: str
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)

    def tool_outputs(self) -> list[str]:
        """What the tools answered, as the CLI reported it."""
        return [
            json.dumps(item["output"])
            for request in self.requests
            for item in request.get("input", [])
            if item.get("type") == "function_call_output"
        ]

    def answer(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """The events of the next answer."""
        self.requests.append(request)
        done = any(item.get("type") == "function_call_output" for item in request.get("input", []))
        item = _message("done") if done else self._call(request)
        return [
            {"type": "response.created", "response": {"id": "resp_1"}},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": {"id": "resp_1", "output": [item], "usage": _usage()}},
        ]

    def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        for namespace, tool in _functions(request.get("tools", [])):
            if tool["name"].endswith(self.tool):
                call = {"type": "function_call", "call_id": "call_1", "name": tool["name"], "arguments": "{}"}
                return call if namespace is None else {**call, "namespace": namespace}
        return _message("there is no such tool")


def _functions(tools: list[dict[str, Any]]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    for tool in tools:
        if tool.get("type") == "namespace":
            for inner in tool.get("tools", []):
                yield tool["name"], inner
        elif "name" in tool:
            yield None, tool


def _message(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def _usage() -> dict[str, Any]:
    return {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 2,
    }


@contextmanager
def scripted_model(tool: str) -> Iterator[Model]:
    """A model on a loopback port that asks for the tool whose name ends in `tool`."""
    model = Model(tool)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            events = model.answer(json.loads(body)) if self.path.endswith("/responses") else []
            data = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    model.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
