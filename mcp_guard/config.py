"""Settings from the environment, `MCP_*`, each validated with an error that names it.

They describe one guarded deployment: `mcp-guard serve module:app` reads them all; the commands that work on its state
read `State` alone. In code, the layers are given their settings directly.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from mcp_guard.encryption import ClientAuth
from mcp_guard.facts import Policy
from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.secret import Secret
from mcp_guard.sessions import SessionTerms
from mcp_guard.setting_types import Entries, List
from mcp_guard.stores import selected
from mcp_guard.stores.base import Store

PREFIX: Final = "MCP_"


class State(BaseSettings):
    """Where the state of a deployment is, and the keys that its workers share."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    session_store: Literal["memory", "valkey", "postgres"] = Field(
        "memory", description="Where sessions, limits and all other state are kept."
    )
    valkey_url: SecretStr | None = Field(
        None, description="Where Valkey is: `valkey://`, `valkeys://`, `unix://`, `sentinel://` or `cluster://`."
    )
    database_url: SecretStr | None = Field(None, description="Where PostgreSQL is: `postgresql://`.")
    store_deadline_seconds: float | None = Field(
        None, gt=0, le=60, description="Seconds the store may take to answer: 0.1 for Valkey, 0.25 for PostgreSQL."
    )
    valkey_replicas: int = Field(
        0, ge=0, description="Replicas of Valkey that must have what is of single use before it is answered."
    )
    cleanup_seconds: int = Field(300, ge=1, description="Seconds between two removals of expired rows in PostgreSQL.")
    insecure_memory_store_per_worker: bool = Field(
        False, description="Let each worker keep state of its own in memory, unknown to the others."
    )
    secret_keys: SecretStr | None = Field(
        None, description="The key ring that all workers share, newest key first; `mcp-guard keys new` prints a key."
    )
    secret_keys_file: Path | None = Field(None, description="A file with the key ring, in place of `MCP_SECRET_KEYS`.")

    @property
    def store(self) -> Store:
        """The store that is asked for; one object for each place.

        Raises:
            ConfigurationError: naming the setting that is missing or malformed.
        """
        url, name = {
            "memory": (None, ""),
            "valkey": (self.valkey_url, "MCP_VALKEY_URL"),
            "postgres": (self.database_url, "MCP_DATABASE_URL"),
        }[self.session_store]
        if url is None and name:
            raise ConfigurationError(f"{name} is not set, and MCP_SESSION_STORE is {self.session_store}")
        with naming(name or "MCP_SESSION_STORE"):
            return selected(
                self.session_store,
                None if url is None else Secret(url.get_secret_value()),
                deadline=None
                if self.store_deadline_seconds is None
                else timedelta(seconds=self.store_deadline_seconds),
                replicas=self.valkey_replicas,
                cleanup_every=timedelta(seconds=self.cleanup_seconds),
                insecure_per_worker=self.insecure_memory_store_per_worker,
            )

    @property
    def ring(self) -> KeyRing:
        """The key ring; a new one for a process that shares nothing.

        Raises:
            ConfigurationError: naming the setting that is missing or malformed.
        """
        if self.secret_keys is not None and self.secret_keys_file is not None:
            raise ConfigurationError("MCP_SECRET_KEYS and MCP_SECRET_KEYS_FILE must not both be set")
        if self.secret_keys_file is not None:
            with naming("MCP_SECRET_KEYS_FILE"):
                return KeyRing.read(self.secret_keys_file)
        if self.secret_keys is not None:
            with naming("MCP_SECRET_KEYS"):
                return KeyRing.parse(self.secret_keys.get_secret_value())
        if self.session_store != "memory":
            raise ConfigurationError(
                f"MCP_SECRET_KEYS is not set, and MCP_SESSION_STORE is {self.session_store}: "
                "who shares a store shares the keys of its records"
            )
        return KeyRing.generate()


