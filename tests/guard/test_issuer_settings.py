"""The issuer of a deployment from its environment."""

import json
import os
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mcp_guard.config import load
from mcp_guard.deployment import from_settings
from mcp_guard.failures import ConfigurationError
from mcp_guard.issuer_settings import trusted_issuer
from mcp_guard.keysources import RemoteKeys, StaticKeys
from mcp_guard.layers.token import Token
from tests.guard.signing import SigningKey, jwk_set
from tests.guard.test_introspection import pem

TENANT = "aaaabbbb-0000-cccc-1111-dddd2222eeee"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in os.environ:
        if name.startswith("MCP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MCP_PUBLIC_URL", "https://mcp.example.com/mcp")
    monkeypatch.setenv("MCP_OAUTH_ISSUER", "https://as.example.com")
    return monkeypatch


def asking(environment: pytest.MonkeyPatch, mode: str = "opaque") -> None:
    environment.setenv("MCP_OAUTH_MODE", mode)
    environment.setenv("MCP_INTROSPECTION_CLIENT_ID", "guard")
    environment.setenv("MCP_INTROSPECTION_CLIENT_SECRET", "hush-hush")


def test_without_more_an_issuers_keys_are_fetched() -> None:
    issuer = trusted_issuer(load())
    assert isinstance(issuer.keys, RemoteKeys)
    assert issuer.introspection is None
    assert not issuer.insecure_accept_untyped


def test_an_issuer_of_opaque_tokens_is_asked(environment: pytest.MonkeyPatch) -> None:
    asking(environment)
    issuer = trusted_issuer(load())
    assert issuer.keys is None
    assert issuer.issues_opaque
    assert "hush" not in repr(issuer)


def test_an_issuer_may_be_asked_first_and_its_keys_decide_meanwhile(environment: pytest.MonkeyPatch) -> None:
    asking(environment, "hybrid")
    assert trusted_issuer(load()).fallback == "refuse"
    environment.setenv("MCP_OAUTH_FALLBACK", "local")
    issuer = trusted_issuer(load())
    assert (issuer.fallback, issuer.issues_opaque) == ("local", False)
    assert issuer.keys is not None
    assert issuer.introspection is not None


@pytest.mark.parametrize("name", ["MCP_INTROSPECTION_CLIENT_SECRET_FILE", "MCP_INTROSPECTION_CLIENT_KEY_FILE"])
def test_a_secret_or_a_key_may_be_in_a_file(environment: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    asking(environment)
    environment.delenv("MCP_INTROSPECTION_CLIENT_SECRET")
    place = tmp_path / "secret"
    place.write_text(pem(ec.generate_private_key(ec.SECP256R1())).reveal(), "utf-8")
    environment.setenv(name, str(place))
    assert trusted_issuer(load()).introspection is not None
    place.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=f"^{name}: .* is not text"):
        trusted_issuer(load())
    place.unlink()
    with pytest.raises(ConfigurationError, match=f"^{name}: .* cannot be read"):
        trusted_issuer(load())


def test_keys_may_be_in_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "keys.json"
    place.write_text(json.dumps(jwk_set(SigningKey.new())), "utf-8")
    environment.setenv("MCP_OAUTH_JWKS_FILE", str(place))
    assert isinstance(trusted_issuer(load()).keys, StaticKeys)


def test_a_preset_brings_its_rules_and_further_ones_are_added(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MCP_OAUTH_PRESET", "entra")
    environment.setenv("MCP_OAUTH_ISSUER", f"https://login.microsoftonline.com/{TENANT}/v2.0")
    environment.setenv("MCP_OAUTH_REQUIRED_CLAIMS", "idtyp=user app,ver=1.0")
    environment.setenv("MCP_OAUTH_AUDIENCES", "api://notes")
    issuer = trusted_issuer(load())
    assert issuer.tenant_claim == "tid"
    assert issuer.policy.required_claims == {"ver": {"2.0"}, "tid": {TENANT}, "idtyp": {"user", "app"}}
    (token,) = [layer for layer in from_settings(load()) if isinstance(layer, Token)]
    assert token.resources[0].audiences == {"https://mcp.example.com/mcp", "api://notes"}
    assert token.issuers[0].issuer == issuer.issuer


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"MCP_OAUTH_MODE": "opaque", "MCP_INTROSPECTION_CLIENT_ID": None}, "MCP_INTROSPECTION_CLIENT_ID is not set"),
        ({"MCP_INTROSPECTION_CLIENT_SECRET": None}, "one of MCP_INTROSPECTION_CLIENT_SECRET, "),
        ({"MCP_INTROSPECTION_CLIENT_KEY_FILE": "/k.pem"}, "one of MCP_INTROSPECTION_CLIENT_SECRET, "),
        ({"MCP_INTROSPECTION_CLIENT_SECRET": ""}, "MCP_INTROSPECTION_CLIENT_ID: client secret"),
        ({"MCP_INTROSPECTION_ENDPOINT": "http://as.example.com/x"}, "MCP_INTROSPECTION_ENDPOINT: "),
        ({"MCP_INTROSPECTION_CACHE_SECONDS": "301"}, "MCP_INTROSPECTION_CACHE_SECONDS: "),
        ({"MCP_OAUTH_MODE": "jwt"}, "MCP_OAUTH_MODE is jwt"),
        ({"MCP_OAUTH_FALLBACK": "local"}, "MCP_OAUTH_FALLBACK is for hybrid"),
        ({"MCP_OAUTH_JWKS_FILE": "/keys.json"}, "MCP_OAUTH_JWKS_FILE is for jwt and hybrid"),
        ({"MCP_OAUTH_MODE": "hybrid", "MCP_OAUTH_JWKS_FILE": "/keys.json"}, "MCP_OAUTH_JWKS_FILE: key file"),
        ({"MCP_OAUTH_PRESET": "entra"}, "MCP_OAUTH_ISSUER: entra tenant"),
        ({"MCP_OAUTH_PRESET": "okta"}, "MCP_OAUTH_PRESET: "),
        ({"MCP_OAUTH_MODE": "hybrid", "MCP_OAUTH_ISSUER": "my-issuer"}, "MCP_OAUTH_ISSUER: "),
    ],
)
def test_settings_that_cannot_work_are_named(
    environment: pytest.MonkeyPatch, settings: dict[str, str | None], named: str
) -> None:
    asking(environment)
    for name, value in settings.items():
        if value is None:
            environment.delenv(name)
        else:
            environment.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{re.escape(named)}") as caught:
        trusted_issuer(load())
    assert "hush" not in str(caught.value)
