"""How a run talks to its target: budgeted, rate-capped, fenced in, every exchange on record."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pytest_mcp_conformance.egress import Address, Egress, Forbidden
from pytest_mcp_conformance.exchange import Exchange, Header, Request, Response
from pytest_mcp_conformance.failures import BudgetExhausted, Inconclusive, RateLimited
from pytest_mcp_conformance.redaction import Secrets
from pytest_mcp_conformance.wire import STREAM_SECONDS, Connection, EventStream, NoAnswer, connect, encode

LONGEST_WAIT_SECONDS = 5.0
WAITING_CAP_SECONDS = 20.0
SECRET_LENGTH = 8  # shorter cookie values and session ids are words, and hiding them would mangle every text
_REMAINING = re.compile(r'^\s*(?:"[^"]*"|[\w*.-]+)\s*;.*\br=(\d+)(?:.*\bt=(\d+))?')


@dataclass
class Ledger:
    """What the run has sent and waited for, in requests and seconds."""

    requests: int = 0
    refused_by_limit: int = 0
    waited_seconds: float = 0.0
    not_contacted: dict[str, str] = field(default_factory=dict)


class Probe:
    """Sends requests. `history` holds every exchange of the run, `cited` those the running check rests on; the engine
    empties `cited` between checks.
    """

    def __init__(self, egress: Egress, *, max_requests: int, requests_per_second: float, secrets: Secrets) -> None:
        self.egress = egress
        self.secrets = secrets
        self.ledger = Ledger()
        self.history: list[Exchange] = []
        self.cited: list[Exchange] = []
        self._max_requests = max_requests
        self._interval_seconds = 1.0 / requests_per_second
        self._next_send = 0.0
        self._pause = threading.Event()

    @property
    def requests_left(self) -> int:
        return self._max_requests - self.ledger.requests

    def send(
        self,
        request: Request,
        *,
        heed_limits: bool = True,
        head_only: bool = False,
        stream_seconds: float = STREAM_SECONDS,
    ) -> Exchange:
        """Send on a connection of its own and read the answer, up to a mebibyte of body. Redirects are not followed.

        An event stream is read until a JSON-RPC response is in it, or for `stream_seconds`. A 429 with a short Retry-
        After is waited for and tried once more, unless `heed_limits` is off.

        Raises:
            RateLimited: 429 again, or a Retry-After too long to wait for.
            BudgetExhausted: the run has sent all it may.
            Inconclusive: the URL is none the run may contact.
        """

        def once() -> Exchange:
            with self.connection(request.url) as link:
                return link.send(request, heed_limits=False, head_only=head_only, stream_seconds=stream_seconds)

        return self._heeding(once) if heed_limits else once()

    def get(self, url: str, *headers: Header) -> Exchange:
        """GET `url`; what `send` raises."""
        return self.send(Request("GET", url, headers))

    @contextmanager
    def connection(self, url: str) -> Iterator[Link]:
        """One connection to the origin of `url` for several requests (keep-alive). A refused connection shows in the
        exchanges sent on it, as no response.

        Raises:
            Inconclusive: the URL is none the run may contact.
        """
        link = Link(self, url)
        try:
            yield link
        finally:
            link.close()

    @contextmanager
    def stream(self, request: Request) -> Iterator[tuple[Exchange, EventStream]]:
        """Send, and keep the response open as a stream of events; the exchange holds the head only.

        Raises:
            Inconclusive: no HTTP response came, or the URL is none the run may contact.
        """
        self._spend()
        started = time.monotonic()
        try:
            opened = _open_stream(request, self._addresses(request.url))
        except (NoAnswer, OSError) as error:
            self.record(request, None, str(error), time.monotonic() - started)
            raise Inconclusive(f"no stream could be opened at {request.url}: {error}") from error
        try:
            yield self.record(request, opened.response, "", time.monotonic() - started), opened
        finally:
            opened.close()

    @contextmanager
    def unfinished(self, request: Request, connections: int) -> Iterator[None]:
        """Send `request`, which announces more than it holds, on so many connections, and keep them open, unanswered.

        Raises:
            Inconclusive: a connection could not be made, or the URL is none the run may contact.
        """
        with ExitStack() as until_closed:
            for _ in range(connections):
                self._spend()
                try:
                    connected = connect(request.url, self._addresses(request.url))
                    until_closed.enter_context(connected)
                    connected.sendall(encode(request))
                except (NoAnswer, OSError) as error:
                    raise Inconclusive(f"{request.url} could not be connected to: {error}") from error
            yield

    def refusal(self, url: str) -> str:
        """Why `url` may not be contacted; empty when it may."""
        try:
            self.egress.addresses(url)
        except Forbidden as error:
            return str(error)
        except OSError:
            return ""
        return ""

    def wait(self, seconds: float) -> bool:
        """Wait so long, where the run may; whether it did."""
        granted = self._allowance(seconds)
        self._pause.wait(granted)
        return granted >= seconds

    def cite(self, *exchanges: Exchange) -> None:
        """Count exchanges of earlier checks as evidence of the running one."""
        self.cited.extend(exchange for exchange in exchanges if exchange not in self.cited)

    def record(self, request: Request, response: Response | None, failure: str, elapsed_seconds: float) -> Exchange:
        exchange = Exchange(self.ledger.requests, request, response, failure, elapsed_seconds)
        self.history.append(exchange)
        self.cited.append(exchange)
        self._guard_secrets(exchange)
        return exchange

    def _guard_secrets(self, exchange: Exchange) -> None:
        for line in exchange.header_lines("set-cookie"):
            value = line.partition(";")[0].partition("=")[2].strip('" ')
            if len(value) >= SECRET_LENGTH:
                self.secrets.add(value, "COOKIE")
        session = exchange.header("mcp-session-id") or ""
        if len(session) >= SECRET_LENGTH:
            self.secrets.add(session, "SESSION")

    def _addresses(self, url: str) -> list[tuple[str, int]]:
        try:
            return self.egress.addresses(url)
        except Forbidden as error:
            self.ledger.not_contacted[url] = str(error)
            raise Inconclusive(f"{url} was not contacted: {error}") from None
        except OSError as error:
            raise NoAnswer(f"{urlsplit(url).hostname} does not resolve: {error}") from error

    def _spend(self) -> None:
        if self.requests_left <= 0:
            raise BudgetExhausted(f"the run's budget of {self._max_requests} requests is spent")
        self.ledger.requests += 1
        now = time.monotonic()
        if self._next_send > now:
            self._pause.wait(self._next_send - now)
        self._next_send = max(now, self._next_send) + self._interval_seconds

    def _heeding(self, once: Callable[[], Exchange]) -> Exchange:
        exchange = once()
        if exchange.status == 429:
            self._wait(exchange, retry_after_seconds(exchange))
            exchange = once()
            if exchange.status == 429:
                self.ledger.refused_by_limit += 1
                raise RateLimited("the target answered 429 Too Many Requests, and again after the wait it asked for")
        remaining = _REMAINING.match(exchange.header("ratelimit") or "")
        if remaining is not None and remaining[1] == "0" and remaining[2] is not None:
            self._next_send = max(self._next_send, time.monotonic() + self._allowance(float(remaining[2])))
        return exchange

    def _wait(self, exchange: Exchange, seconds: float | None) -> None:
        if seconds is None or self._allowance(seconds) < seconds:
            self.ledger.refused_by_limit += 1
            asked = "gave no Retry-After" if seconds is None else f"asked to wait {seconds:g} seconds"
            raise RateLimited(f"the target answered 429 Too Many Requests to {exchange.request.method} and {asked}")
        self._pause.wait(seconds)

    def _allowance(self, seconds: float) -> float:
        """How much of `seconds` the run still may wait; counted as waited."""
        granted = min(seconds, LONGEST_WAIT_SECONDS, WAITING_CAP_SECONDS - self.ledger.waited_seconds)
        if granted < seconds:
            return 0.0
        self.ledger.waited_seconds += granted
        return granted


class Link:
    """A connection of a probe. Sends as `Probe.send`, on one socket as long as the server keeps it open."""

    def __init__(self, probe: Probe, url: str) -> None:
        self._probe = probe
        self._url = url
        self._connection: Connection | None = None

    def send(
        self,
        request: Request,
        *,
        heed_limits: bool = True,
        head_only: bool = False,
        stream_seconds: float = STREAM_SECONDS,
    ) -> Exchange:
        """As `Probe.send`."""
        if heed_limits:
            return self._probe._heeding(
                lambda: self.send(request, heed_limits=False, head_only=head_only, stream_seconds=stream_seconds)
            )
        self._probe._spend()
        started = time.monotonic()
        response, failure = None, ""
        try:
            response = self._open().exchange(request, head_only=head_only, stream_seconds=stream_seconds)
        except NoAnswer as error:
            failure = str(error)
        return self._probe.record(request, response, failure, time.monotonic() - started)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> Connection:
        if self._connection is not None and not self._connection.reusable:
            self.close()
        if self._connection is None:
            self._connection = Connection(connect(self._url, self._probe._addresses(self._url)))
        return self._connection


def _open_stream(request: Request, addresses: Sequence[Address]) -> EventStream:
    connection = Connection(connect(request.url, addresses))
    try:
        return EventStream(connection, request)
    except NoAnswer:
        connection.close()
        raise


def retry_after_seconds(exchange: Exchange) -> float | None:
    """The Retry-After of an answer in seconds; None when absent or a date (RFC 9110 §10.2.3)."""
    text = (exchange.header("retry-after") or "").strip()
    return float(text) if text.isdigit() else None
