"""What a request is when it goes from one worker to another: its scope, and the facts that were learned of it.

Facts are written from what the layers found and read back as such; no header field becomes one. Of a `Call` the
parameters of its messages are left out: they are in the body. The members of a scope that belong to one process (its
extensions, what frameworks add) stay where they are; the state of the lifespan is that of the worker that answers.
"""

import json
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders, Scope
from mcp_guard.facts import (
    FACTS_KEY,
    Call,
    ClientAddress,
    Confirmation,
    MessageKind,
    Principal,
    RequestId,
    Resource,
    RpcMessage,
    ScopePolicy,
    SessionHandle,
    Transport,
    facts_of,
)
from mcp_guard.rejections import Rejection

TEXTS = ("http_version", "method", "scheme", "path", "root_path")
OCTETS = ("raw_path", "query_string")
ADDRESSES = ("client", "server")
POLICY_PARTS = ("methods", "tools", "prompts", "uris", "implies")

Plain = list[Any]


def write_request(scope: Scope) -> bytes:
    """The request of a scope and its facts, as JSON."""
    facts = facts_of(scope)
    return _json(
        {
            **{name: scope[name] for name in (*TEXTS, *ADDRESSES) if name in scope},
            **{name: scope[name].decode("latin-1") for name in OCTETS if scope.get(name) is not None},
            "headers": _write_headers(scope["headers"]),
            "facts": {kind.__name__: write(facts[kind]) for kind, write in WRITE.items() if kind in facts},
        }
    )


def read_request(content: bytes) -> Scope:
    """The scope that `write_request` wrote, for the app of this process.

    Raises:
        ValueError: it is none.
    """
    try:
        told = json.loads(content)
        facts = [READ[name](*plain) for name, plain in told["facts"].items()]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            **{name: told[name] for name in TEXTS if name in told},
            **{name: told[name].encode("latin-1") for name in OCTETS if name in told},
            **{name: None if told[name] is None else tuple(told[name]) for name in ADDRESSES if name in told},
            "headers": _read_headers(told["headers"]),
            FACTS_KEY: {type(fact): fact for fact in facts},
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"a request of another worker cannot be read: {type(error).__name__}") from None


def write_start(status: int, headers: RawHeaders, refusal: Rejection | None) -> bytes:
    """The start of a response, and why it is a refusal, if it is one, for the audit of the worker that asked."""
    why = None if refusal is None else (refusal.kind.slug, refusal.reason)
    return _json([status, _write_headers(headers), why])


def read_start(content: bytes) -> tuple[int, RawHeaders, Rejection | None]:
    """What `write_start` wrote."""
    status, headers, why = json.loads(content)
    refusal = None if why is None else rejections.KINDS[why[0]].because(why[1])
    return status, _read_headers(headers), refusal


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _write_headers(headers: RawHeaders) -> list[str]:
    return [text.decode("latin-1") for pair in headers for text in pair]


def _read_headers(texts: list[str]) -> RawHeaders:
    octets = [text.encode("latin-1") for text in texts]
    return list(zip(octets[::2], octets[1::2], strict=True))


def _write_principal(one: Principal) -> Plain:
    rest = [sorted(one.scopes), one.expires_at, one.token_fingerprint, dict(one.claims), list(one.confirmation)]
    return [*one.identity, *rest]


def _read_principal(issuer: str, subject: str, client: str, tenant: str | None, *rest: Any) -> Principal:
    scopes, expires_at, fingerprint, claims, bound = rest
    confirmation = Confirmation(*bound)
    return Principal(issuer, subject, client, tenant, frozenset(scopes), expires_at, fingerprint, claims, confirmation)


def _write_resource(one: Resource) -> Plain:
    policy = {part: {key: sorted(scopes) for key, scopes in getattr(one.policy, part).items()} for part in POLICY_PARTS}
    rest = [sorted(one.aliases), sorted(one.scopes), policy, one.name, one.dpop, one.certificates]
    return [one.url, one.path, one.messages, *rest]


def _read_resource(url: str, path: str, messages: str | None, aliases: list[str], *rest: Any) -> Resource:
    scopes, parts, *others = rest
    policy = {part: {key: frozenset(needed) for key, needed in parts[part].items()} for part in POLICY_PARTS}
    return Resource(url, path, messages, frozenset(aliases), frozenset(scopes), ScopePolicy(**policy), *others)


def _write_call(one: Call) -> Plain:
    return [[message[:4] for message in one.messages], one.revision, one.modern, one.batch]


def _read_call(messages: list[Plain], revision: str | None, modern: bool, batch: bool) -> Call:
    return Call(tuple(RpcMessage(MessageKind(kind), *rest) for kind, *rest in messages), revision, modern, batch)


def _read_address(text: str | None) -> ClientAddress:
    return ClientAddress(None if text is None else ip_address(text))


WRITE: dict[type, Callable[[Any], Plain]] = {
    Principal: _write_principal,
    Resource: _write_resource,
    Call: _write_call,
    SessionHandle: lambda one: [one.value, one.fingerprint, one.home],
    ClientAddress: lambda one: [None if one.ip is None else str(one.ip)],
    RequestId: lambda one: [one.value],
    Transport: lambda one: [one.scheme, one.authority],
}
"""How each fact that is carried is written; others are of no use further in."""

READ: dict[str, Callable[..., object]] = {
    "Principal": _read_principal,
    "Resource": _read_resource,
    "Call": _read_call,
    "SessionHandle": SessionHandle,
    "ClientAddress": _read_address,
    "RequestId": RequestId,
    "Transport": Transport,
}
