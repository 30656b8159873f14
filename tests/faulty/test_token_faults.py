"""Each fault in judging tokens accepts exactly what the sound server refuses."""

from __future__ import annotations

import base64
import datetime as dt
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.support.model_server import FAULTS, ModelServer
from tests.support.model_server.keys import SigningKey, b64url, compact_json, jwk_of
from tests.support.serving import serving

BASE = "http://127.0.0.1:4711"
RESOURCE = f"{BASE}/mcp"
VERSION = "2026-07-28"
Forge = Callable[[ModelServer], str]


def now() -> int:
    return int(time.time())


def claims(**changes: Any) -> Forge:
    return lambda server: server.mint(claims=changes)


def header(**changes: Any) -> Forge:
    return lambda server: server.mint(header=changes)


def aud(value: object) -> Forge:
    return claims(aud=value)


def kind(typ: str, **changes: Any) -> Forge:
    return lambda server: server.mint(header={"typ": typ}, claims=changes)


def resigned(sign: Callable[[bytes, ModelServer], bytes], **changes: Any) -> Forge:
    """Good claims under a header with these members and a signature of our own."""

    def forge(server: ModelServer) -> str:
        head, payload, _ = server.mint(header=changes).split(".")
        return f"{head}.{payload}.{b64url(sign(f'{head}.{payload}'.encode(), server))}"

    return forge


def hs256(secret: Callable[[ModelServer], bytes], **changes: Any) -> Forge:
    return resigned(lambda text, server: hmac.digest(secret(server), text, "sha256"), alg="HS256", **changes)


def unsigned(alg: str, signature: bytes = b"") -> Forge:
    return resigned(lambda text, server: signature, alg=alg)


def with_own_key(key: SigningKey | None = None, **members: Callable[[SigningKey], object]) -> Forge:
    signer = key or SigningKey()

    def forge(server: ModelServer) -> str:
        extra = {name: make(signer) for name, make in members.items()}
        return resigned(lambda text, _: signer.sign(text), **extra)(server)

    return forge


def certificate(key: SigningKey) -> list[str]:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.private.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=3650))
        .sign(key.private, hashes.SHA256())
    )
    return [base64.b64encode(built.public_bytes(serialization.Encoding.DER)).decode()]


def padded(server: ModelServer) -> str:
    return server.mint() + "=="


def with_spare_bits(server: ModelServer) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = server.mint()
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


def repeated_claim(server: ModelServer) -> str:
    text = json.dumps(server._minter.claims("alice", "c", RESOURCE, "mcp:tools"))
    return server.mint(raw_claims=text[:-1] + ', "sub": "bob"}')


ACCEPTED_WITH: Mapping[str, Forge] = {
    "audience_ignored": aud("https://other.example/mcp"),
    "issuer_as_audience": aud(BASE),
    "missing_audience_accepted": aud(None),
    "audience_list_as_text": aud([f"{RESOURCE}-b"]),
    "nested_audience_accepted": aud([[RESOURCE]]),
    "empty_audience_accepted": aud([]),
    "audience_prefix": aud(f"{RESOURCE}a"),
    "audience_parent": aud(f"{BASE}/m"),
    "audience_suffix": aud("https://evil.example/?x=127.0.0.1:4711/mcp"),
    "audience_any_case": aud(f"{BASE}/MCP"),
    "audience_query_ignored": aud(f"{RESOURCE}?a=b"),
    "audience_fragment_ignored": aud(f"{RESOURCE}#a"),
    "audience_port_ignored": aud("http://127.0.0.1:9/mcp"),
    "audience_scheme_ignored": aud(RESOURCE.replace("http", "https")),
    "audience_userinfo_ignored": aud(RESOURCE.replace("//", "//a@")),
    "audience_percent_decoded": aud(f"{BASE}/%6dcp"),
    "audience_origin_only": aud(f"{BASE}/sse"),
    "upstream_tokens_accepted": lambda server: server.upstream_token(),
    "id_tokens_accepted": kind("JWT", aud="a-client", nonce="n"),
    "logout_tokens_accepted": kind("logout+jwt", events={}, aud="a-client"),
    "client_assertions_accepted": kind("client-authentication+jwt", aud=BASE),
    "expiry_ignored": lambda server: server.mint(claims={"exp": now() - 10 * 365 * 86400}),
    "expiry_leeway_of_a_day": lambda server: server.mint(claims={"exp": now() - 3600}),
    "missing_expiry_accepted": claims(exp=None),
    "text_expiry_accepted": claims(exp="4102444800"),
    "negative_expiry_accepted": claims(exp=-1),
    "not_before_ignored": lambda server: server.mint(claims={"nbf": now() + 3600}),
    "future_issue_accepted": lambda server: server.mint(claims={"iat": now() + 3600}),
    "issuer_ignored": claims(iss="https://elsewhere.example"),
    "issuer_prefix": claims(iss=f"{BASE}.evil.example"),
    "issuer_slash_ignored": claims(iss=f"{BASE}/"),
    "issuer_any_case": claims(iss=BASE.upper()),
    "issuer_port_ignored": claims(iss="http://127.0.0.1:9"),
    "type_ignored": kind("dpop+jwt"),
    "missing_type_accepted": header(typ=None),
    "type_suffix": kind("secevent+jwt"),
    "signature_ignored": lambda server: server.mint(trusted_key=False),
    "empty_signature_accepted": resigned(lambda text, server: b""),
    "signature_padding_tolerated": padded,
    "signature_spare_bits_tolerated": with_spare_bits,
    "alg_none_accepted": unsigned("none"),
    "alg_none_in_odd_case": unsigned("nonE"),
    "alg_none_with_garbage": unsigned("none", b"garbage"),
    "hs256_keyed_with_pem": hs256(lambda server: server.deployment.key.pem()),
    "hs256_keyed_with_der": hs256(lambda server: server.deployment.key.der()),
    "hs256_keyed_with_jwk": hs256(lambda server: compact_json(server.deployment.key.jwk)),
    "jwk_header_trusted": with_own_key(jwk=lambda key: jwk_of(key.private.public_key())),
    "x5c_header_trusted": with_own_key(x5c=certificate),
    "kid_is_a_path": hs256(lambda server: b"", kid="../../../../dev/null"),
    "kid_is_sql": hs256(lambda server: b"k", kid="x' UNION SELECT 'k' -- "),
    "crit_ignored": header(crit=["exp"]),
    "zero_signature_accepted": resigned(lambda text, server: bytes(64)),
    "repeated_claims_accepted": repeated_claim,
}
ELSEWHERE = {"audience_list_refused", "jku_header_fetched", "x5u_header_fetched"}
"""Faults with a test of their own below."""

