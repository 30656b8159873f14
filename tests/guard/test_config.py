"""Settings from the environment: what they come to, and what is said of those that cannot work."""

import base64
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_guard.config import State, load, load_state
from mcp_guard.deployment import APP_VARIABLE, application, from_settings, import_app
from mcp_guard.failures import ConfigurationError
from mcp_guard.layers.affinity import Affinity
from mcp_guard.layers.audit import Audit
from mcp_guard.layers.dpop import NONCE_PURPOSE, Dpop
from mcp_guard.layers.replay import Replay
from mcp_guard.layers.route import Route
from mcp_guard.layers.session import Session
from mcp_guard.layers.streams import Streams
from mcp_guard.layers.token import Token
from mcp_guard.protocol.nonces import Nonces
from mcp_guard.secret import Secret
from mcp_guard.stores import selected
from mcp_guard.stores.memory import MemoryStore
from mcp_guard.stores.postgres import PostgresStore
from mcp_guard.stores.valkey import ValkeyStore

KEY = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
GOOD = {"PUBLIC_URL": "http://127.0.0.1:8000/mcp", "OAUTH_ISSUER": "https://as.example.com"}
VALKEY = {"SESSION_STORE": "valkey", "VALKEY_URL": "valkey://127.0.0.1:1/0", "SECRET_KEYS": KEY}
POSTGRES = {"SESSION_STORE": "postgres", "DATABASE_URL": "postgresql://user:hunter2@127.0.0.1/mcp", "SECRET_KEYS": KEY}


