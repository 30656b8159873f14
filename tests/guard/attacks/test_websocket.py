"""Attack ws-04: a handshake with a good token, where the deployment does not open WebSockets."""

import pytest

from tests.guard.attacks.deployment import deployed
from tests.guard.attacks.oracle import control
from tests.guard.attacks.websocket_attacks import handshake
from tests.guard.servers import SERVERS

SPEAKING = sorted(SERVERS.keys() - {"granian"})
"""Servers that hand WebSockets to the app at all."""


@pytest.mark.parametrize("server", SPEAKING)
def test_ws_04_where_no_websockets_are_opened_a_good_token_opens_none(server: str) -> None:
    with deployed(server=server, websocket=None) as live:
        seen = live.send(handshake(live, live.token()))
        assert seen.status in {403, 404}
        assert live.downstream.calls == 0
        (record,) = live.audit.records()
        assert record["verdict"] == "scope_not_guarded"
        control(live, "ws-04: afterwards")


@pytest.mark.parametrize("server", SPEAKING)
def test_the_same_handshake_reaches_the_app_where_they_are_opened(server: str) -> None:
    with deployed(server=server) as live:
        live.send(handshake(live, live.token()))
        assert live.downstream.calls == 1
