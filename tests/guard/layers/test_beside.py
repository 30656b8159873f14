"""Exact paths go to the app beside, everything else goes on."""

import pytest

from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import Admission
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.beside import Beside
from mcp_guard.stack import guard
from tests.guard.asgi import CountingApp, drive, http_scope, websocket_scope
from tests.guard.stubs import CountingStore, Says

PATHS = frozenset({"/token", "/authorize"})


@pytest.mark.parametrize("path", sorted(PATHS))
async def test_an_exact_path_reaches_the_other_app_and_no_layer_further_in(path: str, app: CountingApp) -> None:
    other, inner = CountingApp(chunks=(b"other",)), Says()
    outer = Says(Admission(response_headers=[(b"x-outer", b"1")]))
    outcome = await drive(guard(app, outer, Beside(other, PATHS), inner), http_scope(path=path), b"grant")

    assert (outcome.body, outcome.value(b"x-outer")) == (b"other", b"1")
    assert (other.bodies, app.calls, inner.seen) == ([b"grant"], 0, [])


@pytest.mark.parametrize(
    "path",
    ["/mcp", "/", "", "/token/", "//token", "/Token", "/token/../mcp", "/x/token", "/token;x", "/token%2f", "token"],
)
async def test_every_other_path_goes_on(path: str, app: CountingApp) -> None:
    other, inner = CountingApp(), Says()
    outcome = await drive(guard(app, Beside(other, PATHS), inner), http_scope(path=path))
    assert outcome.status == 200
    assert (other.calls, app.calls, len(inner.seen)) == (0, 1, 1)


async def test_the_path_of_a_layer_further_out_is_what_counts(app: CountingApp) -> None:
    other = CountingApp()
    await drive(guard(app, Says(Admission(scope={"path": "/token"})), Beside(other, PATHS)), http_scope(path="/x"))
    assert (other.calls, app.calls) == (1, 0)


async def test_what_happens_beside_is_audited(app: CountingApp, sink: MemorySink) -> None:
    await drive(guard(app, Audit(AuditLog(sink)), Beside(CountingApp(status=302), PATHS)), http_scope(path="/token"))
    assert [(record["path"], record["status"]) for record in sink.records()] == [("/token", 302)]


async def test_a_websocket_does_not_reach_the_other_app(app: CountingApp) -> None:
    other = CountingApp()
    outcome = await drive(guard(app, Beside(other, PATHS)), websocket_scope("/token"))
    assert [message["type"] for message in outcome.sent] == ["websocket.close"]
    assert (other.calls, app.calls) == (0, 0)


@pytest.mark.parametrize("path", ["token", "", "https://a.example/token"])
def test_a_path_without_a_slash_is_a_wrong_setting(path: str, app: CountingApp) -> None:
    with pytest.raises(ConfigurationError, match=r"paths: .* must begin with a slash"):
        Beside(app, frozenset({path}))


def test_what_the_other_app_depends_on_belongs_to_the_stack(app: CountingApp, store: CountingStore) -> None:
    assert Beside(app, PATHS, (store,)).managed() == (store,)
