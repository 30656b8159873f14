"""Odd requests, and what becomes of each on each server: the table of docs/reference/servers.md.

A cell is the status that the server answers by itself, the slug that the guard refuses with, or `PASSES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

PASSES = "passes"
SERVERS = ("serve", "httptools", "h11", "hypercorn", "granian")
"""`serve` is what `mcp-guard serve` runs on; the others are as they come."""

BODY = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
PATH, FRAMING, MALFORMED = "path_not_canonical", "framing_ambiguous", "header_malformed"
REPEATED, HOST, METHOD = "header_repeated", "host_not_allowed", "method_not_allowed"
LARGE, LONG, ENCODED = "headers_too_large", "target_too_long", "content_encoding"

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


@dataclass(frozen=True)
class Row:
    """`sent` is the request in words, `data` its bytes with HOST for the host; `handed` what the app sees of it."""

    sent: str
    data: bytes
    cells: tuple[int | str, ...]
    handed: str = ""

    def cell(self, server: str) -> int | str:
        return dict(zip(SERVERS, self.cells, strict=True))[server]


def get(target: bytes = b"/mcp", fields: bytes = b"", version: bytes = b"HTTP/1.1", method: bytes = b"GET") -> bytes:
    return b"%s %s %s\r\nHost: HOST\r\n%s\r\n" % (method, target, version, fields)


def post(fields: bytes = b"", body: bytes = BODY, version: bytes = b"HTTP/1.1") -> bytes:
    kind = b"Content-Type: application/json\r\n"
    return b"POST /mcp %s\r\nHost: HOST\r\n%s%s\r\n%s" % (version, kind, fields, body)


def length(number: bytes = b"%d" % len(BODY)) -> bytes:
    return b"Content-Length: " + number + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)


def everywhere(cell: int | str) -> tuple[int | str, ...]:
    return (cell,) * len(SERVERS)


def paths() -> Mapping[str, bytes]:
    return {
        "`//mcp`": b"//mcp",
        "`/x/../mcp`": b"/x/../mcp",
        "`/mc%70`": b"/mc%70",
        "`/mcp%2f`": b"/mcp%2f",
        "`/mcp%00`": b"/mcp%00",
        "`/mcp%c0%af`": b"/mcp%c0%af",
        "`/mcp;x=1`": b"/mcp;x=1",
        "`/mcp\\`": b"/mcp\\",
        "`/mcp%`": b"/mcp%",
    }


ROWS: tuple[Row, ...] = (
    Row("a good request", post(length()), everywhere(PASSES), "as it was sent"),
    *(Row(f"the path {text}", get(target), everywhere(PATH)) for text, target in paths().items()),
    Row("a path in raw UTF-8", get("/mcpé".encode()), (400, 400, 400, 400, PATH)),
    Row("an absolute target", get(b"http://evil.example/mcp"), (PATH, PASSES, PATH, PATH, PASSES), "its path alone"),
    Row("a fragment", get(b"/mcp#x"), (PATH, PASSES, PATH, PATH, PASSES), "the path before it"),
    Row("a fragment after the query", get(b"/mcp?a#x"), (PATH, PASSES, PATH, PATH, PASSES), "the query before it"),
    Row("the asterisk", get(b"*", method=b"OPTIONS"), everywhere(PATH)),
    Row("the method `get`", get(method=b"get"), (400, 400, METHOD, PASSES, METHOD), "`GET`"),
    Row("CONNECT", get(b"HOST", method=b"CONNECT"), (400, 400, PATH, PATH, PATH)),
    Row("HTTP/0.9 without a version", b"GET /mcp\r\n\r\n", (FRAMING, FRAMING, 400, 400, 400)),
    Row("HTTP/0.9", get(version=b"HTTP/0.9"), (FRAMING, FRAMING, FRAMING, FRAMING, 400)),
    Row("HTTP/1.2", get(version=b"HTTP/1.2"), (400, 400, FRAMING, FRAMING, 400)),
    Row("HTTP/2.0 on the line of a request", get(version=b"HTTP/2.0"), (FRAMING, FRAMING, FRAMING, FRAMING, 400)),
    Row("two Host fields", get(fields=b"Host: evil.example\r\n"), (REPEATED, REPEATED, 400, 400, REPEATED)),
    Row("no Host field", b"GET /mcp HTTP/1.1\r\nX: 1\r\n\r\n", (HOST, HOST, 400, 400, HOST)),
    Row("HTTP/1.0 without Host", b"GET /mcp HTTP/1.0\r\n\r\n", everywhere(HOST)),
    Row("blanks around a value", get(fields=b"X-Seen: \t a \t \r\n"), everywhere(PASSES), "without the blanks"),
    Row("a folded line", get(fields=b"X-Seen: a\r\n b\r\n"), (400, 400, PASSES, PASSES, 400), "one line"),
    Row(
        "line feeds alone",
        get(fields=b"X-Seen: a\r\n").replace(b"\r\n", b"\n"),
        (400, 400, PASSES, PASSES, PASSES),
        "the fields",
    ),
    Row("NUL in a value", get(fields=b"X: a\x00b\r\n"), everywhere(400)),
    Row("a control character in a value", get(fields=b"X: a\x01b\r\n"), (400, 400, MALFORMED, MALFORMED, 400)),
    Row("a name with an underscore", get(fields=b"X_Seen: 1\r\n"), everywhere(PASSES), "not the field"),
    Row("both lengths", post(length() + CHUNKED, CHUNKS + b"\r\n"), (400, 400, FRAMING, FRAMING, PASSES), "the chunks"),
    Row("chunks in HTTP/1.0", post(CHUNKED, CHUNKS + b"\r\n", b"HTTP/1.0"), (FRAMING, FRAMING, FRAMING, FRAMING, 400)),
    Row("two equal codings", post(CHUNKED * 2, CHUNKS + b"\r\n"), (400, 400, 400, 501, REPEATED)),
    Row("two equal lengths", post(length() * 2), (400, 400, PASSES, PASSES, PASSES), "one of them"),
    Row("a list of equal lengths", post(length(b"40, 40")), (400, 400, PASSES, PASSES, 400), "one of them"),
    Row("the length `+40`", post(length(b"+40")), everywhere(400)),
    Row(
        "a trailer section",
        post(CHUNKED, CHUNKS + b"X-Seen: a\r\n\r\n"),
        (PASSES, PASSES, PASSES, PASSES, PASSES),
        "no trailer; httptools: as a field",
    ),
    Row("a gzip body", post(length(b"2") + b"Content-Encoding: gzip\r\n", b"\x1f\x8b"), everywhere(ENCODED)),
    Row("GET with a body", get(fields=length(b"2")) + b"hi", everywhere(FRAMING)),
    Row("a target of 100 KB", get(b"/mcp?" + b"x" * 100_000), (400, 400, LONG, 431, 414)),
    Row("a field of 70 KB", get(fields=b"X: " + b"x" * 70_000 + b"\r\n"), (LARGE, LARGE, LARGE, 431, LARGE)),
    Row("1,000 fields", get(fields=b"X: 1\r\n" * 1000), (LARGE, LARGE, LARGE, LARGE, 431)),
    Row("an upgrade to HTTP/2", get(fields=H2C), everywhere(PASSES), "hypercorn: its first stream; else HTTP/1.1"),
)
