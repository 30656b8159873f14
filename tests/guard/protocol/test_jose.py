"""A compact JWS is read strictly before any signature is looked at."""

import json
import time
from typing import Any

import pytest

from mcp_guard.protocol import jose
from mcp_guard.protocol.jose import AlgorithmError, CompactJws, Header, JoseError
from mcp_guard.protocol.jwk import import_jwk
from tests.guard.signing import SigningKey, b64url, dump, good_claims, jwk_set
from tests.guard.vectors import vectors

KEY = SigningKey.new()
GOOD = KEY.token()


def refused(token: bytes) -> str:
    with pytest.raises(JoseError) as caught:
        jose.parse_compact(token)
    return caught.value.reason


@pytest.mark.parametrize("vector", vectors("jws", "accepted"), ids=lambda vector: vector["source"])
def test_the_printed_examples_verify(vector: dict[str, Any]) -> None:
    jws = jose.parse_compact(vector["token"].encode())
    assert jws.header == Header(vector["alg"], None, None)
    assert jws.payload == vector["payload"].encode()
    assert import_jwk(vector["jwk"]).verifies(jws)


@pytest.mark.parametrize("vector", vectors("jws", "accepted"), ids=lambda vector: vector["source"])
def test_one_bit_changed_anywhere_in_a_printed_example_is_noticed(vector: dict[str, Any]) -> None:
    jws = jose.parse_compact(vector["token"].encode())
    key = import_jwk(vector["jwk"])
    for position in range(0, len(jws.signature), 7):
        damaged = bytearray(jws.signature)
        damaged[position] ^= 1
        assert not key.verifies(CompactJws(jws.header, jws.signing_input, jws.payload, bytes(damaged)))
    for position in range(0, len(jws.signing_input), 7):
        damaged = bytearray(jws.signing_input)
        damaged[position] ^= 1
        assert not key.verifies(CompactJws(jws.header, bytes(damaged), jws.payload, jws.signature))


@pytest.mark.parametrize("vector", vectors("jws", "refused"), ids=lambda vector: vector["source"])
def test_printed_examples_of_what_is_not_read_are_refused(vector: dict[str, Any]) -> None:
    assert vector["reason"] in refused(vector["token"].encode())


def test_a_good_token_is_taken_apart() -> None:
    jws = jose.parse_compact(GOOD)
    assert jws.header == Header("ES256", "k1", "at+jwt")
    assert json.loads(jws.payload) == good_claims()
    assert jws.signing_input == GOOD.rpartition(b".")[0]
    assert len(jws.signature) == 64


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "es256", "ES256 ", "ES512"]
)
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_no_other_algorithm_is_accepted_however_it_is_spelled(alg: str, signature: str) -> None:
    token = f"{b64url(dump({'alg': alg, 'typ': 'at+jwt'}))}.{b64url(dump(good_claims()))}.{signature}"
    with pytest.raises(AlgorithmError):
        jose.parse_compact(token.encode())


@pytest.mark.parametrize("alg", [None, True, 0, ["ES256"], {"ES256": 1}])
def test_an_algorithm_that_is_not_a_string_is_refused(alg: object) -> None:
    with pytest.raises(AlgorithmError):
        jose.parse_compact(KEY.token(header=dump({"alg": alg, "kid": "k1"})))
    with pytest.raises(AlgorithmError):
        jose.parse_compact(KEY.token(header={"kid": "k1"}))


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"crit": ["bork"], "bork": 1}, "critical extensions"),
        ({"crit": ["exp"]}, "critical extensions"),
        ({"crit": ["zip"]}, "critical extensions"),
        ({"crit": []}, "critical extensions"),
        ({"b64": True}, "b64"),
        ({"b64": False}, "b64"),
        ({"zip": "DEF"}, "compression"),
        ({"enc": "A128GCM"}, "encryption"),
        ({"jwk": KEY.jwk()}, "brings a key"),
        ({"jwk": None}, "brings a key"),
        ({"jku": "http://127.0.0.1:1/jwks.json"}, "points at a key set"),
        ({"x5u": "http://127.0.0.1:1/chain.pem"}, "points at a certificate"),
        ({"x5c": ["AAAA"]}, "brings a certificate"),
    ],
)
def test_each_header_that_changes_the_meaning_is_refused_with_its_own_reason(
    members: dict[str, Any], reason: str
) -> None:
    header = dump({**KEY.header(), **members})
    assert reason in refused(KEY.token(header=header))


def test_a_header_member_that_means_nothing_here_is_ignored() -> None:
    token = KEY.token(header=KEY.header(x5t="AAAA", cty="JWT", other={"a": [1]}))
    assert jose.parse_compact(token).header == Header("ES256", "k1", "at+jwt")


@pytest.mark.parametrize(
    "kid", ["", " ", "k 1", "k1\r\nX: y", "k1\n", "clé", "k" * 257, "k" * 8000, ["k1"], {"a": 1}, 7, None, True, "\x00"]
)
def test_a_key_id_is_a_short_string_of_visible_ascii(kid: object) -> None:
    header = dump({"alg": "ES256", "typ": "at+jwt", "kid": kid})
    assert refused(KEY.token(header=header))


@pytest.mark.parametrize("kid", ["../../../../dev/null", "'OR'1=1--", "k" * 256, "https://as.example.com/k?1#2", "!~"])
def test_a_strange_but_clean_key_id_is_only_a_name(kid: str) -> None:
    assert jose.parse_compact(KEY.token(header=KEY.header(kid=kid))).header.kid == kid


