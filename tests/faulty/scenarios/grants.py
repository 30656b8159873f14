"""At the authorization server: documents, clients, codes, tokens, revocation (ASM, AUD, PKCE, REF, TOK)."""

from __future__ import annotations

import base64

import anyio

from tests.faulty.scenarios.actor import BASE, CHALLENGE, REDIRECT, VERIFIER, Actor, Seen, claims_of, header_of, shape
from tests.support.model_server import ModelServer
from tests.support.model_server.server_metadata import OAUTH_FORM, OPENID_FORM

FORWARDED = (("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "https"), ("Host", "evil.example"))


async def observe(server: ModelServer) -> Seen:
    return await Actor(server).follow(
        documents,
        authorization,
        challenges,
        redemption,
        reuse,
        refreshing,
        resources,
        ending,
    )


async def documents(actor: Actor) -> None:
    for path in (OAUTH_FORM, OPENID_FORM):
        answer = await actor.send("GET", path)
        actor.note(path, (answer.status, answer.header("content-type"), answer.json()))
        for header in FORWARDED:
            forged = await actor.send("GET", path, header)
            actor.note(f"{path} with {header[0]}", (forged.status, "evil" in forged.text or "https" in forged.text))
    keys = (await actor.send("GET", actor.path("/jwks"))).json()["keys"]
    actor.note("members of keys", [sorted(key) for key in keys])
    actor.note("kid", len({key["kid"] for key in keys}) == len(keys))
    answer = await actor.send("GET", actor.path("/authorize"), ("Origin", "https://evil.example"))
    actor.note("CORS at /authorize", answer.header("access-control-allow-origin"))


async def authorization(actor: Actor) -> None:
    client = (await actor.register())["client_id"]
    actor.note("approved", sorted(await actor.authorize(client)))
    actor.note("denied", await actor.authorize(client, approve=False))
    actor.note("codes", shape((await actor.authorize(client))["code"]))
    chosen = await actor.register(client_id="alice", grant_types=["client_credentials"])
    actor.note("a chosen client id", chosen.get("client_id") == "alice")


async def challenges(actor: Actor) -> None:
    client = (await actor.register())["client_id"]
    for name, changes in (
        ("none", {"code_challenge": None, "code_challenge_method": None}),
        ("short", {"code_challenge": "abc"}),
        ("odd", {"code_challenge": "é" * 43}),
        ("plain", {"code_challenge_method": "plain", "code_challenge": VERIFIER}),
        ("unnamed", {"code_challenge_method": None}),
        ("S512", {"code_challenge_method": "S512"}),
    ):
        answer = await actor.authorize(client, **changes)
        actor.note(f"{name} challenge", answer.get("error", "code" in answer))
    confidential = await actor.register(token_endpoint_auth_method="client_secret_basic")
    answer = await actor.authorize(confidential["client_id"], code_challenge=None, code_challenge_method=None)
    if "code" in answer:
        pair = base64.b64encode(f"{confidential['client_id']}:{confidential['client_secret']}".encode()).decode()
        fields = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": REDIRECT}
        redeemed = await actor.form("/token", {**fields, "code_verifier": VERIFIER}, ("Authorization", f"Basic {pair}"))
        actor.note("a verifier without a challenge", redeemed.status)


async def redemption(actor: Actor) -> None:
    client, other = await actor.two_clients()
    for name, changes in (
        ("no verifier", {"code_verifier": None}),
        ("empty verifier", {"code_verifier": ""}),
        ("another verifier", {"code_verifier": "w" * 43}),
        ("the challenge", {"code_verifier": CHALLENGE}),
        ("a longer verifier", {"code_verifier": VERIFIER + "x"}),
        ("a far too long verifier", {"code_verifier": "v" * 1000}),
        ("another redirect", {"redirect_uri": f"{REDIRECT}/x"}),
        ("another client", {"client_id": other}),
    ):
        code = (await actor.authorize(client))["code"]
        answer = await actor.redeem(client, code, **changes)
        actor.note(name, (answer.status, (answer.json() or {}).get("error")))
    upper = CHALLENGE.swapcase()
    code = (await actor.authorize(client, code_challenge=upper))["code"]
    actor.note("a challenge in other case", (await actor.redeem(client, code)).status)


async def reuse(actor: Actor) -> None:
    client = (await actor.register())["client_id"]
    code = (await actor.authorize(client))["code"]
    answer = await actor.redeem(client, code)
    tokens = answer.json()
    claims = claims_of(tokens["access_token"])
    actor.note(
        "token response", (answer.status, answer.header("content-type"), answer.header("cache-control"), sorted(tokens))
    )
    actor.note(
        "claims",
        (sorted(claims), claims["aud"], claims["exp"] - claims["iat"], header_of(tokens["access_token"])["typ"]),
    )
    actor.note("refresh token", shape(tokens["refresh_token"]))
    actor.note("lifetime", tokens.get("expires_in"))
    actor.note("replayed with a wrong verifier", (await actor.redeem(client, code, code_verifier="w" * 43)).status)
    actor.note("token after a wrong replay", await actor.works(tokens["access_token"]))
    actor.note("replayed", (await actor.redeem(client, code)).status)
    actor.note("token after a replay", await actor.works(tokens["access_token"]))
    actor.note("refresh after a replay", (await actor.refresh(client, tokens["refresh_token"])).status)
    code = (await actor.authorize(client))["code"]
    statuses: list[int] = []

    async def race() -> None:
        statuses.append((await actor.redeem(client, code)).status)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(race)
        tasks.start_soon(race)
    actor.note("two at once", sorted(statuses))


async def refreshing(actor: Actor) -> None:
    client, other = await actor.two_clients()
    first = (await actor.redeem(client, (await actor.authorize(client))["code"])).json()
    old = first["refresh_token"]
    actor.note("a refresh token as access token", await actor.works(old))
    actor.note("refresh by another client", (await actor.refresh(other, old)).status)
    actor.note("refresh with more scope", (await actor.refresh(client, old, scope="mcp:tools mcp:admin")).status)
    first = (await actor.redeem(client, (await actor.authorize(client))["code"])).json()
    old = first["refresh_token"]
    second = (await actor.refresh(client, old, resource=f"{BASE}/mcp")).json()
    actor.note("refreshed", sorted(second))
    new = second.get("refresh_token", "")
    actor.note("rotated", new != old)
    actor.note("the old one again", (await actor.refresh(client, old)).status)
    actor.note("the new one after that", (await actor.refresh(client, new)).status)
    actor.note("garbage", (await actor.refresh(client, "garbage")).status)
    actor.note("long garbage", (await actor.refresh(client, "g" * 5000)).status)
    await chains(actor)


async def chains(actor: Actor) -> None:
    """Refresh tokens that have had several successors, that nobody presents, and that stand for less."""
    client = (await actor.register())["client_id"]
    code = (await actor.authorize(client))["code"]
    actor.note("a code as access token", await actor.works(code))
    held = [(await actor.redeem(client, code)).json()["refresh_token"]]
    for _ in range(2):
        held.append((await actor.refresh(client, held[-1])).json().get("refresh_token", ""))
    actor.note("the first of three", (await actor.refresh(client, held[0])).status)
    actor.note("the third after that", (await actor.refresh(client, held[-1])).status)
    wanted = "mcp:tools mcp:admin"
    first = (await actor.redeem(client, (await actor.authorize(client, scope=wanted))["code"])).json()
    scopes = first["scope"].split()
    narrow = (await actor.refresh(client, first["refresh_token"], scope=scopes[0])).json()
    wide = await actor.refresh(client, narrow.get("refresh_token", ""), scope=first["scope"])
    actor.note("wide again", (wide.status, len(scopes)))
    nobody = (await actor.redeem(client, (await actor.authorize(client))["code"])).json()["refresh_token"]
    answer = await actor.form("/token", {"grant_type": "refresh_token", "refresh_token": nobody})
    actor.note("a refresh by nobody", answer.status)
    secret = await actor.register(token_endpoint_auth_method="client_secret_basic")
    named, pair = secret["client_id"], f"{secret['client_id']}:{secret['client_secret']}"
    basic = ("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    code = (await actor.authorize(named))["code"]
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER}
    token = (await actor.form("/token", fields, basic)).json()["refresh_token"]
    fields = {"grant_type": "refresh_token", "refresh_token": token, "client_id": named}
    actor.note("a refresh without its secret", (await actor.form("/token", fields)).status)


async def resources(actor: Actor) -> None:
    client = (await actor.register())["client_id"]
    for resource in (
        f"{BASE.upper()}/mcp",
        "https://other.example/mcp",
        f"{BASE}/mcp#x",
        "mcp",
    ):
        answer = await actor.authorize(client, resource=resource)
        actor.note(f"resource {resource}", answer.get("error", "code" in answer))
    code = (await actor.authorize(client))["code"]
    redeemed = await actor.redeem(client, code, resource=f"{BASE}/sse")
    actor.note("widened", (redeemed.status, (redeemed.json() or {}).get("error")))
    tokens = (await actor.redeem(client, (await actor.authorize(client)).get("code", ""), resource=None)).json()
    refreshed = await actor.refresh(client, tokens.get("refresh_token", ""), resource=f"{BASE}/sse")
    actor.note("widened by refresh", (refreshed.status, (refreshed.json() or {}).get("error")))


async def ending(actor: Actor) -> None:
    client, other = await actor.two_clients()
    confidential = await actor.register(token_endpoint_auth_method="client_secret_basic")
    pair = base64.b64encode(f"{confidential['client_id']}:{confidential['client_secret']}".encode()).decode()
    basic = ("Authorization", f"Basic {pair}")
    own = confidential["client_id"]
    code = (await actor.authorize(own))["code"]
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER}
    held = (await actor.form("/token", fields, basic)).json()["access_token"]
    tokens = (await actor.redeem(client, (await actor.authorize(client))["code"])).json()
    access, refresh = tokens["access_token"], tokens["refresh_token"]
    actor.note("introspection by nobody", (await actor.form("/introspect", {"token": access})).status)
    actor.note("introspection by GET", (await actor.send("GET", f"{actor.path('/introspect')}?token={access}")).status)
    actor.note("introspection of one's own", (await actor.form("/introspect", {"token": held}, basic)).json()["active"])
    actor.note("unknown", (await actor.form("/revoke", {"token": "x", "client_id": client})).status)
    actor.note("revoked by another", (await actor.form("/revoke", {"token": access, "client_id": other})).status)
    actor.note("token after that", await actor.works(access))
    await actor.form("/revoke", {"token": refresh, "client_id": client})
    actor.note("token after its refresh token", await actor.works(access))
    actor.note("refresh after revocation", (await actor.refresh(client, refresh)).status)
    await actor.form("/revoke", {"token": held}, basic)
    actor.note(
        "introspection after revocation",
        sorted((await actor.form("/introspect", {"token": held}, basic)).json().items()),
    )
    actor.note("revoked", await actor.works(held))
