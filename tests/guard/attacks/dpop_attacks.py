"""Area dpop: bound tokens without a proof, with that of another request or key, and good proofs of unusual form."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from mcp_guard.secret import mint_token
from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import Deployment, b64, sign_es256
from tests.guard.attacks.raw import Observation, Request


def point(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """The public key as a JWK (RFC 7518 §6.2.1), its members in the order of RFC 7638 §3."""
    numbers, size = key.public_key().public_numbers(), key.key_size // 8
    x, y = (b64(number.to_bytes(size)) for number in (numbers.x, numbers.y))
    return {"crv": f"P-{key.key_size}", "kty": "EC", "x": x, "y": y}


@dataclass
class Client:
    """A client of `live` with a key, and a token of `user` that is bound to it."""

    live: Deployment
    user: str = "alice"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    token: str = field(init=False)

    def __post_init__(self) -> None:
        self.token = self.live.token(self.user, cnf={"jkt": self.thumbprint})

    @property
    def thumbprint(self) -> str:
        return b64(hashlib.sha256(json.dumps(point(self.key), separators=(",", ":")).encode()).digest())

    @property
    def ath(self) -> str:
        return b64(hashlib.sha256(self.token.encode()).digest())

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of a good proof for a call; a member that is None is left out."""
        good = {"jti": mint_token(), "htm": "POST", "htu": self.live.mcp, "iat": time.time(), "ath": self.ath}
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def proof(self, header: Mapping[str, Any] | None = None, claims: bytes | None = None, **changes: Any) -> bytes:
        """A proof, good but for what is said; `claims` stand as they are written."""
        members = {"typ": "dpop+jwt", "alg": "ES256", "jwk": point(self.key), **(header or {})}
        head = json.dumps({name: value for name, value in members.items() if value is not None}).encode()
        text = json.dumps(self.claims(**changes)).encode() if claims is None else claims
        signing_input = f"{b64(head)}.{b64(text)}"
        proof = f"{signing_input}.{b64(sign_es256(self.key, signing_input.encode()))}"
        self.live.secrets.add(proof)
        return proof.encode()

    def proving(self, request: Request, *proofs: bytes, scheme: bytes = b"DPoP") -> Request:
        """`request` with the token and these proofs."""
        credentials = (b"Authorization", scheme + b" " + self.token.encode())
        return replace(request, headers=(*request.headers, credentials, *[(b"DPoP", proof) for proof in proofs]))

    def call(self, *proofs: bytes, scheme: bytes = b"DPoP", headers: tuple[tuple[bytes, bytes], ...] = ()) -> Request:
        return self.proving(self.live.call(None, headers=headers), *proofs, scheme=scheme)

    def refused(self, name: str, *proofs: bytes) -> Shot:
        return Shot(name, self.call(*proofs), (401,), check=says_why)

    def accepted(self, name: str, *proofs: bytes) -> Shot:
        return Shot(name, self.call(*proofs), (200,), reaches_app=True)


def says_why(seen: Observation) -> None:
    """The challenge that RFC 9449 §7.1 asks for."""
    challenge = seen.value("www-authenticate")
    assert "DPoP " in challenge, challenge
    assert any(f'error="{one}"' in challenge for one in ("invalid_dpop_proof", "invalid_token")), challenge
    assert 'algs="' in challenge, challenge


