"""Requests that are almost right, as bytes: a good one of each kind, changed in one to three places.

Everything is drawn from a `random.Random` that the caller seeds, so that a seed names a request for ever.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

MODERN = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": MODERN}


@dataclass
class Draft:
    """A request on its way to become bytes. `cuts` are the sizes of the chunks, when there are any."""

    method: bytes = b"POST"
    target: bytes = b"/mcp"
    version: bytes = b"HTTP/1.1"
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] | None = None

    def encoded(self) -> bytes:
        lines = [b"%s %s %s" % (self.method, self.target, self.version)]
        lines += [b"%s: %s" % pair for pair in self.fields]
        if self.trailers is not None:
            lines.append(b"Transfer-Encoding: chunked")
            ending = b"".join(b"%s: %s\r\n" % pair for pair in self.trailers)
            chunk = b"%x\r\n%s\r\n" % (len(self.body), self.body) if self.body else b""
            return b"\r\n".join(lines) + b"\r\n\r\n" + chunk + b"0\r\n" + ending + b"\r\n"
        if self.body or self.method == b"POST":
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


def modern(method: str, params: dict[str, Any], name: str | None = None) -> Callable[[bytes], Draft]:
    def make(host: bytes) -> Draft:
        message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {**params, "_meta": META}}
        fields = [*common(host), (b"MCP-Protocol-Version", MODERN.encode()), (b"Mcp-Method", method.encode())]
        if name is not None:
            fields.append((b"Mcp-Name", name.encode()))
        return Draft(fields=fields, body=json.dumps(message).encode())

    return make


def legacy(body: object, version: str | None = "2025-11-25") -> Callable[[bytes], Draft]:
    def make(host: bytes) -> Draft:
        fields = [*common(host), (b"Mcp-Session-Id", b"s1")]
        if version is not None:
            fields.append((b"MCP-Protocol-Version", version.encode()))
        return Draft(fields=fields, body=json.dumps(body).encode())

    return make


def bodiless(method: bytes) -> Callable[[bytes], Draft]:
    return lambda host: Draft(method, fields=[*common(host), (b"Mcp-Session-Id", b"s1")])


def common(host: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"Host", host),
        (b"Content-Type", b"application/json"),
        (b"Accept", b"application/json, text/event-stream"),
        (b"User-Agent", b"python-httpx/0.28.1"),
    ]


CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami", "arguments": {"a": [1, {}]}}}
PING = {"jsonrpc": "2.0", "id": "x", "method": "ping"}
NOTE = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
REPLY = {"jsonrpc": "2.0", "id": 3, "result": {"roots": []}}

GOOD: tuple[Callable[[bytes], Draft], ...] = (
    modern("tools/call", {"name": "whoami", "arguments": {"text": "é\n"}}, "whoami"),
    modern("resources/read", {"uri": "file:///a%20b"}, "file:///a%20b"),
    modern("prompts/get", {"name": "größe"}, "=?base64?Z3LDtsOfZQ==?="),
    modern("tools/list", {}),
    legacy(CALL),
    legacy(NOTE),
    legacy(REPLY),
    legacy([CALL, PING], "2025-03-26"),
    legacy(PING, None),
    bodiless(b"GET"),
    bodiless(b"DELETE"),
)

IN_TARGETS = (
    b"/", b"//", b"/.", b"/..", b"/./", b"/../", b"%2e", b"%2E%2e", b"%2f", b"%5c", b"%70", b"%00", b"%c0%af", b"%",
    b"%zz", b"%C3%A9", b"%c3%a9", b";", b";x=1", b"?", b"?a=b", b"#", b"#x", b"\\", b"*", b"@", b":", b"+", b"%20",
    b"http://evil.example", b"mcp", b"MCP", b"\xc3\xa9", b"%25", b"%252f", b"~", b"a", b"|", b"%E2%80%8B", b"%7f",
)  # fmt: skip
IN_FIELDS = (
    b" ", b"\t", b"\xa0", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\x00", b"\x01", b"\x7f", b"\r", b"\n", b"\r\n ", b",",
    b", ", b";", b'"', b"\xff", b"a", b"=?base64?d2hvYW1p?=", b"=?base64?", b"?=", b":",
)  # fmt: skip
NAMES = (
    b"Host", b"Origin", b"Content-Type", b"Content-Length", b"Transfer-Encoding", b"Content-Encoding", b"DPoP",
    b"Mcp-Method", b"Mcp-Name", b"Mcp-Session-Id", b"MCP-Protocol-Version", b"Last-Event-ID", b"Range", b"Connection",
    b"X-Original-URL", b"X-HTTP-Method-Override", b"X-Forwarded-For", b"X-Forwarded-Proto", b"Forwarded", b"Expect",
    b"Mcp_Method", b"mcp_name", b"Content_Length", b"X_Y", b"Upgrade", b"TE", b"Trailer",
)  # fmt: skip
VALUES = (
    b"", b"0", b"1", b"5", b"+5", b"1_0", b"chunked", b"Chunked", b"gzip", b"gzip, chunked", b"identity", b"tools/call",
    b"tools/list", b"whoami", b"add", b"evil.example", b"2025-11-25", b"2026-07-28", b"application/json", b"text/plain",
    b"application/json; charset=utf-8", b"close", b"100-continue", b"websocket", b"h2c", b"DELETE", b"https", b"s1",
)  # fmt: skip
METHODS = (b"POST", b"GET", b"DELETE", b"HEAD", b"OPTIONS", b"PUT", b"post", b"Post", b"TRACE", b"CONNECT", b"PRI", b"")
VERSIONS = (
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/1.2",
    b"HTTP/2.0",
    b"http/1.1",
    b"",
    b"HTTP/1.1 ",
    b"HTTP/01.1",
)
MEMBERS = ("jsonrpc", "id", "method", "params", "name", "arguments", "_meta", "uri", "result", "error", "taskId")
SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    str.upper,
    str.title,
    lambda name: f"\\u{ord(name[0]):04x}{name[1:]}",
    lambda name: name.replace("s", "\u017f").replace("k", "\u212a"),
    lambda name: name + "\\u0000",
    lambda name: name + " ",
)
JSON_VALUES = (
    '"tools/list"', '"add"', '"whoami"', "{}", "[]", "null", "true", "1", "1.0", "1e0", "-0", "1E400", "NaN", "8",
    "9007199254740993", "9" * 30, '"\\ud800"', '"\\ud83d\\ude00"', '"\\/"', '"2.0"', '"a\\u0000"', '""', '"\xe9"',
)  # fmt: skip
IN_BODIES = (
    b" ", b"\xef\xbb\xbf", b"\x00", b"\xff", b"[", b"]", b"{", b"}", b",", b'"', b"\\", b"//", b"/*x*/", b"\n", b"\x0c",
    b"\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"'", b"1", b"\\u", b":",
)  # fmt: skip


def inserted(random: Random, data: bytes, tokens: tuple[bytes, ...]) -> bytes:
    """`data` with one of `tokens` at any place; now and then in place of what stood there."""
    place, token = random.randint(0, len(data)), random.choice(tokens)
    return data[:place] + token + data[place + random.choice((0, 0, 1, len(token))) :]


def change_target(random: Random, draft: Draft) -> None:
    draft.target = inserted(random, draft.target, IN_TARGETS)


def change_line(random: Random, draft: Draft) -> None:
    if random.random() < 0.5:
        draft.method = random.choice(METHODS)
    else:
        draft.version = random.choice(VERSIONS)


def change_value(random: Random, draft: Draft) -> None:
    place = random.randrange(len(draft.fields))
    name, value = draft.fields[place]
    draft.fields[place] = name, inserted(random, value, IN_FIELDS)


def change_name(random: Random, draft: Draft) -> None:
    place = random.randrange(len(draft.fields))
    name, value = draft.fields[place]
    other = (name.replace(b"-", b"_"), name.upper(), name + b" ", b" " + name, name + b"\x00", b":" + name, b"")
    draft.fields[place] = random.choice(other), value


def add_field(random: Random, draft: Draft) -> None:
    if random.random() < 0.4:
        name, value = random.choice(draft.fields)
        value = random.choice((value, *VALUES))
    else:
        name, value = random.choice(NAMES), random.choice(VALUES)
    draft.fields.insert(random.randint(0, len(draft.fields)), (name, value))


def drop_field(random: Random, draft: Draft) -> None:
    if len(draft.fields) > 1:
        del draft.fields[random.randrange(len(draft.fields))]


def send_in_chunks(random: Random, draft: Draft) -> None:
    count = random.randint(0, 3)
    draft.trailers = [(random.choice(NAMES), random.choice(VALUES)) for _ in range(count)]


def add_member(random: Random, draft: Draft) -> None:
    """Another member, or the same again in any spelling, at the beginning or end of any object of the body."""
    name = random.choice(SPELLINGS)(random.choice(MEMBERS))
    member = f'"{name}": {random.choice(JSON_VALUES)}'.encode()
    ends = [place for place, byte in enumerate(draft.body) if byte in b"{}"]
    if not ends:
        return
    place = random.choice(ends)
    if draft.body[place : place + 1] == b"{":
        draft.body = draft.body[: place + 1] + member + b", " + draft.body[place + 1 :]
    else:
        draft.body = draft.body[:place] + b", " + member + draft.body[place:]


def respell_member(random: Random, draft: Draft) -> None:
    name = random.choice(MEMBERS)
    other = random.choice(SPELLINGS)(name)
    draft.body = draft.body.replace(f'"{name}"'.encode(), f'"{other}"'.encode(), 1)


def change_body(random: Random, draft: Draft) -> None:
    draft.body = inserted(random, draft.body, IN_BODIES)


def wrap_body(random: Random, draft: Draft) -> None:
    draft.body = random.choice(
        (b"[" + draft.body + b"]", draft.body * 2, b" " + draft.body + b"\n", b"[" * 70 + draft.body + b"]" * 70)
    )


CHANGES: tuple[Callable[[Random, Draft], None], ...] = (
    change_target,
    change_target,
    change_line,
    change_value,
    change_value,
    change_name,
    add_field,
    add_field,
    drop_field,
    send_in_chunks,
    add_member,
    add_member,
    respell_member,
    change_body,
    wrap_body,
)


def hostile(random: Random, host: bytes) -> bytes:
    """The bytes of a request that is almost right; now and then of one that is."""
    draft = random.choice(GOOD)(host)
    for _ in range(random.randint(0, 3)):
        random.choice(CHANGES)(random, draft)
    data = draft.encoded()
    if random.random() < 0.1:
        end = data.find(b"\r\n\r\n")
        head, rest = data[:end], data[end:]
        data = random.choice((head.replace(b"\r\n", b"\n"), inserted(random, head, IN_FIELDS))) + rest
    return data
