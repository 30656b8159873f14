"""MTLS, as far as it shows to a client that has no certificate: what is bound to one, and what is only claimed."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Mapping
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import strategies as st

from conformance_suites.forgeries import Tally
from pytest_mcp_conformance import Finding, Inconclusive, NotApplicable, requirement
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Header
from pytest_mcp_conformance.forge.jws import b64url, new_ec_key, read_jws
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

EPOCH = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
LIFETIME = dt.timedelta(days=365 * 30)
IDENTITY_FIELDS = (
    "X-Forwarded-User",
    "X-Remote-User",
    "Remote-User",
    "X-User",
    "X-User-Id",
    "X-Authenticated-User",
    "X-Auth-Request-User",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-WebAuth-User",
    "X-Goog-Authenticated-User-Email",
    "X-MS-Client-Principal-Name",
    "X-Original-User",
    "X-SSL-Client-S-DN",
)
UNDERSCORED = ("X_FORWARDED_USER", "REMOTE_USER", "SSL_CLIENT_S_DN")
SUBJECT = "conformance"
OFFERED = "tls_client_certificate_bound_access_tokens"


class CertificateNotAsked(Finding):
    """A token that is bound to a certificate was served without it."""


class IdentityFieldBelieved(Finding):
    """A request without a credential was served, because of a header that says who sends it."""


class CertificateFieldBelieved(Finding):
    """A request without a credential was served, because of a header that holds a certificate."""


class BoundCertificateFieldBelieved(Finding):
    """A token that is bound to a certificate was served without it, because of a header that holds it."""


def _certificate() -> x509.Certificate:
    """A self-signed client certificate of a new key."""
    key, name = new_ec_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SUBJECT)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(EPOCH)
    return builder.not_valid_after(EPOCH + LIFETIME).sign(key, SHA256())


def _certificate_fields(certificate: x509.Certificate) -> Mapping[str, str]:
    """The certificate as proxies put it into headers (RFC 9440 §2.1, and the products' own ways)."""
    der, pem = certificate.public_bytes(Encoding.DER), certificate.public_bytes(Encoding.PEM).decode()
    text, escaped = base64.b64encode(der).decode(), quote(pem, safe="")
    digest = hashlib.sha256(der).hexdigest()
    return {
        "Client-Cert": f":{text}:",
        "X-Client-Cert": escaped,
        "X-SSL-Client-Cert": escaped,
        "SSL-Client-Cert": escaped,
        "X-Forwarded-Client-Cert": f'Hash={digest};Cert="{escaped}";Subject="CN={SUBJECT}"',
        "X-Forwarded-Tls-Client-Cert": text,
        "X-ARR-ClientCert": text,
        "X-Amzn-Mtls-Clientcert": escaped,
        "X-Amzn-Mtls-Clientcert-Leaf": escaped,
        "X-SSL-Client-Verify": "SUCCESS",
        "X-SSL-Client-SHA256": digest,
    }


@requirement("MTLS-001")
def test_a_token_bound_to_a_certificate_needs_it(target: Target, bench: Bench) -> None:
    """RFC 8705 §3: over no certificate. A run has none of its own, so whether the right one opens is not seen."""
    if target.discovery.resource_document().members.get(OFFERED) is not True:
        raise NotApplicable(f"the resource's metadata does not say {OFFERED}")
    token = _bound_to(bench, _certificate())
    with target.controlled(target.require_credential()):
        seen = target.present(token.header[1])
        if seen.authenticated:
            raise CertificateNotAsked(
                "a token that is bound to a certificate was served without it",
                evidence=seen.exchange,
                expected="401 invalid_token",
                got=seen.exchange.summary,
            )
        if not seen.refused:
            raise Inconclusive(
                f"a token without its certificate was neither served nor refused: {seen.exchange.summary}"
            )


@requirement("MTLS-002")
def test_identities_in_headers_are_not_believed(target: Target, bench: Bench, space: Space) -> None:
    """RFC 9700 §4.13, RFC 9440 §2.4: headers for a proxy to write, and for no client.

    All fields of a kind are sent in one request, by the name of the run's own user where its token tells it. Those with
    an underscore are sent apart: servers may refuse them.
    """
    target.require_protected()
    users = ["admin", *_subjects(target)]
    certificate = _certificate_fields(_certificate())

    tally = Tally()

    def judge(fields: tuple[Header, ...]) -> None:
        seen = target.judge(target.harmless(), *fields)
        tally.count(seen)
        if seen.authenticated and any(name in certificate for name, _ in fields):
            raise CertificateFieldBelieved(
                "a request without a credential was served, because of a header that holds a certificate",
                evidence=seen.exchange,
                expected="401",
                got=seen.exchange.summary,
                counterexample=", ".join(name for name, _ in fields),
            )
        if seen.authenticated:
            raise IdentityFieldBelieved(
                "a request without a credential was served, because of a header that names its user",
                evidence=seen.exchange,
                expected="401",
                got=seen.exchange.summary,
                counterexample=", ".join(name for name, _ in fields),
            )

    with target.controlled(target.require_credential()):
        batches = [tuple((name, user) for name in names) for user in users for names in (IDENTITY_FIELDS, UNDERSCORED)]
        batches.append(tuple(certificate.items()))
        cases = st.sampled_from(IDENTITY_FIELDS).flatmap(
            lambda name: st.sampled_from([((name.lower(), users[-1]),), ((name, users[-1]), (name, "nobody"))])
        )
        space.search(judge, cases, classics=batches, max_examples=2)
        if bench.mint.available:
            _judge_bound(target, bench)
    tally.settle()


def _subjects(target: Target) -> list[str]:
    credential = target.credential
    jws = None if credential is None else read_jws(credential.token)
    return [] if jws is None or not isinstance(jws.claims.get("sub"), str) else [jws.claims["sub"]]


def _bound_to(bench: Bench, certificate: x509.Certificate) -> Credential:
    """A token of user A for this certificate (RFC 8705 §3.1). Raises: NotRun when the run cannot mint."""
    thumbprint = b64url(hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest())
    return Credential("a", bench.possession.mint({"cnf": {"x5t#S256": thumbprint}}))


def _judge_bound(target: Target, bench: Bench) -> None:
    """Nothing is judged where a token that is bound to a certificate is served without it: see MTLS-001."""
    certificate = _certificate()
    bound = _bound_to(bench, certificate)
    if not target.present(bound.header[1]).refused:
        return
    fields = _certificate_fields(certificate)
    for batch in (tuple(fields.items())[:1], tuple(fields.items())[1:]):
        seen = target.judge(target.harmless(), bound.header, *batch)
        if seen.authenticated:
            raise BoundCertificateFieldBelieved(
                "a token that is bound to a certificate was served to a client that only sent a copy of it in a header",
                evidence=seen.exchange,
                expected="401 invalid_token",
                got=seen.exchange.summary,
                counterexample=", ".join(name for name, _ in batch),
            )
