"""The checks of the guard that are taken out one at a time, and the tests that have to notice.

The product has no switch: a check is taken out of a copy of its source. `text` stands in `module` exactly once.
"""

from typing import Final, NamedTuple


class Ablation(NamedTuple):
    """A check, how it is taken out, and which tests defend it."""

    id: str
    check: str
    module: str
    text: str
    instead: str
    tests: tuple[str, ...]


JWT, JOSE, DPOP, JWK = (f"mcp_guard/protocol/{name}.py" for name in ("jwt", "jose", "dpop", "jwk"))
POLICY, VERIFICATION = "mcp_guard/protocol/claim_policy.py", "mcp_guard/tokens/verification.py"
OF_JWT = ("tests/guard/protocol/test_jwt.py",)
OF_JOSE = ("tests/guard/protocol/test_jose.py",)
OF_DPOP = ("tests/guard/protocol/test_dpop.py",)
OF_JWK = ("tests/guard/protocol/test_jwk.py",)
OF_TOKEN = ("tests/guard/test_verification.py", "tests/guard/layers/test_token.py")


def _condition(id: str, check: str, module: str, condition: str, tests: tuple[str, ...]) -> Ablation:
    """A check whose `if` never holds any more."""
    return Ablation(id, check, module, f"if {condition}:", "if False:", tests)