@pytest.mark.parametrize("name", ["cty", "x5t", "x5t#S256"])
@pytest.mark.parametrize("value", [None, 7, ["a"], {}, True])
def test_a_member_with_a_type_has_it_even_where_it_is_not_used(name: str, value: object) -> None:
    assert name in refused(KEY.token(header=dump({**KEY.header(), name: value})))


@pytest.mark.parametrize("typ", [None, 1, ["at+jwt"], {}, True, "x" * 257])
def test_a_type_that_is_not_a_short_string_is_refused(typ: object) -> None:
    assert "typ" in refused(KEY.token(header=dump({"alg": "ES256", "kid": "k1", "typ": typ})))


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"ES256","alg":"ES256","kid":"k1"}',
        b'{"alg":"none","alg":"ES256","kid":"k1"}',
        b'{"alg":"ES256","kid":"k1","\\u006bid":"k2"}',
        b'\xef\xbb\xbf{"alg":"ES256"}',
        '{"alg":"ES256"}'.encode("utf-16"),
        b'["ES256"]',
        b'"ES256"',
        b"null",
        b"",
        b'{"alg":"ES256"} ,',
        b'{"alg":"ES256","x":NaN}',
        b'{"alg":"ES256","x":"\\ud800"}',
        b'{"alg":"ES256","x":' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)
def test_a_header_that_is_not_one_plain_object_is_refused(header: bytes) -> None:
    assert "header" in refused(KEY.token(header=header))


def variants() -> dict[str, bytes]:
    protected, body, signature = GOOD.split(b".")
    flattened = json.dumps(
        {"protected": protected.decode(), "payload": body.decode(), "signature": signature.decode()}
    ).encode()
    return {
        "padded signature": GOOD + b"==",
        "padded payload": protected + b"." + body + b"=." + signature,
        "padded header": protected + b"=." + body + b"." + signature,
        "newline inside": protected + b"." + body[:20] + b"\n" + body[20:] + b"." + signature,
        "newline at the end": GOOD + b"\n",
        "space before": b" " + GOOD,
        "space after": GOOD + b" ",
        "standard alphabet": protected + b"." + body + b"." + b"+/" + signature[2:],
        "two segments": protected + b"." + body,
        "four segments": GOOD + b".AAAA",
        "five segments": GOOD + b".AAAA.AAAA",
        "many segments": GOOD + b"." * 1000,
        "empty payload and signature": protected + b"..",
        "empty header": b"." + body + b"." + signature,
        "no signature": protected + b"." + body + b".",
        "empty": b"",
        "dots": b"..",
        "flattened": flattened,
        "unused bits set": GOOD[:-1] + (b"B" if GOOD[-1:] in b"AQgw" else b"A"),
        "not ascii": GOOD[:-1] + "é".encode(),
        "nul": GOOD[:-1] + b"\x00",
        "percent-encoded": GOOD.replace(b".", b"%2e"),
    }


@pytest.mark.parametrize("token", [pytest.param(token, id=name) for name, token in variants().items()])
def test_only_the_canonical_spelling_of_a_token_is_read(token: bytes) -> None:
    try:
        jws = jose.parse_compact(token)
    except JoseError:
        return
    assert token[:-1] == GOOD[:-1]
    assert not import_jwk(KEY.jwk()).verifies(jws), "a second spelling of the same token verifies"


def test_an_encrypted_token_is_named_as_such() -> None:
    header = b64url(dump({"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": 2147483647, "p2s": "AAAA"}))
    assert "encrypted" in refused(f"{header}.AAAA.AAAA.AAAA.AAAA".encode())


@pytest.mark.parametrize("size", [8193, 9_000, 65_536, 1_048_576])
def test_a_token_beyond_eight_kibibytes_is_refused_before_any_work(size: int) -> None:
    protected, _, signature = GOOD.split(b".")
    token = protected + b"." + b"A" * (size - len(protected) - len(signature) - 2) + b"." + signature
    assert len(token) == size

    def seconds() -> float:
        start = time.perf_counter()
        assert "8192 bytes" in refused(token)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.001


def test_a_token_of_exactly_eight_kibibytes_is_read() -> None:
    protected, _, signature = KEY.token(header=KEY.header(kid="k12")).split(b".")
    body = b"A" * (8192 - len(protected) - len(signature) - 2)
    assert jose.parse_compact(protected + b"." + body + b"." + signature).payload == bytes(len(body) * 3 // 4)


def test_no_reason_quotes_the_token() -> None:
    secret = "hunter2-hunter2"
    for header in ({"alg": secret}, {"alg": "ES256", "kid": f"{secret} "}, {"alg": "ES256", "typ": [secret]}):
        assert secret not in refused(KEY.token(header=dump(header)))


def test_every_algorithm_round_trips_with_its_own_key_alone() -> None:
    for alg in sorted(jose.ALGORITHMS):
        key, other = SigningKey.new(alg), SigningKey.new(alg, kid="other")
        jws = jose.parse_compact(key.token())
        assert import_jwk(key.jwk()).verifies(jws), alg
        assert not import_jwk(other.jwk()).verifies(jws), alg
    assert jwk_set(KEY)["keys"][0]["kid"] == "k1"