class Settings(State):
    """What one deployment needs. Lists are separated by commas."""

    public_url: str = Field(
        min_length=1, description="The URL of the MCP endpoint as clients spell it; its resource identifier."
    )
    oauth_issuer: str = Field(
        min_length=1, description="The issuer whose tokens are accepted; its metadata tells the rest."
    )
    oauth_jwks_file: Path | None = Field(None, description="A JWK Set file, in place of fetching the issuer's keys.")
    oauth_preset: Literal["auth0", "keycloak", "entra", "supabase"] | None = Field(
        None, description="The provider that the issuer is of, if its tokens are not those of RFC 9068."
    )
    oauth_mode: Literal["jwt", "opaque", "hybrid"] = Field(
        "jwt", description="Whether tokens are verified by keys, by introspection (RFC 7662), or by asking first."
    )
    oauth_fallback: Literal["refuse", "local"] = Field(
        "refuse", description="What `hybrid` does while the issuer cannot be reached: refuse, or decide by its keys."
    )
    oauth_audiences: List = Field((), description="Audiences that tokens may name in place of the public URL.")
    oauth_tenant_claim: str | None = Field(None, description="The claim that names the tenant; then required.")
    oauth_required_claims: Entries = Field((), description="Claims with the values they may have: `ver=2.0,org=a b`.")
    introspection_endpoint: str | None = Field(None, description="Where to ask, if the issuer's metadata does not say.")
    introspection_client_id: str | None = Field(None, description="The client that the guard asks as.")
    introspection_client_secret: SecretStr | None = Field(None, description="Its secret.")
    introspection_client_secret_file: Path | None = Field(None, description="A file with its secret.")
    introspection_client_key_file: Path | None = Field(
        None, description="A PEM file with its private key (RFC 7523), in place of a secret."
    )
    introspection_cache_seconds: float = Field(
        30, ge=0, le=300, description="Seconds for which an active token is believed to be; a revocation waits as long."
    )
    required_scopes: List = Field((), description="Scopes every request needs.")
    method_scopes: Entries = Field((), description="Scopes that JSON-RPC methods need: `tasks/*=mcp:jobs`.")
    tool_scopes: Entries = Field(
        (), description="Scopes that tools need: `delete_*=mcp:write,search=mcp:read mcp:search`."
    )
    prompt_scopes: Entries = Field((), description="Scopes that prompts need.")
    uri_scopes: Entries = Field((), description="Scopes that resources need, by URI: `file:///data/*=mcp:read`.")
    scope_hierarchy: Entries = Field(
        (), description="Scopes that stand for others: `mcp:admin=mcp:write,mcp:write=mcp:read`."
    )
    hide_forbidden: bool = Field(True, description="Take out of lists what the caller lacks a scope for.")
    dpop: Policy = Field(
        "allowed", description="Whether tokens bound to a key (RFC 9449) are refused, welcome, or the only ones taken."
    )
    websocket: Literal["off", "header", "hello"] = Field(
        "off",
        description="Whether WebSockets are opened: with a token in the handshake, or in a first message too.",
    )
    dpop_nonce: bool = Field(False, description="Ask for a nonce of this server in each DPoP proof.")
    certificates: Policy = Field(
        "off",
        description="Whether tokens bound to a certificate (RFC 8705) are refused, welcome, or the only ones taken.",
    )
    sse_url: str | None = Field(None, description="The URL of an HTTP+SSE endpoint of the same app, if it has one.")
    sse_message_path: str = Field("/messages/", description="The path the HTTP+SSE endpoint takes messages at.")
    allowed_origins: List = Field((), description="Origins of browser clients, beside the public URL's own.")
    trusted_proxies: List = Field((), description="Networks (CIDR) of proxies whose forwarding headers are believed.")
    proxy_client_cert: bool = Field(
        False, description="Take the client's certificate from the `Client-Cert` field (RFC 9440) of trusted proxies."
    )
    session_ttl_seconds: int = Field(1800, ge=1, description="Seconds a session lives without being used.")
    session_lifetime_seconds: int = Field(86_400, ge=1, description="Seconds a session lives at most.")
    session_cache_seconds: float = Field(
        0, ge=0, description="Seconds for which a worker believes what the store said of a session; 0 asks each time."
    )
    sessions_per_principal: int = Field(256, ge=1, description="Sessions that one principal may have at once.")
    streams_per_principal: int = Field(32, ge=1, description="Streams that one principal may have open at once.")
    single_use_tools: List = Field((), description="Tools whose `requestState` is good for one call.")
    workers: int = Field(1, ge=1, le=256, description="How many processes serve.")
    affinity: str | None = Field(
        None,
        description="Where workers forward requests of each other's sessions: `unix:DIRECTORY` or `tcp:HOST:PORT`.",
    )
    affinity_advertise: str | None = Field(
        None, description="The IP address at which others reach `tcp:` here, where it is not the one it listens on."
    )
    affinity_route: str | None = Field(
        None, description="The name by which a proxy in front pins sessions to this host."
    )
    affinity_other_routes: List = Field((), description="The names of all other hosts that a proxy pins sessions to.")
    audit_file: Path | None = Field(
        None, description="The audit log, one for each worker; standard error when there is none."
    )
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on.")
    tls_cert: Path | None = Field(None, description="A PEM file with the certificate chain, to serve https directly.")
    tls_key: Path | None = Field(None, description="The PEM file with the certificate's private key.")
    tls_client_auth: ClientAuth = Field("none", description="Whether clients are asked for certificates of their own.")
    tls_client_ca: Path | None = Field(
        None, description="A PEM file with the authorities that certificates of clients are from."
    )

    @property
    def session_terms(self) -> SessionTerms:
        """How long sessions live, and how many one principal has.

        Raises:
            ConfigurationError: they do not go together.
        """
        with naming("MCP_SESSION_…_SECONDS"):
            return SessionTerms(
                ttl=timedelta(seconds=self.session_ttl_seconds),
                lifetime=timedelta(seconds=self.session_lifetime_seconds),
                per_principal=self.sessions_per_principal,
                cache=timedelta(seconds=self.session_cache_seconds),
            )


