"""Settings from the environment, `MCP_*`, each validated with an error that names it.

They describe one guarded deployment: `mcp-guard serve module:app` reads them. In code, the layers are given their
settings directly.
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mcp_guard.failures import ConfigurationError

PREFIX = "MCP_"


def _split(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


List: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """What one deployment needs. Lists are separated by commas."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    public_url: str = Field(
        min_length=1, description="The URL of the MCP endpoint as clients spell it; its resource identifier."
    )
    oauth_issuer: str = Field(
        min_length=1, description="The issuer whose tokens are accepted; its metadata tells the rest."
    )
    oauth_jwks_file: Path | None = Field(None, description="A JWK Set file, in place of fetching the issuer's keys.")
    required_scopes: List = Field((), description="Scopes every request needs.")
    sse_url: str | None = Field(None, description="The URL of an HTTP+SSE endpoint of the same app, if it has one.")
    sse_message_path: str = Field("/messages/", description="The path the HTTP+SSE endpoint takes messages at.")
    allowed_origins: List = Field((), description="Origins of browser clients, beside the public URL's own.")
    trusted_proxies: List = Field((), description="Networks (CIDR) of proxies whose forwarding headers are believed.")
    session_store: Literal["memory"] = Field("memory", description="Where sessions and limits are kept.")
    session_ttl_seconds: int = Field(1800, ge=1, description="Seconds a session lives without being used.")
    audit_file: Path | None = Field(None, description="The audit log; standard error when there is none.")
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on.")
    tls_cert: Path | None = Field(None, description="A PEM file with the certificate chain, to serve https directly.")
    tls_key: Path | None = Field(None, description="The PEM file with the certificate's private key.")

    @property
    def session_ttl(self) -> timedelta:
        return timedelta(seconds=self.session_ttl_seconds)


def load() -> Settings:
    """The settings of this process's environment.

    Raises:
        ConfigurationError: naming every setting that is missing or malformed, and why.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        raise ConfigurationError("; ".join(_sentence(problem) for problem in error.errors())) from None
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigurationError("MCP_TLS_CERT and MCP_TLS_KEY must be set together")
    for name, path in (("tls_cert", settings.tls_cert), ("tls_key", settings.tls_key)):
        if path is not None and not path.is_file():
            raise ConfigurationError(f"{PREFIX}{name.upper()}: there is no file {path}")
    return settings


def _sentence(problem: object) -> str:
    """One problem found by pydantic as a sentence with the variable's name; never the value, which may be secret."""
    if not isinstance(problem, dict):
        raise TypeError("pydantic describes a problem as a mapping")
    name = f"{PREFIX}{'_'.join(str(part) for part in problem['loc']).upper()}"
    if problem["type"] == "missing":
        return f"{name} is not set"
    return f"{name}: {str(problem['msg'])[:1].lower()}{str(problem['msg'])[1:]}"