@attack("dpop-01")
def no_proof(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    yield client.refused("absent")
    yield client.refused("empty", b"")


@attack("dpop-02")
def a_bound_token_as_a_bearer_token(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    yield Shot("without", client.call(scheme=b"Bearer"), (401,), check=says_why)
    yield Shot("with", client.call(client.proof(), scheme=b"Bearer"), (401,), check=says_why)
    yield client.accepted("control", client.proof())


@attack("dpop-03")
def two_proofs(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    # A field that is there twice goes no further than the reading of the request.
    yield Shot("two-fields", client.call(client.proof(), client.proof()), (400, 401))
    yield client.refused("one-field", client.proof() + b"," + client.proof())
    yield client.refused("one-field-blank", client.proof() + b", " + client.proof())


@attack("dpop-04")
def one_proof_twice(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    proof = client.proof()
    yield client.accepted("first", proof)
    yield client.refused("second", proof)
    yield client.refused("third", proof)
    yield client.accepted("control", client.proof())


@attack("dpop-09")
def odd_identifiers(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    for number, jti in enumerate((None, "", 7, "x" * 129, "a\x00b", ["a"], "x" * 7000)):
        yield client.refused(f"jti-{number}", client.proof(jti=jti))
    yield Shot("jti-megabyte", client.call(client.proof(jti="x" * 1_000_000)), (400, 401, 431, 499))


@attack("dpop-10")
def other_methods(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    for htm in ("GET", "post", "Post", None, ["POST"]):
        yield client.refused(f"htm-{htm}", client.proof(htm=htm))


@attack("dpop-11")
def other_urls(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    host = live.host.decode()
    urls = (
        f"https://{host}/mcp",
        f"http://localhost:{live.port}/mcp",
        f"http://127.0.0.1:{live.port + 1 if live.port < 65535 else 1}/mcp",
        "http://127.0.0.1/mcp",
        f"{live.origin}/sse",
        f"{live.origin}/",
        live.origin,
        None,
        "/mcp",
        f"//{host}/mcp",
        [live.mcp],
    )
    for number, htu in enumerate(urls):
        yield client.refused(f"htu-{number}", client.proof(htu=htu))


@attack("dpop-12")
def query_and_fragment(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    for htu in (f"{live.mcp}?a=b", f"{live.mcp}#c", f"{live.mcp}?a=b#c"):
        yield client.accepted(htu.rpartition("/")[2], client.proof(htu=htu))
    request = client.proving(live.call(None, target=b"/mcp?a=b"), client.proof())
    yield Shot("of-the-request", request, (200,), reaches_app=True)


@attack("dpop-13")
def another_spelling(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    yield client.accepted("scheme", client.proof(htu=live.mcp.replace("http", "HTTP")))
    yield client.accepted("escape", client.proof(htu=f"{live.origin}/%6Dcp"))


@attack("dpop-14")
def a_proof_for_another_host(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    for name in (b"X-Forwarded-Host", b"Forwarded", b"Host"):
        proof = client.proof(htu="https://evil.example/mcp")
        value = b"host=evil.example;proto=https" if name == b"Forwarded" else b"evil.example"
        request = client.call(proof, headers=() if name == b"Host" else ((name, value),))
        if name == b"Host":
            request = replace(request, headers=(*[one for one in request.headers if one[0] != b"Host"], (name, value)))
        yield Shot(name.decode(), request, (400, 401, 421))


@attack("dpop-15")
def equivalent_paths(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    for path in ("/mcp/", "//mcp", "/MCP"):
        yield client.refused(f"htu {path}", client.proof(htu=live.origin + path))
        request = client.proving(live.call(None, target=path.encode()), client.proof())
        yield Shot(f"target {path}", request, (400, 401))
    # The request line has one spelling, whatever the proof says; the proof may have any that is the same.
    for path in ("/x/../mcp", "/./mcp", "/mc%70"):
        yield client.accepted(f"htu {path}", client.proof(htu=live.origin + path))
        for htu in (live.mcp, live.origin + path):
            request = client.proving(live.call(None, target=path.encode()), client.proof(htu=htu))
            yield Shot(f"target {path} {htu == live.mcp}", request, (400,))


@attack("dpop-16")
def other_headers(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    for typ in (None, "JWT", "dpop+jwt+x", "at+jwt"):
        yield client.refused(f"typ-{typ}", client.proof({"typ": typ}))
    for alg in ("none", "RS256", "es256", "ES512", None):
        yield client.refused(f"alg-{alg}", client.proof({"alg": alg}))
    yield client.refused("alg-HS256", client.proof({"alg": "HS256", "jwk": {"kty": "oct", "k": b64(b"k" * 32)}}))


@attack("dpop-17")
def other_keys_in_the_header(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    jwk = point(client.key)
    private = b64(client.key.private_numbers().private_value.to_bytes(32))
    live.secrets.add(private)
    yield client.refused("none", client.proof({"jwk": None}))
    yield client.refused("private", client.proof({"jwk": {**jwk, "d": private}}))
    yield client.refused("kind", client.proof({"alg": "EdDSA"}))
    yield client.refused("off-the-curve", client.proof({"jwk": {**jwk, "y": jwk["x"]}}))
    yield client.refused("other-curve", client.proof({"jwk": {**jwk, "crv": "P-384"}}))
    yield client.refused("other-curve-alg", client.proof({"alg": "ES384", "jwk": {**jwk, "crv": "P-384"}}))
    yield client.refused("text", client.proof({"jwk": "jwk"}))


@attack("dpop-19")
def other_times(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    now = time.time()
    for name, iat in (("ahead", now + 3600), ("behind", now - 3600), ("none", None), ("text", "now"), ("true", True)):
        yield client.refused(name, client.proof(iat=iat))
    for number in (b"1e400", b"NaN", b"Infinity"):
        claims = json.dumps(client.claims(iat=0)).encode().replace(b'"iat": 0', b'"iat": ' + number)
        yield client.refused(number.decode(), client.proof(claims=claims))
    yield client.accepted("control-ahead", client.proof(iat=time.time() + 8))


@attack("dpop-20")
def other_hashes(live: Deployment) -> Iterator[Shot]:
    client, other = Client(live), Client(live, "bob")
    with_scheme = b64(hashlib.sha256(f"DPoP {client.token}".encode()).digest())
    for name, ath in (("none", None), ("other", other.ath), ("padded", client.ath + "="), ("scheme", with_scheme)):
        yield client.refused(name, client.proof(ath=ath))
    yield client.accepted("control", client.proof())


@attack("dpop-21")
def another_key(live: Deployment) -> Iterator[Shot]:
    client, thief = Client(live), Client(live, "bob")
    yield client.refused("own", thief.proof(ath=client.ath))
    yield client.refused("claimed", thief.proof({"jwk": point(client.key)}, ath=client.ath))


@attack("dpop-22")
def members_in_another_order(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    jwk = {"use": "sig", "ext": True, **dict(reversed(point(client.key).items())), "kid": "mine", "alg": "ES256"}
    yield client.accepted("more", client.proof({"jwk": jwk}))


@attack("dpop-26")
def an_unbound_token_with_a_proof(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    client.token = live.token()
    yield client.refused("fresh", client.proof())


@attack("dpop-28")
def members_that_nobody_knows(live: Deployment) -> Iterator[Shot]:
    client = Client(live)
    yield client.accepted("header", client.proof({"x-more": {"a": [1]}, "kid": "mine"}))
    yield client.accepted("claims", client.proof(more={"a": [1]}, iss="me", exp=1))


@attack("ses-15")
def a_session_with_another_key(live: Deployment) -> Iterator[Shot]:
    client, other = Client(live), Client(live)
    opened = live.send(client.proving(live.legacy(None, INITIALIZE), client.proof()))
    session = opened.value("mcp-session-id")
    live.secrets.add(session)
    bearer = live.token()
    for name, body, method in (("post", LIST, b"POST"), ("get", None, b"GET"), ("delete", None, b"DELETE")):
        request = live.legacy(None, body, session=session, method=method)
        yield Shot(name, other.proving(request, other.proof(htm=method.decode())), (404,))
        yield Shot(f"{name}-bearer", live.legacy(bearer, body, session=session, method=method), (404,))
    request = live.legacy(None, LIST, session=session)
    yield Shot("control", client.proving(request, client.proof()), (200,), reaches_app=True)
    client.token = live.token(cnf={"jkt": client.thumbprint}, jti="refreshed")
    yield Shot("refreshed", client.proving(request, client.proof()), (200,), reaches_app=True)
    plain = live.open_session(bearer)
    request = live.legacy(None, LIST, session=plain)
    yield Shot("opened-without", client.proving(request, client.proof()), (404,))


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "attack", "version": "1"}},
}
LIST = {"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": {}}
