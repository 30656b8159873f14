"""The introspection client: who asks, what is sent, what is kept, and an endpoint that is slow, down or broken."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from mcp_guard.clock import ManualClock
from mcp_guard.failures import ConfigurationError, IntrospectionUnavailable
from mcp_guard.introspection import Anonymous, ClientSecret, Introspection, PrivateKeyJwt
from mcp_guard.introspection.client import IN_FLIGHT, NEGATIVES
from mcp_guard.secret import Secret
from tests.guard.introspecting import OPAQUE, Endpoint, endpoint, said
from tests.guard.signing import rsa_private
from tests.guard.test_keysources import free_port

ISSUER = "https://as.example.com"


@pytest.fixture
async def served() -> AsyncIterator[Endpoint]:
    async with endpoint() as one:
        yield one


def client(one: Endpoint, clock: ManualClock, **settings: Any) -> Introspection:
    return Introspection(ISSUER, settings.pop("who", Anonymous()), one.introspect, clock=clock, **settings)


def pem(key: Any) -> Secret:
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


async def unavailable(asking: Introspection, token: bytes = OPAQUE) -> IntrospectionUnavailable:
    with pytest.raises(IntrospectionUnavailable) as caught:
        await asking.ask(token)
    assert caught.value.retry_after_seconds >= 1
    assert token.decode() not in caught.value.reason
    return caught.value


async def test_an_active_token_is_answered_with_what_the_issuer_says(served: Endpoint, clock: ManualClock) -> None:
    asking = client(served, clock)
    await asking.start()
    answer = await asking.ask(OPAQUE)
    assert answer.said == said()
    assert answer.good_until == clock.monotonic() + 30
    assert served.asked == [{"token": OPAQUE.decode(), "token_type_hint": "access_token"}]
    assert "\r\nauthorization:" not in served.heads[0].lower()
    await asking.close()


async def test_a_client_secret_is_form_encoded_before_it_is_put_into_base64(
    served: Endpoint, clock: ManualClock
) -> None:
    asking = client(served, clock, who=ClientSecret("a client:1", Secret("p%+:ä/")))
    await asking.ask(OPAQUE)
    field = served.heads[0].lower().split("\r\nauthorization: basic ")
    assert len(field) == 2
    encoded = served.heads[0].split("Basic ")[1].split("\r\n")[0]
    assert base64.b64decode(encoded) == b"a+client%3A1:p%25%2B%3A%C3%A4%2F"
    assert "client_id" not in served.asked[0]
    await asking.close()


@pytest.mark.parametrize(
    ("private", "alg", "kind"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ES256", ECKey),
        (ec.generate_private_key(ec.SECP384R1()), "ES384", ECKey),
        (rsa_private(2048, "client"), "PS256", RSAKey),
    ],
    ids=["P-256", "P-384", "RSA"],
)
async def test_an_assertion_is_for_the_issuer_alone_for_a_minute_and_new_each_time(
    served: Endpoint, clock: ManualClock, private: Any, alg: str, kind: Any
) -> None:
    asking = client(served, clock, who=PrivateKeyJwt("guard", pem(private), key_id="k9"))
    await asking.ask(OPAQUE)
    await asking.ask(b"another")
    public = kind.import_key(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    tokens = [jwt.decode(asked["client_assertion"], public, algorithms=[alg]) for asked in served.asked]
    now = int(clock.wall())
    for token in tokens:
        assert token.header == {"alg": alg, "typ": "JWT", "kid": "k9"}
        assert {**token.claims, "jti": ""} == {
            "iss": "guard",
            "sub": "guard",
            "aud": ISSUER,
            "jti": "",
            "iat": now,
            "exp": now + 60,
        }
    assert len({token.claims["jti"] for token in tokens}) == 2
    assert served.asked[0]["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert served.asked[0]["client_id"] == "guard"
    await asking.close()


def test_nothing_that_authenticates_shows_itself() -> None:
    key = pem(ec.generate_private_key(ec.SECP256R1()))
    shown = f"{ClientSecret('guard', Secret('hush-hush'))!r} {PrivateKeyJwt('guard', key)!r}"
    assert "guard" in shown
    assert "hush" not in shown
    assert "PRIVATE" not in shown


@pytest.mark.parametrize(
    "key",
    [
        Secret("nothing"),
        pem(ec.generate_private_key(ec.SECP521R1())),
        pem(rsa_private(1024, "short")),
    ],
)
def test_a_key_that_cannot_sign_is_refused(key: Secret) -> None:
    with pytest.raises(ConfigurationError, match="client key"):
        PrivateKeyJwt("guard", key)


@pytest.mark.parametrize("client_id", ["", "gu\nard", "gärd"])
def test_a_client_needs_an_id_and_a_secret(client_id: str) -> None:
    with pytest.raises(ConfigurationError, match="client id"):
        ClientSecret(client_id, Secret("x"))
    with pytest.raises(ConfigurationError, match="secret"):
        ClientSecret("guard", Secret(""))


def test_settings_that_cannot_work_are_named() -> None:
    with pytest.raises(ConfigurationError, match="positive"):
        Introspection(ISSUER, Anonymous(), "http://127.0.0.1:1/", positive=timedelta(minutes=6))
    with pytest.raises(ConfigurationError, match="introspection endpoint"):
        Introspection(ISSUER, Anonymous(), "http://as.example.com/introspect")
    with pytest.raises(ConfigurationError, match="Anonymous"):
        Introspection(ISSUER, Anonymous())
    with pytest.raises(ConfigurationError, match="introspection endpoint"):
        Introspection("my-issuer", ClientSecret("guard", Secret("x")))


async def test_a_thousand_that_present_one_token_ask_once(served: Endpoint, clock: ManualClock) -> None:
    served.hold = asyncio.Event()
    asking = client(served, clock)
    waiting = [asyncio.create_task(asking.ask(OPAQUE)) for _ in range(1000)]
    await asyncio.sleep(0)
    served.hold.set()
    assert {(await one).said is not None for one in waiting} == {True}
    assert len(served.asked) == 1
    await asking.close()


async def test_a_question_outlives_the_request_that_began_it(served: Endpoint, clock: ManualClock) -> None:
    served.hold = asyncio.Event()
    asking = client(served, clock)
    leader = asyncio.create_task(asking.ask(OPAQUE))
    await asyncio.sleep(0)
    follower = asyncio.create_task(asking.ask(OPAQUE))
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.wait([leader])
    assert leader.cancelled()
    served.hold.set()
    assert (await follower).said == said()
    assert len(served.asked) == 1
    await asking.close()


async def test_different_tokens_are_asked_about_apart(served: Endpoint, clock: ManualClock) -> None:
    asking = client(served, clock)
    await asyncio.gather(asking.ask(b"one"), asking.ask(b"two"))
    assert sorted(asked["token"] for asked in served.asked) == ["one", "two"]
    await asking.close()


async def test_a_flood_of_tokens_is_not_passed_on(served: Endpoint, clock: ManualClock) -> None:
    served.hold = asyncio.Event()
    asking = client(served, clock)
    waiting = [asyncio.create_task(asking.ask(b"%d" % number)) for number in range(IN_FLIGHT)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting), "so many may ask at once"
    assert not (await unavailable(asking)).is_outage
    served.hold.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    clock.advance(1)
    assert (await asking.ask(OPAQUE)).said == said()
    await asking.close()


async def test_closing_ends_what_is_under_way(served: Endpoint, clock: ManualClock) -> None:
    served.hold = asyncio.Event()
    asking = client(served, clock)
    waiting = asyncio.create_task(asking.ask(OPAQUE))
    await asyncio.sleep(0)
    await asking.close()
    await asyncio.wait([waiting], timeout=5)
    assert waiting.cancelled()


async def test_an_inactive_token_is_remembered_for_five_seconds(served: Endpoint, clock: ManualClock) -> None:
    served.says({"active": False})
    asking = client(served, clock)
    for _ in range(3):
        assert (await asking.ask(OPAQUE)).said is None
    assert len(served.asked) == 1
    served.says(said())
    clock.advance(5)
    assert (await asking.ask(OPAQUE)).said == said()
    await asking.close()


async def test_inactive_tokens_take_a_bounded_place(served: Endpoint, clock: ManualClock) -> None:
    served.says({"active": False})
    asking = client(served, clock)
    asking._inactive.update({b"%d" % number: 1e9 for number in range(NEGATIVES)})
    assert (await asking.ask(OPAQUE)).said is None
    assert len(asking._inactive) == 1
    await asking.close()


@pytest.mark.parametrize(
    ("body", "status", "is_outage"),
    [
        (b"{}", "500 Internal Server Error", True),
        (b"{}", "503 Service Unavailable", True),
        (b"{}", "401 Unauthorized", False),
        (b"{}", "429 Too Many Requests", False),
        (b"{}", "302 Found", False),
        (b"<html>", "200 OK", False),
        (b"[]", "200 OK", False),
        (b"{}", "200 OK", False),
        (b'{"active":"true"}', "200 OK", False),
        (b'{"active":1}', "200 OK", False),
        (b'{"active":null}', "200 OK", False),
        (b'{"active":false,"active":true}', "200 OK", False),
        (b'{"active":true,"exp":NaN}', "200 OK", False),
        (b" " * 300_000 + b'{"active":true}', "200 OK", False),
    ],
)
async def test_a_fault_of_the_endpoint_is_no_verdict_and_not_remembered(
    served: Endpoint, clock: ManualClock, body: bytes, status: str, is_outage: bool
) -> None:
    served.says(body, status, "location: http://127.0.0.1:1/")
    asking = client(served, clock)
    assert (await unavailable(asking)).is_outage is is_outage
    served.says(said())
    clock.advance(1)
    assert (await asking.ask(OPAQUE)).said == said()
    await asking.close()


async def test_an_endpoint_that_nobody_answers_at_is_asked_once_a_second(clock: ManualClock) -> None:
    port = await free_port()
    asking = Introspection(ISSUER, Anonymous(), f"http://127.0.0.1:{port}/", clock=clock)
    reasons = {(await unavailable(asking, b"token-%d" % number)).reason for number in range(5)}
    assert len(reasons) == 1
    assert "cannot be reached" in reasons.pop()
    await asking.close()


async def test_an_endpoint_that_fails_is_spared_for_a_second_whatever_token_comes(
    served: Endpoint, clock: ManualClock
) -> None:
    served.says(b"{}", "503 Service Unavailable")
    asking = client(served, clock)
    for number in range(5):
        assert (await unavailable(asking, b"token-%d" % number)).is_outage
        clock.advance(0.19)
    assert len(served.asked) == 1
    clock.advance(0.06)
    await unavailable(asking)
    assert len(served.asked) == 2
    served.says(said())
    clock.advance(1)
    assert (await asking.ask(OPAQUE)).said == said()
    await asking.close()


async def test_an_endpoint_that_hangs_is_given_up(served: Endpoint, clock: ManualClock) -> None:
    served.hold = asyncio.Event()
    asking = client(served, clock)
    fault = await unavailable(asking)
    assert fault.is_outage
    assert "within 2 s" in fault.reason
    await asking.close()


async def test_the_endpoint_is_found_by_the_metadata_once(served: Endpoint, clock: ManualClock) -> None:
    served.documents["/.well-known/openid-configuration"] = {
        "issuer": served.url,
        "introspection_endpoint": served.introspect,
    }
    asking = Introspection(served.url, Anonymous(), clock=clock)
    assert (await asking.ask(OPAQUE)).said == said()
    served.documents.clear()
    assert (await asking.ask(b"another")).said == said()
    await asking.close()


@pytest.mark.parametrize("metadata", [{"issuer": "https://evil.example"}, {}, {"introspection_endpoint": "file:///x"}])
async def test_metadata_that_does_not_say_where_is_an_outage_of_nobody(
    served: Endpoint, clock: ManualClock, metadata: dict[str, str]
) -> None:
    served.documents["/.well-known/oauth-authorization-server"] = {"issuer": served.url, **metadata}
    asking = Introspection(served.url, Anonymous(), clock=clock)
    assert not (await unavailable(asking)).is_outage
    assert served.asked == []
    await asking.close()
