"""Authorization server metadata: where it is, what it says, and that the issuer is not touched."""

import pytest

from mcp_guard.failures import ConfigurationError
from mcp_guard.protocol.authorization_metadata import Issuer, document


@pytest.mark.parametrize(
    ("identifier", "well_known", "token"),
    [
        ("https://as.example", "/.well-known/oauth-authorization-server", "https://as.example/token"),
        ("https://as.example/", "/.well-known/oauth-authorization-server", "https://as.example/token"),
        ("https://as.example/a/b", "/.well-known/oauth-authorization-server/a/b", "https://as.example/a/b/token"),
        ("https://as.example/a/", "/.well-known/oauth-authorization-server/a", "https://as.example/a/token"),
        ("https://AS.example:443", "/.well-known/oauth-authorization-server", "https://as.example/token"),
        ("http://127.0.0.1:8765", "/.well-known/oauth-authorization-server", "http://127.0.0.1:8765/token"),
        ("http://[::1]:8765", "/.well-known/oauth-authorization-server", "http://[::1]:8765/token"),
    ],
)
def test_the_well_known_name_goes_between_host_and_path(identifier: str, well_known: str, token: str) -> None:
    """disc-09, ASM-004."""
    issuer = Issuer.parse(identifier)
    assert issuer.identifier == identifier
    assert issuer.well_known_path == well_known
    assert issuer.endpoint("token") == token
    assert document(issuer, scopes=["a"], resources=["https://r.example"])["issuer"] == identifier


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "as.example",
        "http://as.example",
        "ftp://as.example",
        "https://as.example?x=1",
        "https://as.example#f",
        "https://u@as.example",
        "https://as.example/a/../b",
        "https://as.example//a",
        "https://as.example/a b",
        "https://as.example/%61",
        "https://as.example/ä",
        "https://as.example/a+b",
        "https://as.example/a:b",
        "https://as.example:99999",
    ],
)
def test_an_issuer_with_more_than_one_reading_is_a_configuration_error(identifier: str) -> None:
    with pytest.raises(ConfigurationError, match="issuer"):
        Issuer.parse(identifier)


def test_https_alone_is_secure() -> None:
    assert Issuer.parse("https://as.example").is_secure
    assert not Issuer.parse("http://localhost:1").is_secure


def test_the_document_offers_what_is_served_and_nothing_else() -> None:
    """ASM-005 to ASM-010, PKCE-001."""
    members = document(Issuer.parse("https://as.example/t"), scopes=["a", "b"], resources=["https://r.example/mcp"])
    assert members == {
        "issuer": "https://as.example/t",
        "authorization_endpoint": "https://as.example/t/authorize",
        "token_endpoint": "https://as.example/t/token",
        "registration_endpoint": "https://as.example/t/register",
        "jwks_uri": "https://as.example/t/jwks",
        "scopes_supported": ["a", "b"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "protected_resources": ["https://r.example/mcp"],
    }


def test_a_member_without_values_is_left_out() -> None:
    members = document(Issuer.parse("https://as.example"), scopes=[], resources=["https://r.example"])
    assert "scopes_supported" not in members
    assert [] not in members.values()
