"""A proof is read strictly, and compared with what it was sent with."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mcp_guard.protocol import dpop, jose
from mcp_guard.protocol.dpop import Fault, ProofError, Target, Window
from mcp_guard.protocol.jose import JoseError
from tests.guard.proving import proof, proof_claims, proof_header, thumbprint, token_hash
from tests.guard.signing import NOW, RESOURCE, SigningKey, b64url, dump, public_members
from tests.guard.vectors import vectors

KEY = SigningKey.new()
TOKEN = b"the.access.token"
TARGET = Target("POST", RESOURCE, hashlib.sha256(TOKEN).digest(), thumbprint(KEY))


def refused(*values: bytes) -> Fault:
    with pytest.raises(ProofError) as caught:
        dpop.parse(values)
    return caught.value.fault


def judged(
    target: Target = TARGET, now: float = NOW, is_our_nonce: Callable[[str], bool] | None = None, **changes: Any
) -> Fault | None:
    """The fault of a proof that is good but for `changes`, when it comes with `target`."""
    read = dpop.parse([proof(KEY, TOKEN, **changes)])
    try:
        dpop.check(read, target, now, is_our_nonce=is_our_nonce)
    except ProofError as fault:
        return fault.fault
    return None


def test_what_is_too_long_for_a_proof_is_not_read() -> None:
    header = b64url(dump(proof_header(KEY, typ="JWT"))).encode()
    assert refused(header + b".e30.e30") is Fault.TYPE
    assert refused(header + b"." + b"a" * jose.MAX_TOKEN_BYTES) is Fault.MALFORMED


# The printed examples.


@pytest.mark.parametrize("vector", vectors("dpop", "accepted"), ids=lambda vector: vector["source"])
def test_the_printed_examples_are_good_for_what_they_were_printed_for(vector: dict[str, Any]) -> None:
    read = dpop.parse([vector["proof"].encode()])
    assert read.thumbprint == vector["thumbprint"]
    token = vector.get("token")
    digest = None if token is None else hashlib.sha256(token.encode()).digest()
    target = Target(vector["method"], vector["url"], digest, vector["thumbprint"])
    dpop.check(read, target, vector["now"], is_our_nonce=None if read.nonce is None else read.nonce.__eq__)


@pytest.mark.parametrize("vector", vectors("dpop", "accepted"), ids=lambda vector: vector["source"])
def test_one_bit_changed_anywhere_in_a_printed_example_is_noticed(vector: dict[str, Any]) -> None:
    good = vector["proof"].encode()
    for position in range(0, len(good), 5):
        damaged = bytearray(good)
        damaged[position] ^= 1
        with pytest.raises(ProofError):
            dpop.parse([bytes(damaged)])


# Reading: checks 1 to 7.


@pytest.mark.parametrize("alg", sorted(jose.PROOF_ALGORITHMS))
def test_a_proof_of_every_algorithm_is_read(alg: str) -> None:
    key = SigningKey.new(alg)
    read = dpop.parse([proof(key, TOKEN, jti="j", nonce="n")])
    assert read == (thumbprint(key), "j", "POST", RESOURCE, float(NOW), token_hash(TOKEN), "n")


def test_a_proof_needs_neither_ath_nor_nonce_to_be_read() -> None:
    read = dpop.parse([proof(KEY)])
    assert (read.ath, read.nonce) == (None, None)


def test_there_is_exactly_one_field() -> None:
    assert refused() is Fault.FIELD
    assert refused(proof(KEY), proof(KEY)) is Fault.FIELD


def test_two_proofs_in_one_field_are_no_proof() -> None:
    assert refused(proof(KEY) + b"," + proof(KEY)) is Fault.MALFORMED
    assert refused(proof(KEY) + b", " + proof(KEY)) is Fault.MALFORMED


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"proof",
        b"a.b.c",
        b"e30.e30.AA",
        proof(KEY).rpartition(b".")[0],
        proof(KEY).rpartition(b".")[0] + b".",
        proof(KEY) + b"=",
        b" " + proof(KEY),
        proof(KEY, header=b"[]"),
        proof(KEY, claims=b"[]"),
        proof(KEY, claims=b"{"),
        proof(KEY, claims=b'{"iat":1,"iat":2}'),
        proof(KEY, padding="x" * 8192),
        proof(KEY, header=proof_header(KEY, crit=["exp"])),
        proof(KEY, header=proof_header(KEY, jku="https://evil.example/jwks")),
        proof(KEY, header=proof_header(KEY, x5c=["MII"])),
        proof(KEY, header=proof_header(KEY, b64=False)),
    ],
)
def test_what_is_no_plain_jws_is_refused(value: bytes) -> None:
    assert refused(value) in (Fault.MALFORMED, Fault.ALGORITHM)


@pytest.mark.parametrize("typ", [None, "JWT", "at+jwt", "dpop+jwt+x", "application/dpop+jwt", " dpop+jwt", ""])
def test_another_type_is_refused(typ: str | None) -> None:
    assert refused(proof(KEY, header=proof_header(KEY, typ=typ))) is Fault.TYPE


def test_the_case_of_the_type_does_not_matter() -> None:
    assert dpop.parse([proof(KEY, header=proof_header(KEY, typ="DPoP+JWT"))]).htm == "POST"


@pytest.mark.parametrize("alg", ["none", "HS256", "RS256", "RS512", "es256", "ES512", "", 7, None])
def test_another_algorithm_is_refused(alg: object) -> None:
    assert refused(proof(KEY, header=proof_header(KEY, alg=alg))) is Fault.ALGORITHM


def test_a_signature_of_another_key_is_refused() -> None:
    assert refused(proof(SigningKey.new(), header=proof_header(KEY))) is Fault.SIGNATURE


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        "key",
        {},
        {"kty": "oct", "k": "AAAA"},
        {**public_members(KEY.private), "d": "AAAA"},
        {**public_members(KEY.private), "y": public_members(KEY.private)["x"]},
        {**public_members(KEY.private), "crv": "P-384"},
        {**public_members(KEY.private), "use": "enc"},
        {**public_members(KEY.private), "alg": "ES384"},
        public_members(SigningKey.new("ES384").private),
        public_members(SigningKey.new("EdDSA").private),
        public_members(SigningKey.new("PS256").private),
    ],
)
def test_a_key_that_is_none_or_does_not_fit_is_refused(jwk: object) -> None:
    assert refused(proof(KEY, header=proof_header(KEY, jwk=jwk))) is Fault.KEY


def test_a_refusal_says_nothing_of_a_private_key() -> None:
    secret = b64url(b"a private key of 32 bytes, really")
    jwk = {**public_members(KEY.private), "d": secret}
    with pytest.raises(ProofError) as caught:
        dpop.parse([proof(KEY, header=proof_header(KEY, jwk=jwk))])
    assert secret not in str(caught.value)


def test_an_access_token_still_may_not_bring_a_key() -> None:
    with pytest.raises(JoseError, match="brings a key along"):
        jose.parse_compact(proof(KEY))


def test_members_that_nobody_knows_are_ignored() -> None:
    jwk = dict(reversed({**public_members(KEY.private), "use": "sig", "kid": "k", "alg": "ES256", "ext": True}.items()))
    header = proof_header(KEY, jwk=jwk, other={"a": [1]})
    assert dpop.parse([proof(KEY, TOKEN, header=header, more="x")]).thumbprint == thumbprint(KEY)


@pytest.mark.parametrize(
    "changes",
    [
        *[{"jti": jti} for jti in (None, "", 7, "x" * 129, "é" * 65, "a\x00b", "a\nb", ["a"])],
        *[{"htm": htm} for htm in (None, 7, ["POST"])],
        *[{"htu": htu} for htu in (None, 7, [RESOURCE])],
        *[{"iat": iat} for iat in (None, "now", str(NOW), True, [NOW], -1, 253_402_300_800)],
        *[{"ath": ath} for ath in (7, [token_hash(TOKEN)])],
        *[{"nonce": nonce} for nonce in (7, ["n"])],
    ],
)
def test_a_claim_that_is_missing_or_of_another_type_is_refused(changes: Mapping[str, Any]) -> None:
    assert refused(proof(KEY, **changes)) is Fault.CLAIMS


@pytest.mark.parametrize("iat", [b"1e400", b"NaN", b"-Infinity"])
def test_a_time_that_is_no_finite_number_is_refused(iat: bytes) -> None:
    claims = dump(proof_claims(iat=0)).replace(b'"iat":0', b'"iat":' + iat)
    assert refused(proof(KEY, claims=claims)) is Fault.MALFORMED


@pytest.mark.parametrize("jti", ["x", "x" * 128, "é" * 64, "with a blank"])
def test_a_jti_of_up_to_128_bytes_is_read(jti: str) -> None:
    assert dpop.parse([proof(KEY, jti=jti)]).jti == jti


def test_proofs_of_two_keys_or_two_jti_have_two_digests() -> None:
    other = SigningKey.new()
    proofs = [dpop.parse([proof(key, jti=jti)]) for key in (KEY, other) for jti in ("a", "b")]
    assert len({one.digest for one in proofs}) == 4
    assert dpop.parse([proof(KEY, TOKEN, jti="a", htm="GET")]).digest == proofs[0].digest


def test_a_header_that_was_seen_costs_no_import() -> None:
    key = SigningKey.new()
    dpop.parse([proof(key)])
    before = dpop._brought.cache_info()
    dpop.parse([proof(key)])
    after = dpop._brought.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (1, 0)
    assert after.maxsize == dpop.KNOWN_KEYS


# Comparing: checks 8 to 12.


def test_a_good_proof_passes() -> None:
    assert judged() is None


@pytest.mark.parametrize("htm", ["GET", "post", "Post", " POST", ""])
def test_another_method_is_refused(htm: str) -> None:
    assert judged(htm=htm) is Fault.METHOD


@pytest.mark.parametrize(
    "htu",
    [
        "http://mcp.example.com/mcp",
        "https://evil.example/mcp",
        "https://mcp.example.com:8443/mcp",
        "https://mcp.example.com/",
        "https://mcp.example.com/mcp/",
        "https://mcp.example.com//mcp",
        "https://mcp.example.com/MCP",
        "https://mcp.example.com/mcp%2F",
        "https://alice@mcp.example.com/mcp",
        "https://mcp.example.com./mcp",
        "//mcp.example.com/mcp",
        "/mcp",
        "mcp",
        "",
        "wss://mcp.example.com/mcp",
        "https://mcp.example.com/mcp\\x",
        "https://mcp.example.com/mc\x00p",
    ],
)
def test_another_url_is_refused(htu: str) -> None:
    assert judged(htu=htu) is Fault.URL


@pytest.mark.parametrize(
    "htu",
    [
        "HTTPS://MCP.EXAMPLE.COM:443/mcp",
        "https://mcp.example.com:/mcp",
        "https://mcp.example.com/mcp?query",
        "https://mcp.example.com/mcp#fragment",
        "https://mcp.example.com/mcp?a=1#b?c",
        "https://mcp.example.com/x/../mcp",
        "https://mcp.example.com/./mcp",
        "https://mcp.example.com/mc%70",
    ],
)
def test_another_spelling_of_the_url_is_accepted(htu: str) -> None:
    assert judged(htu=htu) is None


@pytest.mark.parametrize(
    "ath", [None, "", token_hash(b"another"), token_hash(TOKEN) + "=", token_hash(b"DPoP " + TOKEN)]
)
def test_a_proof_about_another_token_is_refused(ath: str | None) -> None:
    assert judged(ath=ath) is Fault.ATH


def test_a_proof_by_another_key_than_the_tokens_is_refused() -> None:
    assert judged(TARGET._replace(thumbprint=thumbprint(SigningKey.new()))) is Fault.BINDING


def test_without_a_token_a_proof_is_about_no_token() -> None:
    assert judged(Target("POST", RESOURCE), ath=None) is None
    assert judged(Target("POST", RESOURCE)) is None


@pytest.mark.parametrize(
    ("iat", "fault"),
    [
        (NOW - 60, None),
        (NOW - 60.001, Fault.TIME),
        (NOW + 10, None),
        (NOW + 10.001, Fault.TIME),
        (NOW - 3600, Fault.TIME),
        (NOW + 3600, Fault.TIME),
        (0, Fault.TIME),
    ],
)
def test_a_proof_is_good_for_a_minute_and_may_be_ahead_ten_seconds(iat: float, fault: Fault | None) -> None:
    assert judged(iat=iat) is fault


def test_the_window_is_the_callers() -> None:
    read = dpop.parse([proof(KEY, TOKEN, iat=NOW - 5)])
    dpop.check(read, TARGET, NOW, Window(5, 0))
    with pytest.raises(ProofError):
        dpop.check(read, TARGET, NOW + 1, Window(5, 0))


@pytest.mark.parametrize(("nonce", "fault"), [(None, Fault.NONCE), ("other", Fault.NONCE), ("good", None)])
def test_where_nonces_are_used_a_proof_has_one_of_ours(nonce: str | None, fault: Fault | None) -> None:
    assert judged(is_our_nonce={"good"}.__contains__, nonce=nonce) is fault


def test_a_nonce_is_ignored_where_none_are_used() -> None:
    assert judged(nonce="whatever") is None


def test_who_fails_another_check_is_told_nothing_of_nonces_and_times() -> None:
    for target in (TARGET._replace(method="GET"), TARGET._replace(url="https://mcp.example.com/other")):
        read = dpop.parse([proof(KEY, TOKEN, iat=0)])
        with pytest.raises(ProofError) as caught:
            dpop.check(read, target, NOW, is_our_nonce=lambda nonce: False)
        assert caught.value.fault in (Fault.METHOD, Fault.URL)
