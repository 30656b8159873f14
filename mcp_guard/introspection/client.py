"""Asks an issuer's introspection endpoint, once for all that present the same token at the same time."""

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Mapping
from datetime import timedelta
from math import inf
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from mcp_guard.clock import Clock, SystemClock
from mcp_guard.discovery import IssuerMetadata, Place
from mcp_guard.failures import ConfigurationError, IntrospectionUnavailable
from mcp_guard.introspection.authentication import Anonymous, ClientAuthentication
from mcp_guard.outbound import FetchError, JsonClient, Unreachable, check_url, within_deadline
from mcp_guard.protocol import introspection
from mcp_guard.protocol.introspection import AnswerError
from mcp_guard.protocol.uris import is_loopback

logger = logging.getLogger("mcp_guard")

POSITIVE: Final = timedelta(seconds=30)
"""How long an answer that a token is active counts; a revocation takes effect within it."""
LONGEST_POSITIVE: Final = timedelta(minutes=5)
NEGATIVE_SECONDS: Final = 5.0
"""How long an answer that a token is not active counts."""
NEGATIVES: Final = 10_000
IN_FLIGHT: Final = 64
"""Questions under way at once; further ones are refused, so that a flood of tokens is not passed on to the issuer."""
RETRY_SECONDS: Final = 1.0


class Answer(NamedTuple):
    """What is said of an active token, None of another; and until when (`Clock.monotonic`) that counts."""

    said: Mapping[str, Any] | None
    good_until: float


class Introspection:
    """The introspection endpoint of `issuer`, at `endpoint` or where its metadata says. It runs on asyncio.

    One question of at most two seconds and 256 KiB for all that wait for the same token. That a token is not active is
    remembered for five seconds; faults of the endpoint never are, but that nobody answers, for a second.
    """

    def __init__(
        self,
        issuer: str,
        authentication: ClientAuthentication,
        endpoint: str | None = None,
        *,
        positive: timedelta = POSITIVE,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`positive` is how long an active token is believed to be: at most five minutes, none with 0.

        Raises:
            ConfigurationError: a URL is not https (http is for loopback hosts), or a setting is out of range.
        """
        if not timedelta(0) <= positive <= LONGEST_POSITIVE:
            raise ConfigurationError(f"positive must be between 0 and 5 minutes, not {positive}")
        place = issuer if endpoint is None else check_url(endpoint, "introspection endpoint")
        if isinstance(authentication, Anonymous) and not is_loopback(urlsplit(place).hostname or ""):
            raise ConfigurationError("introspection: Anonymous is for endpoints on loopback hosts")
        self._issuer = issuer
        self._authentication = authentication
        self._place: Place | IssuerMetadata = (
            IssuerMetadata(issuer, "introspection endpoint") if endpoint is None else Place(endpoint, public=False)
        )
        self._positive = positive.total_seconds()
        self._clock = clock or SystemClock()
        self._tls = tls or ssl.create_default_context()
        self._client: JsonClient | None = None
        self._flights: dict[bytes, asyncio.Task[Answer]] = {}
        self._inactive: dict[bytes, float] = {}
        self._silent_until = -inf
        self._silence = ""

    async def start(self) -> None:
        """Nothing is asked before there is a token."""

    async def close(self) -> None:
        flights, self._flights = list(self._flights.values()), {}
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def ask(self, token: bytes) -> Answer:
        """What the issuer says of `token`.

        Raises:
            IntrospectionUnavailable: it did not say anything that can be read.
        """
        key, now = hashlib.sha256(token).digest(), self._clock.monotonic()
        known = self._inactive.get(key, -inf)
        if now < known:
            return Answer(None, known)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._take_off(key, token, now)
        return await asyncio.shield(flight)

    def _take_off(self, key: bytes, token: bytes, now: float) -> asyncio.Task[Answer]:
        """The one question about a token: a task of its own, so that the request that began it may be cancelled."""
        if now < self._silent_until:
            raise IntrospectionUnavailable(self._silence, is_outage=True)
        if len(self._flights) >= IN_FLIGHT:
            raise IntrospectionUnavailable(f"{IN_FLIGHT} questions to {self._issuer} are under way", is_outage=False)
        flight = asyncio.get_running_loop().create_task(self._ask(key, token), name=f"introspection {self._issuer}")
        self._flights[key] = flight
        flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: bytes, flight: asyncio.Task[Answer]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # Whoever waited has it; a question that nobody waits for any more may fail.

    async def _ask(self, key: bytes, token: bytes) -> Answer:
        try:
            answer = await within_deadline(self._post(token), f"the introspection endpoint of {self._issuer}")
            said = introspection.read(answer)
        except Unreachable as fault:
            self._silent_until, self._silence = self._clock.monotonic() + RETRY_SECONDS, fault.reason
            logger.warning("tokens of %s could not be introspected: %s", self._issuer, fault.reason)
            raise IntrospectionUnavailable(fault.reason, is_outage=True) from None
        except FetchError as fault:
            logger.warning("tokens of %s could not be introspected: %s", self._issuer, fault.reason)
            raise IntrospectionUnavailable(fault.reason, is_outage=False) from None
        except AnswerError as fault:
            reason = f"the answer of the introspection endpoint of {self._issuer} {fault}"
            logger.warning("%s", reason)
            raise IntrospectionUnavailable(reason, is_outage=False) from None
        now = self._clock.monotonic()
        if said is not None:
            return Answer(said, now + self._positive)
        if len(self._inactive) >= NEGATIVES:
            self._inactive.clear()
        self._inactive[key] = now + NEGATIVE_SECONDS
        return Answer(None, now + NEGATIVE_SECONDS)

    async def _post(self, token: bytes) -> Any:
        if self._client is None:
            self._client = JsonClient(self._tls)
        place = self._place
        if isinstance(place, IssuerMetadata):
            place = self._place = await place.endpoint("introspection_endpoint", self._client)
        fields, headers = self._authentication.credentials(self._issuer, self._clock.wall())
        return await self._client.post(
            place.url, {**introspection.fields(token), **fields}, headers, public=place.public
        )