def load() -> Settings:
    """The settings of this process's environment.

    Raises:
        ConfigurationError: naming every setting that is missing or malformed, and why.
    """
    settings = _read(Settings)
    _check_tls(settings)
    is_shared = settings.session_store != "memory"
    if settings.workers > 1 and not is_shared and not settings.insecure_memory_store_per_worker:
        raise ConfigurationError(
            f"MCP_SESSION_STORE is memory, which is one process's own, and MCP_WORKERS is {settings.workers}: "
            "set MCP_SESSION_STORE to valkey or postgres"
        )
    if settings.affinity is not None and not is_shared:
        raise ConfigurationError("MCP_AFFINITY needs a store that workers share: set MCP_SESSION_STORE")
    return settings


def _check_tls(settings: Settings) -> None:
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigurationError("MCP_TLS_CERT and MCP_TLS_KEY must be set together")
    if (settings.tls_client_ca is None) is not (settings.tls_client_auth == "none"):
        raise ConfigurationError(
            "MCP_TLS_CLIENT_CA and MCP_TLS_CLIENT_AUTH (optional or required) must be set together"
        )
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        raise ConfigurationError("MCP_TLS_CLIENT_CA: without MCP_TLS_CERT no client shows a certificate")
    for name in ("tls_cert", "tls_key", "tls_client_ca"):
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            raise ConfigurationError(f"{PREFIX}{name.upper()}: there is no file {path}")
    if settings.certificates != "off" and settings.tls_client_ca is None and not settings.proxy_client_cert:
        raise ConfigurationError(
            f"MCP_CERTIFICATES is {settings.certificates}, and nobody says which certificate a client has: "
            "set MCP_TLS_CLIENT_AUTH, or MCP_PROXY_CLIENT_CERT behind a proxy"
        )


def load_state() -> State:
    """The settings of this process's environment that say where the state is.

    Raises:
        ConfigurationError: naming every setting that is missing or malformed, and why.
    """
    return _read(State)


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Say which setting it was that cannot work."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}") from None


Some = TypeVar("Some", bound=BaseSettings)


def _read(kind: type[Some]) -> Some:
    try:
        return kind()
    except ValidationError as error:
        raise ConfigurationError("; ".join(_sentence(problem) for problem in error.errors())) from None


def _sentence(problem: object) -> str:
    """One problem found by pydantic as a sentence with the variable's name; never the value, which may be secret."""
    if not isinstance(problem, dict):
        raise TypeError("pydantic describes a problem as a mapping")
    name = f"{PREFIX}{'_'.join(str(part) for part in problem['loc']).upper()}"
    if problem["type"] == "missing":
        return f"{name} is not set"
    said = str(problem["msg"]).removeprefix("Value error, ")
    return f"{name}: {said[:1].lower()}{said[1:]}"
