"""Keys that an issuer publishes: fetched once for all that wait, refreshed ahead of time, kept through an outage."""

import asyncio
import logging
import secrets
import ssl
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from typing import Any, Final

from mcp_guard.clock import Clock, SystemClock
from mcp_guard.discovery import IssuerMetadata
from mcp_guard.failures import ConfigurationError, KeySourceUnavailable
from mcp_guard.keysources.base import Found, log_ignored
from mcp_guard.outbound import FetchError, JsonClient, check_url, within_deadline
from mcp_guard.protocol.jwk import JwkError, KeySet, import_set

logger = logging.getLogger("mcp_guard")

RETRY_SECONDS: Final = 1.0
"""The least time between two attempts while an issuer cannot be reached."""
JITTER_SECONDS: Final = 0.5
"""What is added to it at random, up to this, so that many workers do not ask in step."""
AHEAD: Final = 0.8
"""The part of `max_age` after which a set is fetched anew, so that no request waits for it."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old keys may get.

    `max_age` bounds how long a key counts after its issuer withdrew it. `stale_grace` is how much longer the last good
    set is used while the issuer cannot be reached. `cooldown` is the least time between two fetches for the sake of
    keys that are not in the set.
    """

    max_age: timedelta = timedelta(minutes=5)
    stale_grace: timedelta = timedelta(hours=1)
    cooldown: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        for name, least in (("max_age", 1), ("stale_grace", 0), ("cooldown", 1)):
            if getattr(self, name) < timedelta(seconds=least):
                raise ConfigurationError(f"{name} must be at least {least} s, not {getattr(self, name)}")


