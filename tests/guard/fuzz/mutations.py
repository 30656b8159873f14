"""Tokens and proofs that were good, changed in one or two places: what an attacker or a poor library would send.

Everything is drawn from one `Random`, so that a seed says which changes are made; ECDSA signatures are not repeatable,
so a case that fails is kept by its bytes.
"""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.guard.signing import ISSUER, NOW, RESOURCE, SigningKey, b64url, dump

OTHER_ISSUER = "https://other.example.com"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
LEEWAY = 10
LIFETIME = 86_400
ODD: Sequence[Any] = (
    None,
    True,
    False,
    0,
    -0.0,
    -1,
    1.5,
    10**400,
    1e300,
    "",
    " ",
    "x",
    "alice",
    "\u202e\x00",
    "\ud83d\ude00",
    [],
    [[]],
    {},
    {"a": 1},
    [None],
    "9" * 400,
    float("nan"),
    float("inf"),
    NOW,
    str(NOW),
)
BOUNDARIES = [NOW + by + step for by in (-LEEWAY, 0, LEEWAY, LIFETIME - 10, LIFETIME) for step in (-1, 0, 1)]
"""Whole seconds: PyJWT cuts fractions off, and so takes a token of the last second for an expired one."""
AUDIENCES: Sequence[Any] = (
    RESOURCE,
    [RESOURCE],
    ["https://x.example", RESOURCE],
    [RESOURCE, 1],
    [[RESOURCE]],
    {RESOURCE: 1},
    f"{RESOURCE}/",
    RESOURCE.upper(),
    f" {RESOURCE}",
    "*",
    [],
    None,
    f"{RESOURCE},https://x.example",
)
HEADERS: Sequence[tuple[str, Any]] = (
    ("alg", "none"),
    ("alg", "None"),
    ("alg", "es256"),
    ("alg", "HS256"),
    ("alg", "ES384"),
    ("alg", "RS256"),
    ("alg", ""),
    ("alg", ["ES256"]),
    ("alg", None),
    ("alg", "EdDSA"),
    ("typ", "JWT"),
    ("typ", "AT+JWT"),
    ("typ", "application/at+jwt"),
    ("typ", "id+jwt"),
    ("typ", "dpop+jwt"),
    ("typ", 1),
    ("typ", "at+jwt "),
    ("crit", ["b64"]),
    ("crit", []),
    ("b64", False),
    ("zip", "DEF"),
    ("jku", "https://evil.example/keys"),
    ("jwk", {"kty": "oct", "k": "AA"}),
    ("x5u", "https://evil.example"),
    ("x5c", ["AA"]),
    ("enc", "A128GCM"),
    ("kid", "k1"),
    ("kid", "k2"),
    ("kid", "o1"),
    ("kid", "../../dev/null"),
    ("kid", ""),
    ("kid", 1),
    ("kid", "k1\x00"),
    ("cty", "JWT"),
    ("cty", 1),
    ("x5t", "AA"),
    ("unknown", {"deep": [1]}),
)
CLAIMS: Sequence[tuple[str, Any]] = (
    ("iss", OTHER_ISSUER),
    ("iss", f"{ISSUER}/"),
    ("iss", ISSUER.upper()),
    ("iss", [ISSUER]),
    ("scope", ["mcp:tools"]),
    ("scope", "mcp:tools mcp:admin"),
    ("scope", "  "),
    ("scp", ["mcp:tools"]),
    ("azp", "client-1"),
    ("azp", "client-2"),
    ("cnf", {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
    ("cnf", {"jkt": "short"}),
    ("cnf", {}),
    ("cnf", {"kid": "x"}),
    ("cnf", None),
    ("cnf", "x"),
    ("nonce", "n"),
    ("htm", "POST"),
    ("sub", "a" * 256),
    ("sub", "a\nb"),
    ("unknown", "x"),
    ("jti", 1),
    ("jti", "t2"),
    ("jti", None),
    ("exp", NOW + 300.5),
    ("iat", NOW - 10.5),
)
NAMES = ("iss", "aud", "sub", "client_id", "iat", "exp", "nbf", "jti", "scope", "cnf", "htm", "htu", "ath", "nonce")


def shaken(random: Random, token: bytes) -> bytes:
    """The text of a token with segments, letters or padding changed."""
    segments = token.split(b".")
    at = random.randrange(len(segments))
    choice = random.randrange(8)
    if choice == 0:
        segments[at] += random.choice([b"=", b"==", b"A", b"\n", b" ", b"%3D"])
    elif choice == 1:
        segments[at] = segments[at].replace(b"-", b"+").replace(b"_", b"/")
    elif choice == 2:
        del segments[at]
    elif choice == 3:
        segments.insert(at, random.choice([b"", segments[at], b"AA"]))
    elif choice == 4:
        segments[at] = b""
    elif choice == 5:
        place = random.randrange(len(segments[at]) + 1)
        segments[at] = segments[at][:place] + bytes([random.randrange(256)]) + segments[at][place + 1 :]
    elif choice == 6:
        segments[at] = segments[at][:-1] + bytes([random.choice(b"ABCDwxyz0189-_")])
    else:
        segments[at] = random.randbytes(random.randrange(40))
    return b".".join(segments)


def resigned(random: Random, key: SigningKey, others: Sequence[SigningKey], token: bytes) -> bytes:
    """The same token, signed in another way; only the last, of two signatures that ECDSA has for one text, is good."""
    signing_input, _, _ = token.rpartition(b".")
    signature = key.sign(signing_input)
    half = len(signature) // 2
    r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    ways: list[Callable[[], bytes]] = [
        lambda: flipped(random, signature),
        lambda: encode_dss_signature(r, s),
        lambda: signature[half:] + signature[:half],
        lambda: signature + b"\x00",
        lambda: b"\x00" * len(signature),
        lambda: random.choice(others).sign(signing_input),
        lambda: mac(key, signing_input),
    ]
    if key.alg == "ES256":
        ways.append(lambda: signature[:half] + (P256_ORDER - s).to_bytes(half, "big"))
    return signing_input + b"." + b64url(random.choice(ways)()).encode()


def flipped(random: Random, data: bytes) -> bytes:
    place = random.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]


def mac(key: SigningKey, data: bytes) -> bytes:
    """HMAC with the public key as the secret, which confuses libraries about what a key is for."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    made = hmac.HMAC(key.private.public_key().public_bytes(encoding, form), hashes.SHA256())
    made.update(data)
    return made.finalize()


def members(random: Random, value: dict[str, Any]) -> bytes:
    """JSON with a member twice, nested too deep, of odd blanks, or as it should be."""
    text = dump(value)
    choice = random.randrange(40)
    if choice == 0:
        name = random.choice(sorted(value))
        return text[:-1] + b"," + dump({name: random.choice(ODD)})[1:]
    if choice == 1:
        return text[:-1] + b',"deep":' + b"[" * 200 + b"]" * 200 + b"}"
    if choice == 2:
        return json.dumps(value, indent=1).encode()
    if choice == 3:
        return text[:-1] + random.choice(
            [b"", b"}x", b',"x":1e400}', b',"x":NaN}', b',"x":-0}', b',"x":"\xff"}', b",}"]
        )
    if choice == 4:
        return random.choice(
            [b"\xef\xbb\xbf" + text, b"[" + text + b"]", text.decode().encode("utf-16"), b"null", b"1"]
        )
    return text


def changed_claim(random: Random, claims: dict[str, Any]) -> None:
    """One claim of another value, type or form, or none."""
    choice = random.randrange(6)
    if choice == 0:
        claims.pop(random.choice(NAMES), None)
    elif choice == 1:
        claims[random.choice(NAMES)] = random.choice(ODD)
    elif choice == 2:
        claims[random.choice(["exp", "iat", "nbf"])] = random.choice(BOUNDARIES)
    elif choice == 3:
        claims["aud"] = random.choice(AUDIENCES)
    else:
        name, value = random.choice(CLAIMS)
        claims[name] = value


def changed_header(random: Random, header: dict[str, Any]) -> None:
    if random.randrange(5) == 0:
        header.pop(random.choice(sorted(header)))
        return
    name, value = random.choice(HEADERS)
    header[name] = value


def mutated(
    random: Random, key: SigningKey, others: Sequence[SigningKey], header: dict[str, Any], claims: dict[str, Any]
) -> bytes:
    """A token or proof of these members with one to three changes; `header` and `claims` are changed in place."""
    kinds = random.choices(("claim", "header", "text", "signature"), (6, 3, 2, 2), k=random.randrange(1, 3))
    for kind in kinds:
        if kind == "claim":
            changed_claim(random, claims)
        elif kind == "header":
            changed_header(random, header)
    token = key.compact(members(random, header), members(random, claims))
    if "signature" in kinds:
        token = resigned(random, key, others, token)
    return shaken(random, token) if "text" in kinds else token
