"""What the claims of an access token must be."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_guard.protocol import jwt
from mcp_guard.protocol.jwt import AccessToken, Fault, Rules, TokenError, UnverifiedToken
from tests.guard.signing import ISSUER, NOW, RESOURCE, SigningKey, dump, good_claims

KEY = SigningKey.new()
RULES = Rules(ISSUER)
AUDIENCES = frozenset({RESOURCE})
NAN, INFINITY = float("nan"), float("inf")

THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
"""RFC 9449 §6.1, figure 9."""


def unverified(claims: dict[str, Any] | None = None, **changes: Any) -> UnverifiedToken:
    """A token as it stands after its signature was verified; a change to `...` removes the claim."""
    merged = {**(good_claims() if claims is None else claims), **changes}
    jws = jwt.read(KEY.token()).jws
    return UnverifiedToken(jws, {name: value for name, value in merged.items() if value is not ...}, ISSUER)


def judged(rules: Rules = RULES, now: float = NOW, **changes: Any) -> AccessToken:
    return jwt.judge(unverified(**changes), rules, AUDIENCES, now)


def fault(rules: Rules = RULES, now: float = NOW, **changes: Any) -> Fault:
    with pytest.raises(TokenError) as caught:
        judged(rules, now, **changes)
    return caught.value.fault


def unreadable(token: bytes) -> Fault:
    with pytest.raises(TokenError) as caught:
        jwt.read(token)
    return caught.value.fault


def test_a_good_token_says_who_it_is() -> None:
    token = judged()
    assert (token.issuer, token.subject, token.client_id, token.tenant) == (ISSUER, "alice", "client-1", None)
    assert token.scopes == {"mcp:tools"}
    assert (token.not_before, token.expires_at) == (NOW - 10, NOW + 300)
    assert token.claims["jti"] == "t1"


class TestReading:
    """What can be told before the signature is verified."""

    def test_the_claimed_issuer_is_read(self) -> None:
        assert jwt.read(KEY.token()).issuer == ISSUER

    @pytest.mark.parametrize(
        "payload",
        [
            b'{"exp":1,"exp":2,"iss":"a"}',
            b'{"iss":"a","\\u0069ss":"b"}',
            b"[]",
            b"null",
            b"",
            b'{"iss":"a"',
            b'\xef\xbb\xbf{"iss":"a"}',
            '{"iss":"a"}'.encode("utf-16"),
            b'{"iss":"a","exp":NaN}',
            b'{"iss":"a","exp":Infinity}',
            b'{"iss":"a","exp":1e400}',
            b'{"iss":"a","exp":' + b"9" * 5000 + b"}",
            b'{"iss":"a","x":"\\ud800"}',
            b'{"iss":"a","x":' + b"[" * 3000 + b"]" * 3000 + b"}",
        ],
    )
    def test_a_payload_that_is_not_one_plain_object_is_malformed(self, payload: bytes) -> None:
        assert unreadable(KEY.token(claims=payload)) is Fault.MALFORMED

    @pytest.mark.parametrize("issuer", [None, ["https://as.example.com"], {}, 7, True])
    def test_an_issuer_that_is_not_a_string_is_refused(self, issuer: object) -> None:
        assert unreadable(KEY.token(claims=dump({**good_claims(), "iss": issuer}))) is Fault.ISSUER

    def test_a_missing_issuer_is_refused(self) -> None:
        assert unreadable(KEY.token(iss=None)) is Fault.ISSUER

    def test_what_is_no_jws_is_malformed(self) -> None:
        assert unreadable(b"opaque") is Fault.MALFORMED

    def test_an_algorithm_that_is_not_accepted_is_named(self) -> None:
        assert unreadable(KEY.token(header={"alg": "none"})) is Fault.ALGORITHM


class TestType:
    """RFC 9068 §4."""

    @staticmethod
    def refused(typ: str | None, rules: Rules = RULES, **claims: Any) -> bool:
        token = jwt.read(KEY.token(header=KEY.header(typ=typ), **claims))
        try:
            jwt.check_type(token, rules)
        except TokenError as refusal:
            return refusal.fault is Fault.TYPE
        return False

    @pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
    def test_an_access_token_is_accepted_in_any_case(self, typ: str) -> None:
        assert not self.refused(typ)

    OTHER_TYPES = (
        "dpop+jwt",
        "logout+jwt",
        "secevent+jwt",
        "id_token+jwt",
        "",
        "at+jwt ",
        "at-jwt",
        "JWS",
        "refresh+jwt",
    )

    @pytest.mark.parametrize("typ", [None, "JWT", "application/jwt", *OTHER_TYPES])
    def test_every_other_type_is_refused(self, typ: str | None) -> None:
        assert self.refused(typ)

    @pytest.mark.parametrize("typ", [None, "JWT", "jwt", "application/jwt", "at+jwt"])
    def test_untyped_tokens_can_be_let_in(self, typ: str | None) -> None:
        assert not self.refused(typ, Rules(ISSUER, accept_untyped=True))

    @pytest.mark.parametrize("typ", OTHER_TYPES)
    def test_letting_untyped_tokens_in_lets_no_other_type_in(self, typ: str) -> None:
        assert self.refused(typ, Rules(ISSUER, accept_untyped=True))

    @pytest.mark.parametrize("claim", ["nonce", "at_hash", "c_hash", "s_hash", "events", "htm", "htu"])
    @pytest.mark.parametrize("typ", [None, "JWT"])
    def test_an_untyped_token_for_another_purpose_is_refused(self, typ: str | None, claim: str) -> None:
        assert self.refused(typ, Rules(ISSUER, accept_untyped=True), **{claim: "x"})


class TestIssuerAndAudience:
    """RFC 8725 §3.8 and §3.9."""

    def test_the_issuer_is_the_one_whose_rules_are_used(self) -> None:
        assert fault(Rules("https://as.example.com/")) is Fault.ISSUER

    @pytest.mark.parametrize("aud", [RESOURCE, [RESOURCE], ["https://other.example", RESOURCE], [RESOURCE, RESOURCE]])
    def test_an_audience_that_names_the_resource_is_accepted(self, aud: object) -> None:
        assert judged(aud=aud).subject == "alice"

    @pytest.mark.parametrize(
        "aud",
        [
            ...,
            None,
            "",
            [],
            [[]],
            [[RESOURCE]],
            {RESOURCE: 1},
            7,
            True,
            [RESOURCE, 7],
            [RESOURCE, None],
            RESOURCE + "/",
            RESOURCE + "x",
            RESOURCE[:-1],
            RESOURCE + "?a=1",
            RESOURCE + "#",
            RESOURCE + "/other",
            "HTTPS://mcp.example.com/mcp",
            "https://MCP.example.com/mcp",
            "https://mcp.example.com:443/mcp",
            "https://mcp.example.com/",
            "https://mcp.example.com/sse",
            "https://mcp.example.com.evil.example/mcp",
            "https://user@mcp.example.com/mcp",
            "http://mcp.example.com/mcp",
            f" {RESOURCE}",
            f"{RESOURCE} https://other.example",
            [f"{RESOURCE},x"],
            ["https://other.example"],
        ],
    )
    def test_every_other_audience_is_refused(self, aud: object) -> None:
        assert fault(aud=aud) is Fault.AUDIENCE

    def test_an_alias_is_an_audience(self) -> None:
        token = unverified(aud="https://mcp.example.com/sse")
        assert jwt.judge(token, RULES, AUDIENCES | {"https://mcp.example.com/sse"}, NOW).subject == "alice"


NOT_A_DATE = [
    ...,
    None,
    True,
    False,
    "1",
    str(NOW + 300),
    [NOW],
    {"a": 1},
    -1,
    -0.5,
    NAN,
    INFINITY,
    -INFINITY,
    1e300,
    10**63,
]


class TestTime:
    """RFC 7519 §4.1.4 to §4.1.6; each bound on its exact second."""

    @pytest.mark.parametrize("exp", NOT_A_DATE)
    def test_an_expiry_that_is_no_date_is_refused(self, exp: object) -> None:
        assert fault(exp=exp) is Fault.CLAIMS

    @pytest.mark.parametrize("iat", NOT_A_DATE)
    def test_an_issue_date_that_is_no_date_is_refused(self, iat: object) -> None:
        assert fault(iat=iat) is Fault.CLAIMS

    @pytest.mark.parametrize("nbf", [value for value in NOT_A_DATE if value is not ...])
    def test_a_not_before_that_is_no_date_is_refused(self, nbf: object) -> None:
        assert fault(nbf=nbf) is Fault.CLAIMS

    @pytest.mark.parametrize("leeway", [0, 10])
    @pytest.mark.parametrize(("offset", "accepted"), [(-1, False), (0, False), (0.001, True), (1, True)])
    def test_a_token_expires_on_the_second(self, leeway: int, offset: float, *, accepted: bool) -> None:
        rules, exp = Rules(ISSUER, leeway_seconds=leeway), NOW - leeway + offset
        if accepted:
            assert judged(rules, exp=exp, iat=NOW - 100).expires_at == exp
        else:
            assert fault(rules, exp=exp, iat=NOW - 100) is Fault.EXPIRED

    @pytest.mark.parametrize("leeway", [0, 10])
    @pytest.mark.parametrize("claim", ["nbf", "iat"])
    @pytest.mark.parametrize(("offset", "accepted"), [(-1, True), (0, True), (0.001, False), (1, False)])
    def test_a_token_begins_on_the_second(self, leeway: int, claim: str, offset: float, *, accepted: bool) -> None:
        rules, changes = Rules(ISSUER, leeway_seconds=leeway), {claim: NOW + leeway + offset}
        if accepted:
            assert judged(rules, **changes).not_before == NOW + leeway + offset
        else:
            assert fault(rules, **changes) is Fault.NOT_YET_VALID

    @pytest.mark.parametrize(("offset", "accepted"), [(-1, True), (0, True), (1, False)])
    def test_the_lifetime_is_bounded(self, offset: float, *, accepted: bool) -> None:
        iat, exp = NOW - 50, NOW - 50 + 86_400 + offset
        if accepted:
            assert judged(iat=iat, exp=exp).expires_at == exp
        else:
            assert fault(iat=iat, exp=exp) is Fault.LIFETIME

    def test_ten_years_are_too_long(self) -> None:
        assert fault(exp=NOW + 10 * 365 * 86_400) is Fault.LIFETIME

    @pytest.mark.parametrize("offset", [-1, 0])
    def test_a_token_does_not_expire_before_it_was_issued(self, offset: int) -> None:
        assert fault(iat=NOW + 5, exp=NOW + 5 + offset) is Fault.LIFETIME

    def test_the_last_accepted_date_is_in_the_year_9999(self) -> None:
        rules = Rules(ISSUER, maximum_lifetime_seconds=math.inf)
        assert judged(rules, exp=jwt.LATEST_DATE).expires_at == jwt.LATEST_DATE
        assert fault(rules, exp=jwt.LATEST_DATE + 1) is Fault.CLAIMS

    def test_the_later_of_nbf_and_iat_counts(self) -> None:
        assert judged(nbf=NOW - 1000).not_before == NOW - 10
        assert judged(nbf=NOW - 5).not_before == NOW - 5

    def test_times_can_be_checked_again(self) -> None:
        jwt.check_times(10, 20, 19.9, 0)
        for now, expected in ((20, Fault.EXPIRED), (9.9, Fault.NOT_YET_VALID)):
            with pytest.raises(TokenError) as caught:
                jwt.check_times(10, 20, now, 0)
            assert caught.value.fault is expected


class TestNames:
    """Subject, client, tenant and the rest."""

    BAD_NAMES = (
        ...,
        None,
        "",
        1,
        True,
        ["alice"],
        {"a": 1},
        "a\r\nb",
        "a\x00",
        "a\n",
        "\u202ea",
        "\x7f",
        "a\u2028b",
        "\ud800",
    )

    @pytest.mark.parametrize("sub", [*BAD_NAMES, "s" * 256, "s" * 5000])
    def test_a_subject_is_a_short_printable_string(self, sub: object) -> None:
        assert fault(sub=sub) is Fault.CLAIMS

    @pytest.mark.parametrize("sub", ["s" * 255, "a b", "élise", "auth0|1234", "名前", " "])
    def test_a_printable_subject_stays_as_it_is(self, sub: str) -> None:
        assert judged(sub=sub).subject == sub

    @pytest.mark.parametrize("client_id", [*BAD_NAMES, "c" * 2049])
    def test_a_client_id_is_a_printable_string(self, client_id: object) -> None:
        assert fault(client_id=client_id) is Fault.CLAIMS

    def test_azp_names_the_client_where_client_id_does_not(self) -> None:
        assert judged(client_id=..., azp="client-2").client_id == "client-2"

    @pytest.mark.parametrize("azp", ["", 7, None, ["client-1"]])
    def test_azp_alone_must_be_a_printable_string(self, azp: object) -> None:
        assert fault(client_id=..., azp=azp) is Fault.CLAIMS

    def test_a_client_named_twice_must_be_the_same(self) -> None:
        assert judged(azp="client-1").client_id == "client-1"
        assert fault(azp="client-2") is Fault.CLAIMS

    def test_a_bad_client_id_is_not_made_up_for_by_azp(self) -> None:
        assert fault(client_id="", azp="client-1") is Fault.CLAIMS

    @pytest.mark.parametrize("jti", [7, None, ["a"], True])
    def test_a_token_id_is_a_string_if_there_is_one(self, jti: object) -> None:
        assert fault(jti=jti) is Fault.CLAIMS

    def test_a_token_id_may_be_missing(self) -> None:
        assert judged(jti=...).subject == "alice"

    @pytest.mark.parametrize(
        "cnf",
        [
            {},
            None,
            "x",
            [],
            True,
            {"jkt": "x"},
            {"jkt": None},
            {"jkt": [THUMBPRINT]},
            {"jkt": THUMBPRINT + "="},
            {"jkt": THUMBPRINT[:-2]},
            {"x5t#S256": "x"},
            {"x5t#S256": THUMBPRINT, "jkt": ""},
            {"jwk": {"kty": "EC"}},
            {"kid": "k1"},
            {"jkt": THUMBPRINT, "jwk": {}},
            {"JKT": THUMBPRINT},
        ],
    )
    def test_a_token_that_is_bound_in_a_way_nobody_checks_is_refused(self, cnf: object) -> None:
        assert fault(cnf=cnf) is Fault.BOUND

    def test_what_a_token_is_bound_to_is_read(self) -> None:
        assert judged().confirmation == (None, None)
        assert judged(cnf={"jkt": THUMBPRINT}).confirmation == (THUMBPRINT, None)
        assert judged(cnf={"x5t#S256": THUMBPRINT}).confirmation == (None, THUMBPRINT)
        assert judged(cnf={"x5t#S256": THUMBPRINT, "jkt": THUMBPRINT}).confirmation == (THUMBPRINT, THUMBPRINT)

    def test_the_tenant_is_read_where_it_is_configured(self) -> None:
        assert judged(Rules(ISSUER, tenant_claim="org"), org="acme").tenant == "acme"
        assert judged(org="acme").tenant is None

    @pytest.mark.parametrize("tenant", [..., None, "", 7, ["acme"], "a\nb", "t" * 256])
    def test_a_configured_tenant_is_required(self, tenant: object) -> None:
        assert fault(Rules(ISSUER, tenant_claim="org"), org=tenant) is Fault.CLAIMS


class TestScopes:
    """What a token grants; a claim that has no single reading grants nothing."""

    @pytest.mark.parametrize(
        ("claims", "expected"),
        [
            ({"scope": "mcp:read mcp:admin"}, {"mcp:read", "mcp:admin"}),
            ({"scope": ""}, set()),
            ({}, set()),
            ({"scp": "mcp:read mcp:admin"}, {"mcp:read", "mcp:admin"}),
            ({"scp": ["mcp:read", "mcp:admin"]}, {"mcp:read", "mcp:admin"}),
            ({"scp": []}, set()),
            ({"scope": "a b", "scp": ["b", "a"]}, {"a", "b"}),
            ({"scope": "a", "scp": "a"}, {"a"}),
            ({"scope": "mcp:adminx"}, {"mcp:adminx"}),
            ({"scope": "MCP:ADMIN"}, {"MCP:ADMIN"}),
            ({"scope": "mcp:read,mcp:admin"}, {"mcp:read,mcp:admin"}),
        ],
    )
    def test_granted_scopes_are_read_from_scope_or_scp(self, claims: dict[str, Any], expected: set[str]) -> None:
        assert judged(**{"scope": ..., **claims}).scopes == expected

    @pytest.mark.parametrize(
        "claims",
        [
            {"scope": ["mcp:admin"]},
            {"scope": ["mcp:admin"], "scp": "mcp:admin"},
            {"scope": "mcp:read", "scp": ["mcp:admin"]},
            {"scope": "mcp:read", "scp": ["mcp:read", "mcp:admin"]},
            {"scope": "mcp:read\tmcp:admin"},
            {"scope": "mcp:read  mcp:admin"},
            {"scope": " mcp:admin"},
            {"scope": "mcp:admin\n"},
            {"scope": None},
            {"scope": 7},
            {"scope": {"mcp:admin": True}},
            {"scp": ["mcp:admin mcp:read"]},
            {"scp": ["mcp:admin", 7]},
            {"scp": ["mcp:admin", ""]},
            {"scp": [["mcp:admin"]]},
            {"scp": {"mcp:admin": True}},
            {"scp": True},
        ],
    )
    def test_a_claim_without_one_reading_grants_nothing(self, claims: dict[str, Any]) -> None:
        assert judged(**{"scope": ..., **claims}).scopes == frozenset()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*good_claims(), "nbf", "azp", "scp", "cnf", "org"]), JSON))
def test_no_claim_of_whatever_type_brings_anything_but_a_verdict(changes: dict[str, Any]) -> None:
    try:
        token = judged(**changes)
    except TokenError:
        return
    assert isinstance(token.subject, str)
    assert token.expires_at >= NOW - 10
    assert token.not_before <= NOW + 10
    assert all(isinstance(scope, str) for scope in token.scopes)


def test_no_reason_quotes_a_claim() -> None:
    secret = "hunter2-hunter2"
    for changes in ({"sub": f"{secret}\n"}, {"aud": secret}, {"jti": [secret]}, {"exp": secret}, {"azp": secret}):
        with pytest.raises(TokenError) as caught:
            judged(**changes)
        assert secret not in str(caught.value)