CATALOGUE: Final = (
    _condition("jwt-object", "the payload is an object", JWT, "not isinstance(claims, dict)", OF_JWT),
    _condition("jwt-iss-string", "iss is a string", JWT, "not isinstance(issuer, str)", OF_JWT),
    _condition(
        "jwt-typ",
        "typ is at+jwt",
        JWT,
        "not rules.accept_untyped or not (lowered is None or lowered in _UNTYPED)",
        OF_JWT,
    ),
    _condition(
        "jwt-purpose",
        "an untyped token is no ID token or proof",
        JWT,
        "not _OTHER_PURPOSE.isdisjoint(token.claims)",
        OF_JWT,
    ),
    _condition("jwt-iss", "iss is the issuer whose key signed", JWT, "token.issuer != rules.issuer", OF_JWT),
    _condition("jwt-exp", "the token has not expired", JWT, "now >= expires_at + leeway_seconds", OF_JWT),
    _condition("jwt-nbf", "the token is valid already", JWT, "now < not_before - leeway_seconds", OF_JWT),
    _condition("jwt-order", "exp is after iat", JWT, "expires_at <= issued_at", OF_JWT),
    _condition(
        "jwt-lifetime",
        "the token does not live too long",
        JWT,
        "expires_at - issued_at > rules.maximum_lifetime_seconds",
        OF_JWT,
    ),
    _condition("jwt-jti", "jti is a string", JWT, 'not isinstance(claims.get("jti", ""), str)', OF_JWT),
    _condition(
        "jwt-cnf",
        "cnf has no member that nobody checks",
        JWT,
        'not isinstance(cnf, dict) or not cnf or not {"jkt", "x5t#S256"}.issuperset(cnf)',
        OF_JWT,
    ),
    _condition("jwt-aud-form", "aud is a string or a list", JWT, "not isinstance(named, list) or not named", OF_JWT),
    _condition("jwt-aud-element", "the elements of aud are strings", JWT, "not isinstance(audience, str)", OF_JWT),
    _condition("jwt-aud", "aud names this resource", JWT, "audiences.isdisjoint(named)", OF_JWT),
    _condition(
        "jwt-date-type",
        "times are numbers, and no booleans",
        JWT,
        "isinstance(value, bool) or not isinstance(value, int | float)",
        OF_JWT,
    ),
    _condition(
        "jwt-date-range", "times are finite and before the year 10000", JWT, "not 0 <= value <= LATEST_DATE", OF_JWT
    ),
    _condition("jwt-name-length", "names are neither empty nor too long", JWT, "not 0 < len(value) <= longest", OF_JWT),
    _condition("jwt-name-printable", "names can be printed", JWT, "not value.isprintable()", OF_JWT),
    _condition("jwt-azp", "azp and client_id agree", JWT, 'claims.get("azp", client_id) != client_id', OF_JWT),
    _condition("jose-length", "the token is not too long", JOSE, "len(token) > MAX_TOKEN_BYTES", OF_JOSE),
    _condition("jose-signature", "there is a signature", JOSE, "not signed", OF_JOSE),
    _condition("jose-members", "the header brings no key, extension or compression", JOSE, "name in members", OF_JOSE),
    _condition("jose-algorithm", "the algorithm is a public-key signature", JOSE, "alg not in algorithms", OF_JOSE),
    _condition("jose-kid", "kid is visible ASCII", JOSE, "not isinstance(kid, str) or not is_key_id(kid)", OF_JOSE),
    _condition(
        "jose-typ", "typ is a short string", JOSE, "not isinstance(typ, str) or len(typ) > MAX_TYP_CHARACTERS", OF_JOSE
    ),
    _condition("jwk-private", "the key is no private or symmetric one", JWK, "not _PRIVATE.isdisjoint(jwk)", OF_JWK),
    _condition("jwk-use", "the key is for signatures", JWK, '"use" in jwk and jwk["use"] != "sig"', OF_JWK),
    _condition("jwk-key-ops", "the key may verify", JWK, '"verify" not in operations', OF_JWK),
    _condition(
        "jwk-alg",
        "the key's alg fits its type",
        JWK,
        'not isinstance(jwk["alg"], str) or jwk["alg"] not in fitting',
        OF_JWK,
    ),
    _condition(
        "jwk-length",
        "coordinates have the curve's length",
        JWK,
        "any(len(coordinate) != curve[1] for coordinate in coordinates)",
        OF_JWK,
    ),
    _condition(
        "jwk-rsa-size", "RSA keys are neither weak nor huge", JWK, "not MIN_RSA_BITS <= bits <= MAX_RSA_BITS", OF_JWK
    ),
    _condition(
        "jwk-rsa-exponent",
        "RSA exponents are odd and not small",
        JWK,
        "len(exponent) > MAX_EXPONENT_BYTES or e < MIN_EXPONENT or not e & 1",
        OF_JWK,
    ),
    _condition("dpop-field", "there is one proof", DPOP, "len(values) != 1", OF_DPOP),
    _condition("dpop-length", "the proof is not too long", DPOP, "len(value) > jose.MAX_TOKEN_BYTES", OF_DPOP),
    _condition("dpop-signature", "the proof is signed with its key", DPOP, "not brought.key.verifies(jws)", OF_DPOP),
    _condition("dpop-object", "the payload is an object", DPOP, "not isinstance(claims, dict)", OF_DPOP),
    _condition("dpop-htm", "the proof is for this method", DPOP, "proof.htm != target.method", OF_DPOP),
    _condition(
        "dpop-htu",
        "the proof is for this URL",
        DPOP,
        "proof.htu != target.url and _normalised(proof.htu) != target.url",
        OF_DPOP,
    ),
    _condition(
        "dpop-ath",
        "the proof is about this token",
        DPOP,
        "target.token_digest is not None and proof.ath != b64url.encode(target.token_digest)",
        OF_DPOP,
    ),
    _condition(
        "dpop-binding",
        "the token is bound to the proof's key",
        DPOP,
        "target.thumbprint is not None and proof.thumbprint != target.thumbprint",
        OF_DPOP,
    ),
    _condition(
        "dpop-nonce",
        "the nonce is ours",
        DPOP,
        "is_our_nonce is not None and (proof.nonce is None or not is_our_nonce(proof.nonce))",
        OF_DPOP,
    ),
    _condition(
        "dpop-ahead", "the proof is not from the future", DPOP, "proof.issued_at > now + window.leeway_seconds", OF_DPOP
    ),
    _condition("dpop-old", "the proof is not old", DPOP, "proof.issued_at < now - window.lifetime_seconds", OF_DPOP),
    _condition("dpop-typ", "typ is dpop+jwt", DPOP, "header.typ is None or header.typ.lower() != TYP", OF_DPOP),
    _condition("dpop-kind", "the proof's key fits its algorithm", DPOP, "header.alg not in key.algorithms", OF_DPOP),
    _condition(
        "dpop-jti",
        "jti is short and can be printed",
        DPOP,
        "not 0 < len(jti.encode()) <= MAX_JTI_BYTES or not jti.isprintable()",
        OF_DPOP,
    ),
    _condition(
        "token-issuer", "the issuer is trusted", VERIFICATION, "unverified.issuer not in self._trusted", OF_TOKEN
    ),
    _condition(
        "token-algorithm",
        "the algorithm is accepted of this issuer",
        VERIFICATION,
        "unverified.jws.header.alg not in issuer.settings.policy.algorithms",
        OF_TOKEN,
    ),
    _condition("token-key", "the issuer has such a key", VERIFICATION, "found is None", OF_TOKEN),
    _condition(
        "token-signature",
        "the signature is the key's",
        VERIFICATION,
        "not found.key.verifies(unverified.jws)",
        OF_TOKEN,
    ),
    _condition("token-inactive", "the issuer says that the token is active", VERIFICATION, "said is None", OF_TOKEN),
    Ablation(
        "token-type",
        "the token is an access token",
        VERIFICATION,
        "jwt.check_type(unverified, issuer.rules)",
        "pass",
        OF_TOKEN,
    ),
    _condition(
        "policy-claims",
        "required claims have accepted values",
        POLICY,
        "name not in token.claims or not _is_accepted(token.claims[name], accepted)",
        OF_TOKEN,
    ),
    _condition(
        "policy-single",
        "the token is for no other resource",
        POLICY,
        "self.single_audience and isinstance(audience, list) and len(audience) != 1",
        OF_TOKEN,
    ),
    _condition("policy-age", "the token is not too old", POLICY, "now >= oldest + leeway_seconds", OF_TOKEN),
)