ALSO_SOUND: Mapping[str, Forge] = {
    "aud in a list": aud(["https://other.example", RESOURCE]),
    "typ as a media type": kind("application/at+jwt"),
    "typ in capitals": kind("AT+JWT"),
    "exp with a fraction": lambda server: server.mint(claims={"exp": now() + 60.5}),
    "nbf in the past": lambda server: server.mint(claims={"nbf": now() - 60}),
    "unknown header members": header(x="y"),
}


def status_of(server: ModelServer, token: str) -> int:
    """What `tools/list` answers with this token."""
    meta = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    sent = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": VERSION,
        "Mcp-Method": "tools/list",
    }

    async def post() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url=BASE) as client:
            return (await client.post("/mcp", json=message, headers=sent)).status_code

    return anyio.run(post)


@pytest.mark.parametrize("name", sorted(ACCEPTED_WITH))
def test_the_fault_alone_accepts_what_the_sound_server_refuses(name: str) -> None:
    sound, faulty = ModelServer(BASE), ModelServer(BASE, {name})
    assert status_of(sound, ACCEPTED_WITH[name](sound)) == 401
    assert status_of(faulty, ACCEPTED_WITH[name](faulty)) == 200
    assert status_of(faulty, faulty.mint()) == 200


@pytest.mark.parametrize("what", sorted(ALSO_SOUND))
def test_the_sound_server_accepts_what_the_rules_allow(what: str) -> None:
    sound = ModelServer(BASE)
    assert status_of(sound, ALSO_SOUND[what](sound)) == 200


def test_an_audience_list_is_refused_by_that_fault_alone() -> None:
    faulty = ModelServer(BASE, {"audience_list_refused"})
    assert status_of(faulty, aud([RESOURCE])(faulty)) == 401
    assert status_of(faulty, faulty.mint()) == 200


@pytest.mark.parametrize("member", ["jku", "x5u"])
def test_a_key_named_by_url_is_fetched_by_that_fault_alone(member: str) -> None:
    key = SigningKey()
    keys = {"jku": compact_json({"keys": [key.jwk]}), "x5u": base64.b64decode(certificate(key)[0])}
    pem = x509.load_der_x509_certificate(keys["x5u"]).public_bytes(serialization.Encoding.PEM)
    asked: list[str] = []

    async def host(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": keys["jku"] if member == "jku" else pem})

    with serving(lambda url: host, lifespan="off") as attacker:
        forge = with_own_key(key, **{member: lambda _: attacker.url})
        sound, faulty = ModelServer(BASE), ModelServer(BASE, {f"{member}_header_fetched"})
        assert status_of(sound, forge(sound)) == 401
        assert asked == []
        assert status_of(faulty, forge(faulty)) == 200


def test_every_fault_of_claims_and_signatures_is_shown_here() -> None:
    areas = {"AUD-001", "AUD-002", "AUD-003", "AUD-004", "AUD-006", "AUD-007", "AUD-009"}
    areas |= {"TOK-001", "TOK-002", "TOK-003", "TOK-004", "TOK-005", "TOK-006", "TOK-007", "TOK-011"}
    judged = {name for name, fault in FAULTS.items() if fault.requirement in areas}
    assert judged == {*ACCEPTED_WITH, *ELSEWHERE, "encrypted_token_crashes"}
