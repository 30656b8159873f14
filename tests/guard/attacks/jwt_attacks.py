"""Area jwt: tokens that are almost good, and good tokens in the wrong place."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import Deployment, b64, sign_es256
from tests.guard.attacks.raw import Observation, Request


def invalid_token(seen: Observation) -> None:
    """The challenge that RFC 6750 §3.1 asks for."""
    challenge = seen.value("www-authenticate")
    assert challenge.startswith("Bearer "), challenge
    assert 'error="invalid_token"' in challenge, challenge
    assert 'resource_metadata="' in challenge, challenge


def refused(live: Deployment, name: str, token: str) -> Shot:
    """The token is answered 401 with `invalid_token`."""
    live.secrets.add(token)
    return Shot(name, live.call(token), (401,), check=invalid_token)


def forged(live: Deployment, header: dict[str, Any], signature: bytes) -> str:
    """Good claims under any header and signature."""
    return ".".join((b64(json.dumps(header).encode()), b64(json.dumps(live.claims()).encode()), b64(signature)))


def raw_claims(live: Deployment, text: str) -> str:
    """A payload that is written as it stands, well signed."""
    return live.sign({"alg": "ES256", "typ": "at+jwt", "kid": live.kid}, text.encode())


@attack("jwt-01")
def unsigned_tokens(live: Deployment) -> Iterator[Shot]:
    for algorithm in ("none", "None", "NONE", "nOnE", "", None):
        header = {"typ": "at+jwt", "kid": live.kid} | ({} if algorithm is None else {"alg": algorithm})
        yield refused(live, f"empty-{algorithm}", forged(live, header, b""))
        yield refused(live, f"signed-{algorithm}", live.token(header={"alg": algorithm}))


@attack("jwt-02")
def algorithm_confusion(live: Deployment) -> Iterator[Shot]:
    public = live.key.public_key()
    point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = public.public_bytes(serialization.Encoding.PEM, spki)
    jwks = live.send(Request(b"GET", b"/jwks", ((b"Host", live.host),))).body
    keys = {
        "pem": pem,
        "pem-stripped": pem.rstrip(b"\n"),
        "der": public.public_bytes(serialization.Encoding.DER, spki),
        "point": point,
        "jwks": jwks,
        "jwk": json.dumps(json.loads(jwks)["keys"][0]).encode(),
        "empty": b"",
    }
    for name, key in keys.items():
        for algorithm, digest in (("HS256", hashes.SHA256()), ("HS512", hashes.SHA512())):
            head = b64(json.dumps({"alg": algorithm, "typ": "at+jwt", "kid": live.kid}).encode())
            body = b64(json.dumps(live.claims()).encode())
            mac = hmac.HMAC(key, digest)
            mac.update(f"{head}.{body}".encode())
            yield refused(live, f"{name}-{algorithm}", f"{head}.{body}.{b64(mac.finalize())}")


@attack("jwt-03")
def a_key_in_the_token(live: Deployment) -> Iterator[Shot]:
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32)), "y": b64(numbers.y.to_bytes(32))}
    for name, extra in (("kid", {"kid": live.kid}), ("no-kid", {}), ("own-kid", {"kid": "mine"})):
        head = b64(json.dumps({"alg": "ES256", "typ": "at+jwt", "jwk": jwk, **extra}).encode())
        body = b64(json.dumps(live.claims()).encode())
        yield refused(live, name, f"{head}.{body}.{b64(sign_es256(key, f'{head}.{body}'.encode()))}")


@attack("jwt-04")
def a_key_address_in_the_token(live: Deployment) -> Iterator[Shot]:
    calls = live.downstream.calls
    for name in ("jku", "x5u"):
        yield refused(live, name, live.token(header={name: f"{live.origin}/mcp"}))
    yield refused(live, "x5c", live.token(header={"x5c": [base64.b64encode(b"certificate").decode()]}))
    # Only the control requests reached the app, which stands at the named address.
    assert live.downstream.calls - calls <= 3


@attack("jwt-05")
def hostile_key_ids(live: Deployment) -> Iterator[Shot]:
    odd: list[object] = ["../../../../dev/null", "' OR 1=1--", "k" * 3_000, ["k1"], {"a": 1}, 7, None, "k1\r\nX: y", ""]
    for number, kid in enumerate(odd):
        header = {"alg": "ES256", "typ": "at+jwt", "kid": kid}
        yield refused(live, f"kid-{number}", forged(live, header, b"x" * 64))


@attack("jwt-07")
def critical_members(live: Deployment) -> Iterator[Shot]:
    yield refused(live, "unknown", live.token(header={"crit": ["bork"], "bork": 1}))
    yield refused(live, "exp", live.token(header={"crit": ["exp"]}))
    yield refused(live, "zip", live.token(header={"crit": ["zip"]}))
    yield refused(live, "b64", live.token(header={"crit": ["b64"], "b64": False}))


@attack("jwt-09")
def expired_tokens(live: Deployment) -> Iterator[Shot]:
    now = int(time.time())
    for age in (60, 3600, 10**6):
        yield refused(live, f"{age}", live.token(exp=now - age, iat=now - age - 60))


@attack("jwt-10")
def tokens_without_an_end(live: Deployment) -> Iterator[Shot]:
    yield refused(live, "no-exp", live.token(exp=None))


@attack("jwt-11")
def ends_of_the_wrong_kind(live: Deployment) -> Iterator[Shot]:
    good = live.claims()
    for name, text in {
        "string": '"9999999999"',
        "true": "true",
        "null": "null",
        "list": f"[{good['exp']}]",
        "object": '{"a":1}',
        "negative": "-1",
        "nan": "NaN",
        "infinity": "Infinity",
        "overflow": "1e400",
        "digits": "9" * 5_000,
        "far": "1e300",
    }.items():
        rest = json.dumps({key: value for key, value in good.items() if key != "exp"})
        yield refused(live, name, raw_claims(live, f'{rest[:-1]}, "exp": {text}}}'))


@attack("jwt-12")
def tokens_of_the_future(live: Deployment) -> Iterator[Shot]:
    now = int(time.time())
    yield refused(live, "nbf", live.token(nbf=now + 120))
    yield refused(live, "iat", live.token(iat=now + 3600, exp=now + 3900))
    near = live.call(live.token(nbf=now + 5, iat=now + 5))
    yield Shot("within-leeway", near, (200,), reaches_app=True)


@attack("jwt-13")
def tokens_that_live_for_years(live: Deployment) -> Iterator[Shot]:
    yield refused(live, "ten-years", live.token(exp=int(time.time()) + 10 * 365 * 86400))


@attack("jwt-14")
def tokens_made_for_something_else(live: Deployment) -> Iterator[Shot]:
    for kind in ("JWT", "dpop+jwt", "logout+jwt", "oauth-id-jag+jwt", "rt+jwt", "at+jwt+x", "", None, 7):
        yield refused(live, f"typ-{kind}", live.token(header={"typ": kind}))
    yield refused(live, "id-token", live.token(header={"typ": "JWT"}, nonce="n", at_hash="x"))


@attack("jwt-15")
def claims_said_twice(live: Deployment) -> Iterator[Shot]:
    good = json.dumps(live.claims())
    for name, value in (("exp", "1"), ("sub", '"bob"'), ("aud", '"x"'), ("iss", '"x"'), ("scope", '"mcp:admin"')):
        yield refused(live, f"{name}-first", raw_claims(live, f'{{"{name}": {value}, {good[1:]}'))
        yield refused(live, f"{name}-last", raw_claims(live, f'{good[:-1]}, "{name}": {value}}}'))
    header = f'{{"alg": "ES256", "alg": "ES256", "typ": "at+jwt", "kid": "{live.kid}"}}'
    signing_input = f"{b64(header.encode())}.{b64(good.encode())}"
    yield refused(live, "header", f"{signing_input}.{b64(sign_es256(live.key, signing_input.encode()))}")


@attack("jwt-19")
def subjects_that_name_nobody(live: Deployment) -> Iterator[Shot]:
    for name, subject in (("empty", ""), ("number", 1), ("long", "s" * 5_000), ("line", "a\r\nb"), ("nul", "a\x00b")):
        yield refused(live, name, live.token(sub=subject))
    yield refused(live, "missing", live.token(sub=None))


@attack("jwt-20")
def other_spellings_of_a_good_token(live: Deployment) -> Iterator[Shot]:
    token = live.token()
    head, body, signature = token.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other_bits = signature[:-1] + last[last.index(signature[-1]) ^ 1]
    spellings = {
        "padded": f"{head}.{body}.{signature}==",
        "standard-alphabet": token.replace("-", "+").replace("_", "/") if "-" in token or "_" in token else token + "+",
        "four-segments": f"{token}.",
        "five-segments": f"{token}..",
        "two-segments": f"{head}.{body}",
        "trailing-bits": f"{head}.{body}.{other_bits}",
        "json": json.dumps({"payload": body, "protected": head, "signature": signature}),
    }
    for name, spelling in spellings.items():
        yield Shot(name, live.call(spelling), (400, 401))
    for name, value in (("line-break", f"{head}.{body}\n.{signature}"), ("leading-blank", f"  {token}")):
        yield Shot(name, live.call(value), (400, 401))


@attack("jwt-22")
def oversized_tokens(live: Deployment) -> Iterator[Shot]:
    for size in (9_000, 15_000, 64_000):
        yield Shot(f"{size}", live.call("e" * size), (400, 401, 431))


@attack("jwt-23")
def deeply_nested_tokens(live: Deployment) -> Iterator[Shot]:
    nest = b64(b'{"a":' + b"[" * 2_800 + b"]" * 2_800 + b"}")
    head = b64(b'{"alg":"ES256","typ":"at+jwt"}')
    yield refused(live, "payload", f"{head}.{nest}.{b64(b'x' * 64)}")
    yield refused(live, "header", f"{nest}.{head}.{b64(b'x' * 64)}")
    yield refused(live, "signed", raw_claims(live, '{"a":' + "[" * 2_500 + "]" * 2_500 + "}"))


@attack("jwt-24")
def encrypted_and_compressed_tokens(live: Deployment) -> Iterator[Shot]:
    header = {"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": 2147483647, "p2s": b64(b"salt"), "zip": "DEF"}
    yield refused(live, "jwe", ".".join((b64(json.dumps(header).encode()), "a", "b", "c", "d")))
    yield refused(live, "zip", live.token(header={"zip": "DEF"}))
    yield refused(live, "enc", live.token(header={"enc": "A256GCM"}))


@attack("jwt-26")
def another_issuers_name(live: Deployment) -> Iterator[Shot]:
    yield refused(live, "other", live.token(iss="https://other.example"))


@attack("jwt-31")
def malformed_authorization(live: Deployment) -> Iterator[Shot]:
    token = live.token()
    plain = live.call(None)

    def with_value(value: bytes) -> Request:
        return Request(b"POST", b"/mcp", (*plain.headers, (b"Authorization", value)), plain.body)

    bad = {
        "two-blanks": f"Bearer  {token}",
        "tab": f"Bearer\t{token}",
        "list": f"Bearer {token}, Bearer {token}",
        "more": f"Bearer {token} x",
        "token": f"Token {token}",
        "basic": "Basic " + base64.b64encode(b"alice:secret").decode(),
        "bare": "Bearer",
        "no-blank": f"Bearer{token}",
        "equals": f"Bearer token={token}",
        "quoted": f'Bearer "{token}"',
        "comma": f"Bearer {token},",
    }
    for name, value in bad.items():
        yield Shot(name, with_value(value.encode()), (400, 401))
    for name in ("bearer", "BEARER", "BeArEr"):
        yield Shot(name, with_value(f"{name} {token}".encode()), (200,), reaches_app=True)


@attack("jwt-32")
def tokens_outside_the_header(live: Deployment) -> Iterator[Shot]:
    token = live.token()
    query = f"/mcp?access_token={token}".encode()
    yield Shot("query", live.call(None, target=query), (401,))
    cookie = live.call(None, headers=((b"Cookie", f"access_token={token}; token={token}".encode()),))
    yield Shot("cookie", cookie, (401,))
    form = live.call(None)
    typed = tuple(pair for pair in form.headers if pair[0] != b"Content-Type")
    fields = (*typed, (b"Content-Type", b"application/x-www-form-urlencoded"))
    yield Shot("form", Request(b"POST", b"/mcp", fields, f"access_token={token}".encode()), (400, 401))
    yield Shot("two-places", live.call(token, target=query), (400,))


@attack("jwt-33")
def two_authorization_fields(live: Deployment) -> Iterator[Shot]:
    good, bad = f"Bearer {live.token()}".encode(), b"Bearer garbage"
    dpop = f"DPoP {live.token()}".encode()
    plain = live.call(None)
    for name, pair in {
        "good-bad": (good, bad),
        "bad-good": (bad, good),
        "same": (good, good),
        "dpop": (good, dpop),
    }.items():
        fields = (*plain.headers, *((b"Authorization", value) for value in pair))
        yield Shot(name, Request(b"POST", b"/mcp", fields, plain.body), (400, 401))


@attack("jwt-34")
def scopes_that_are_almost_right(live: Deployment) -> Iterator[Shot]:
    def lacking(seen: Observation) -> None:
        challenge = seen.value("www-authenticate")
        assert 'error="insufficient_scope"' in challenge
        assert "mcp:admin" in challenge
        assert 'resource_metadata="' in challenge

    call = {"name": "add", "arguments": {"a": 1, "b": 2}}
    for number, scope in enumerate(("mcp:tools mcp:adminx", "mcp:tools MCP:ADMIN", "mcp:tools", "mcp:tools mcp:admi")):
        yield Shot(f"near-{number}", live.call(live.token(scope=scope), params=call), (403,), check=lacking)
    malformed: list[object] = ["mcp:tools\tmcp:admin", "mcp:tools,mcp:admin", ["mcp:tools", "mcp:admin"]]
    for number, odd in enumerate(malformed):
        yield Shot(f"malformed-{number}", live.call(live.token(scope=odd), params=call), (401, 403))
    both = live.token(scope="mcp:tools", scp=["mcp:tools", "mcp:admin"])
    yield Shot("two-claims", live.call(both, params=call), (401, 403))
    good = live.token(scope="mcp:tools mcp:admin")
    yield Shot("granted", live.call(good, params=call), (200,), reaches_app=True)


@attack("jwt-36")
def issuers_that_are_almost_right(live: Deployment) -> Iterator[Shot]:
    spellings: dict[str, object] = {
        "slash": f"{live.origin}/",
        "case": live.origin.replace("http", "HTTP"),
        "suffix": f"{live.origin}.evil.example",
        "list": [live.origin],
        "missing": None,
        "empty": "",
    }
    for name, issuer in spellings.items():
        yield refused(live, name, live.token(iss=issuer))


@attack("jwt-29")
def a_cached_token_past_its_end(live: Deployment) -> Iterator[Shot]:
    """The leeway is ten seconds: a token that ends now is taken now, and no longer when they have passed."""
    now = int(time.time())
    token = live.token(exp=now - 8, iat=now - 60)
    first = live.send(live.call(token))
    assert first.status == 200, f"within the leeway it is answered {first.status}"
    wait_until(lambda: live.send(live.call(token)).status == 401, seconds=6)
    yield refused(live, "expired", token)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Poll until the condition holds; it must within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)
