"""Area dpop at the embedded authorization server: codes that are bound to a key (RFC 9449 §10)."""

import json
from collections.abc import Iterator

from tests.guard.attacks.authorization_attacks import no_token
from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import Deployment
from tests.guard.attacks.dpop_attacks import Client
from tests.guard.attacks.flow import signed_in


def proof(client: Client) -> tuple[bytes, bytes]:
    """A new proof of the client for the token endpoint, as a field."""
    return b"DPoP", client.proof(htu=f"{client.live.origin}/token", ath=None)


@attack("dpop-24")
def a_code_with_another_key(live: Deployment) -> Iterator[Shot]:
    flow, client, thief = signed_in(live), Client(live), Client(live)
    fields = flow.fields(flow.code(dpop_jkt=client.thumbprint))
    yield Shot("another-key", flow.post("/token", fields, proof(thief)), (400,), check=no_token)
    yield Shot("no-proof", flow.post("/token", fields), (400,), check=no_token)
    yield Shot("both-keys", flow.post("/token", fields, proof(client), proof(thief)), (400,), check=no_token)
    seen = live.send(flow.post("/token", fields, proof(client)))
    assert seen.status == 200, "the code is left to the client"
    tokens = json.loads(seen.body)
    live.secrets.add(tokens["access_token"])
    assert tokens["token_type"] == "DPoP"
    yield Shot("another-key, late", flow.post("/token", fields, proof(thief)), (400,), check=no_token)
    yield Shot("no-proof, late", flow.post("/token", fields), (400,), check=no_token)
    yield Shot("as-bearer", live.call(tokens["access_token"]), (401,))