class Environment:
    """Sets `MCP_…` variables, and no others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def set(self, *settings: dict[str, str]) -> None:
        for one in settings:
            for name, value in one.items():
                self.monkeypatch.setenv(f"MCP_{name}", value)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    import os

    for name in os.environ:
        if name.startswith("MCP_"):
            monkeypatch.delenv(name)
    return Environment(monkeypatch)


def test_memory_is_the_default_and_needs_no_keys(environment: Environment) -> None:
    state = load_state()
    assert isinstance(state.store, MemoryStore)
    assert len(state.ring.keys) == 1


def test_each_kind_of_store_is_one_object(environment: Environment) -> None:
    for settings, kind in ((VALKEY, ValkeyStore), (POSTGRES, PostgresStore)):
        environment.set(settings)
        assert isinstance(load_state().store, kind)
        assert load_state().store is load_state().store


def test_the_deadline_and_the_replicas_are_those_that_are_set(environment: Environment) -> None:
    environment.set(VALKEY, {"STORE_DEADLINE_SECONDS": "1.5", "VALKEY_REPLICAS": "2"})
    store = load_state().store
    assert isinstance(store, ValkeyStore)
    assert (store.deadline, store.replicas) == (timedelta(seconds=1.5), 2)
    environment.set(POSTGRES)
    other = load_state().store
    assert isinstance(other, PostgresStore)
    assert other.deadline == timedelta(seconds=1.5)


def test_the_key_ring_comes_from_a_variable_or_from_a_file(environment: Environment, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)
    file.chmod(0o600)
    environment.set({"SECRET_KEYS": KEY})
    from_variable = load_state().ring
    environment.set({"SECRET_KEYS_FILE": str(file)})
    with pytest.raises(ConfigurationError, match="MCP_SECRET_KEYS and MCP_SECRET_KEYS_FILE must not both be set"):
        _ = load_state().ring
    environment.monkeypatch.delenv("MCP_SECRET_KEYS")
    assert load_state().ring.keys == from_variable.keys


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"SESSION_STORE": "valkey", "SECRET_KEYS": KEY}, "MCP_VALKEY_URL is not set, and MCP_SESSION_STORE is valkey"),
        ({"SESSION_STORE": "postgres", "SECRET_KEYS": KEY}, "MCP_DATABASE_URL is not set"),
        ({**VALKEY, "VALKEY_URL": "http://hunter2@x"}, "MCP_VALKEY_URL: "),
        ({**VALKEY, "SECRET_KEYS": "short"}, "MCP_SECRET_KEYS: key 1 of the key ring"),
        ({**VALKEY, "SECRET_KEYS": ""}, "MCP_SECRET_KEYS: a key ring has 1 to 8 keys, not 0"),
        ({k: v for k, v in VALKEY.items() if k != "SECRET_KEYS"}, "MCP_SECRET_KEYS is not set"),
        ({"SECRET_KEYS_FILE": "/nowhere/keys"}, "MCP_SECRET_KEYS_FILE: /nowhere/keys: No such file"),
        ({"WORKERS": "2"}, "MCP_SESSION_STORE is memory, which is one process's own, and MCP_WORKERS is 2"),
        ({"AFFINITY": "unix:/run/mcp"}, "MCP_AFFINITY needs a store that workers share"),
        ({**VALKEY, "AFFINITY": "pigeon:/run"}, "MCP_AFFINITY: "),
        ({**VALKEY, "AFFINITY_ROUTE": "A B"}, "MCP_AFFINITY_ROUTE: "),
        ({**VALKEY, "AFFINITY": "tcp:0.0.0.0:0"}, "MCP_AFFINITY: "),
        ({"SESSION_LIFETIME_SECONDS": "10"}, "MCP_SESSION_…_SECONDS: lifetime must be at least the ttl"),
        ({"WORKERS": "0"}, "MCP_WORKERS: "),
        ({"STREAMS_PER_PRINCIPAL": "0"}, "MCP_STREAMS_PER_PRINCIPAL: "),
        ({"SESSIONS_PER_PRINCIPAL": "many"}, "MCP_SESSIONS_PER_PRINCIPAL: "),
        ({"CLEANUP_SECONDS": "0"}, "MCP_CLEANUP_SECONDS: "),
        ({"STORE_DEADLINE_SECONDS": "0"}, "MCP_STORE_DEADLINE_SECONDS: "),
        ({"VALKEY_REPLICAS": "-1"}, "MCP_VALKEY_REPLICAS: "),
    ],
)
def test_a_setting_that_cannot_work_is_named_and_no_secret_is(
    environment: Environment, settings: dict[str, str], says: str
) -> None:
    environment.set(GOOD, settings)
    with pytest.raises(ConfigurationError) as refused:
        from_settings(load())
    assert str(refused.value).startswith(says)
    assert "hunter2" not in str(refused.value)
    assert KEY not in str(refused.value)


def test_the_stack_is_what_the_settings_say(environment: Environment, tmp_path: Path) -> None:
    environment.set(
        GOOD,
        VALKEY,
        {
            "WORKERS": "4",
            "AFFINITY": "unix:/tmp/mcp-guard",
            "AFFINITY_ROUTE": "west-1",
            "AFFINITY_OTHER_ROUTES": "west-2, east-1",
            "SESSION_TTL_SECONDS": "60",
            "SESSION_LIFETIME_SECONDS": "120",
            "SESSION_CACHE_SECONDS": "5",
            "SESSIONS_PER_PRINCIPAL": "7",
            "STREAMS_PER_PRINCIPAL": "3",
            "AUDIT_FILE": str(tmp_path / "audit.jsonl"),
        },
    )
    layers = {type(layer): layer for layer in from_settings(load())}
    session, affinity = layers[Session], layers[Affinity]
    assert isinstance(session, Session)
    assert isinstance(affinity, Affinity)
    assert session.terms.ttl == timedelta(seconds=60)
    assert session.terms.lifetime == timedelta(seconds=120)
    assert session.terms.cache == timedelta(seconds=5)
    assert session.terms.per_principal == 7
    assert session.home == affinity.worker.home
    assert session.ring.keys == affinity.worker.ring.keys
    assert layers[Streams].per_principal == 3  # type: ignore[attr-defined]
    assert layers[Route] == Route("west-1", frozenset({"west-2", "east-1"}))
    assert type(layers[Audit].log.sink).__name__ == "SlotSink"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("policy", "judged"), [("off", False), ("allowed", True), ("required", True)])
def test_what_becomes_of_bound_tokens_is_said_for_every_endpoint(
    policy: str, judged: bool, environment: Environment
) -> None:
    environment.set(GOOD, {"SSE_URL": "http://127.0.0.1:8000/sse", "DPOP": policy, "DPOP_NONCE": "true"})
    layers = {type(layer): layer for layer in from_settings(load())}
    token = layers[Token]
    assert isinstance(token, Token)
    assert token.dpop is judged
    assert [resource.dpop for resource in token.resources] == [policy, policy]
    assert (Dpop in layers) is (Replay in layers) is judged
    if judged:
        assert layers[Dpop].nonces == Nonces(layers[Session].ring, NONCE_PURPOSE)  # type: ignore[attr-defined]


def test_bound_tokens_are_welcome_and_nonces_are_not_asked_for_unless_it_is_said(environment: Environment) -> None:
    environment.set(GOOD)
    layers = {type(layer): layer for layer in from_settings(load())}
    assert layers[Token].resources[0].dpop == "allowed"  # type: ignore[attr-defined]
    assert layers[Dpop].nonces is None  # type: ignore[attr-defined]


def test_the_override_for_workers_on_memory_is_taken(environment: Environment) -> None:
    environment.set(GOOD, {"WORKERS": "2", "INSECURE_MEMORY_STORE_PER_WORKER": "true"})
    store = load().store
    assert isinstance(store, MemoryStore)
    assert store.insecure_per_worker


def test_a_worker_imports_the_app_that_it_is_told_to(environment: Environment) -> None:
    environment.set(GOOD)
    with pytest.raises(ConfigurationError, match="MCP_GUARD_APP is not set"):
        application()
    environment.monkeypatch.setenv(APP_VARIABLE, "tests.end_to_end.unguarded:app")
    assert application().app is import_app("tests.end_to_end.unguarded:app")


def test_a_store_needs_its_place() -> None:
    with pytest.raises(ConfigurationError, match="a store of the kind valkey needs a URL"):
        selected("valkey", None, cleanup_every=timedelta(minutes=5))


@pytest.mark.parametrize(("kind", "package"), [("valkey", "valkey"), ("postgres", "psycopg")])
def test_a_package_that_is_missing_is_named(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith((f"mcp_guard.stores.{kind}", package))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=f"{package}.* is not installed.*mcp-guard\\[{kind}\\]"):
        selected(kind, Secret(f"{kind}://missing"), cleanup_every=timedelta(minutes=5))


def test_settings_do_not_show_secrets(environment: Environment) -> None:
    environment.set(POSTGRES)
    shown = repr(State())
    assert "hunter2" not in shown
    assert KEY not in shown