class RemoteKeys:
    """The JWK Set that `issuer` publishes, at `jwks_url` or where its metadata says (RFC 8414 §3, OpenID Discovery §4).

    One fetch at a time, of at most two seconds, 256 KiB and 64 keys. A good set stays in force until a better one is
    there; while the issuer is away it is asked for in the background, about once a second. It runs on asyncio.
    """

    def __init__(
        self,
        issuer: str,
        jwks_url: str | None = None,
        *,
        clock: Clock | None = None,
        freshness: Freshness | None = None,
        tls: ssl.SSLContext | None = None,
        required_at_start: bool = True,
    ) -> None:
        """`tls` verifies certificates, by default against the system's authorities.

        Without `required_at_start` an issuer that cannot be reached does not stop the start; its tokens are answered
        503 until it can be.

        Raises:
            ConfigurationError: a URL is not https (http is for loopback hosts).
        """
        self._issuer = issuer
        self._given_url = "" if jwks_url is None else check_url(jwks_url, "jwks_url")
        self._metadata = IssuerMetadata(issuer, "jwks_url") if jwks_url is None else None
        self._clock = clock or SystemClock()
        freshness = freshness or Freshness()
        self._max_age = freshness.max_age.total_seconds()
        self._ahead = self._max_age * AHEAD
        self._last_resort = self._max_age + freshness.stale_grace.total_seconds()
        self._cooldown = freshness.cooldown.total_seconds()
        self._tls = tls or ssl.create_default_context()
        self._required_at_start = required_at_start
        self._keys: KeySet | None = None
        self._document: Any = None
        self._fetched = -inf
        self._retry_at: float | None = None
        self._problem = ""
        self._looked_for_new = -inf
        self._flight: asyncio.Task[None] | None = None
        self._retrying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._fetch_now()
        if self._keys is None:
            if self._required_at_start:
                raise self._unavailable()
            logger.warning("%s", self._unavailable())

    async def close(self) -> None:
        running = [task for task in (self._retrying, self._flight) if task is not None and not task.done()]
        self._retrying, self._flight = None, None
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def purge(self) -> None:
        """Forget the keys; the next token waits for a fetch. For an operator who knows that a key was stolen."""
        self._keys, self._document, self._fetched, self._retry_at = None, None, -inf, None

    @property
    def stale_seconds(self) -> float:
        """For how long the keys have been older than they should get; 0 while they are fresh, infinite without any."""
        if self._keys is None:
            return inf
        return max(0.0, self._clock.monotonic() - self._fetched - self._max_age)

    async def find(self, kid: str | None, alg: str) -> Found | None:
        keys = await self._usable()
        key = keys.find(kid, alg)
        if key is None and not keys.knows(kid):
            keys = await self._with_news(keys)
            key = keys.find(kid, alg)
        if key is None:
            return None
        return Found(key, max(self._fetched + self._max_age, self._clock.monotonic() + RETRY_SECONDS))

    async def _usable(self) -> KeySet:
        """A set young enough to decide on; refreshed ahead of time, or while an old one still serves."""
        age = self._clock.monotonic() - self._fetched
        if self._keys is None or age >= self._last_resort:
            if self._may_retry():
                await self._fetch_now()
            if self._keys is None or self._clock.monotonic() - self._fetched >= self._last_resort:
                raise self._unavailable()
        elif age >= self._max_age and self._retry_at is None:
            await self._fetch_now()
        elif age >= self._ahead and self._may_retry():
            self._take_off()
        return self._keys

    async def _with_news(self, keys: KeySet) -> KeySet:
        """The set after looking for a key that is not in `keys`, which tokens may ask for as often as they like."""
        now = self._clock.monotonic()
        if self._retry_at is not None:
            if not self._may_retry():
                raise self._unavailable()
        elif now < self._looked_for_new + self._cooldown and not _runs(self._flight):
            return keys
        self._looked_for_new = now
        await self._fetch_now()
        if self._retry_at is not None or self._keys is None:
            raise self._unavailable()
        return self._keys

    def _may_retry(self) -> bool:
        return self._retry_at is None or _runs(self._flight) or self._clock.monotonic() >= self._retry_at

    def _take_off(self) -> "asyncio.Task[None]":
        """The one fetch in flight. It is a task of its own, so that the request that began it may be cancelled."""
        if self._flight is None or not _runs(self._flight):
            self._flight = asyncio.get_running_loop().create_task(self._fetch(), name=f"keys of {self._issuer}")
        return self._flight

    async def _fetch_now(self) -> None:
        await asyncio.shield(self._take_off())

    async def _fetch(self) -> None:
        try:
            document = await within_deadline(self._download(), f"the issuer {self._issuer}")
            keys = self._keys if self._keys is not None and document == self._document else import_set(document)
        except (FetchError, JwkError) as fault:
            self._retry_later(fault.reason)
            return
        if keys is not self._keys:
            log_ignored(f"keys of {self._issuer}", keys)
        self._keys, self._document, self._fetched = keys, document, self._clock.monotonic()
        self._retry_at, self._problem = None, ""

    def _retry_later(self, problem: str) -> None:
        """Say once what is wrong, and ask again later; in the background where a set is at hand until then."""
        if problem != self._problem:
            logger.warning("the keys of %s could not be fetched: %s", self._issuer, problem)
        jitter = secrets.randbelow(1000) / 1000 * JITTER_SECONDS
        self._problem, self._retry_at = problem, self._clock.monotonic() + RETRY_SECONDS + jitter
        if self._keys is not None and not _runs(self._retrying):
            retrying = self._keep_trying()
            self._retrying = asyncio.get_running_loop().create_task(retrying, name=f"retries of {self._issuer}")

    async def _keep_trying(self) -> None:
        """Ask until the issuer answers, whether requests come or not."""
        while self._retry_at is not None and self._keys is not None:
            await asyncio.sleep(self._retry_at - self._clock.monotonic())
            if self._may_retry():
                await self._fetch_now()

    async def _download(self) -> Any:
        async with JsonClient(self._tls) as client:
            if self._metadata is None:
                return await client.get(self._given_url)
            place = await self._metadata.endpoint("jwks_uri", client)
            return await client.get(place.url, public=place.public)

    def _unavailable(self) -> KeySourceUnavailable:
        return KeySourceUnavailable(f"no keys of the issuer {self._issuer}: {self._problem or 'none fetched yet'}")


def _runs(task: "asyncio.Task[None] | None") -> bool:
    """Whether a task is under way, on the loop that runs now."""
    return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()
