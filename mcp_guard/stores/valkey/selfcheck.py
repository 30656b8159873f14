"""Whether a server is fit to keep security state: asked once, when the store starts."""

import logging
import re

from valkey.exceptions import ResponseError

from mcp_guard.failures import ConfigurationError, StoreUnavailable
from mcp_guard.stores.valkey.encoding import command
from mcp_guard.stores.valkey.link import Link, ask, class_of, info

logger = logging.getLogger("mcp_guard")

OLDEST_REDIS = (7, 0)
"""The compatibility version that INFO gives, of Valkey too: scripts see errors as tables since 7.0."""


async def check(link: Link, *, allow_eviction: bool) -> None:
    """Check the version, the eviction policy and the persistence of the server at the other end.

    What an ACL keeps from being read is logged and taken to be in order.

    Raises:
        ConfigurationError: the server is too old, or evicts.
        StoreUnavailable: it refuses to answer.
        ValkeyError, OSError: the connection failed.
    """
    server, settings = await ask(
        link,
        [command(b"INFO", b"server"), command(b"CONFIG", b"GET", *(b"maxmemory-policy", b"save", b"appendonly"))],
    )
    for answer, asked in ((server, "INFO"), (settings, "CONFIG GET")):
        if isinstance(answer, ResponseError):
            if class_of(answer) != "NOPERM":
                raise StoreUnavailable(f"valkey: {class_of(answer)}")
            logger.warning("valkey: %s is not permitted: what it would tell is not checked", asked)
    _check_version(info(server).get("redis_version", ""))
    if isinstance(settings, list):
        words = [word.decode("utf-8", "replace") for word in settings]
        _check_settings(dict(zip(words[::2], words[1::2], strict=True)), allow_eviction)


def _check_version(text: str) -> None:
    version = re.match(r"(\d+)\.(\d+)", text)
    if version is not None and (int(version[1]), int(version[2])) < OLDEST_REDIS:
        raise ConfigurationError(f"the Valkey server is compatible with Redis {text}; 7.0 or newer is needed")


def _check_settings(settings: dict[str, str], allow_eviction: bool) -> None:
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy != "noeviction" and not allow_eviction:
        raise ConfigurationError(
            f"the Valkey server has maxmemory-policy {policy}: it may forget sessions, revocations and used codes. "
            "Set noeviction there, or insecure_allow_eviction here"
        )
    if policy != "noeviction":
        logger.warning("valkey: maxmemory-policy is %s: security state may be evicted", policy)
    if not settings.get("save") and settings.get("appendonly") == "no":
        logger.warning("valkey: the server persists nothing: a restart of it ends every session")
