"""The server under test, and what a run learns about it once: eras, challenge, metadata, a harmless request to
compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pytest_mcp_conformance import mcp
from pytest_mcp_conformance.acceptance import Acceptance, judge
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.discovery import Discovery
from pytest_mcp_conformance.eras import Spoken, find_eras, harmless_request, result_of
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.failures import Inconclusive, Judgement, NotApplicable
from pytest_mcp_conformance.mcp import Era, Message
from pytest_mcp_conformance.options import Settings
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.streams import open_sse

_T = TypeVar("_T")


@dataclass(frozen=True)
class Presentation:
    """What became of a credential, and the exchange that shows it."""

    acceptance: Acceptance
    exchange: Exchange

    @property
    def authenticated(self) -> bool:
        return self.acceptance is Acceptance.AUTHENTICATED

    @property
    def refused(self) -> bool:
        return self.acceptance is Acceptance.REFUSED


@dataclass
class Controls:
    """How the positive controls of the run went."""

    run: int = 0
    passed: int = 0


class Target:
    """One MCP endpoint. Everything learned is learned at first use and kept; its exchanges count as evidence of each
    check that uses them.
    """

    def __init__(self, settings: Settings, probe: Probe, obtain_credential: Callable[[], Credential]) -> None:
        self.settings = settings
        self.url = settings.target
        self.probe = probe
        self.controls = Controls()
        self.discovery = Discovery(self.url, probe, lambda: self.challenge)
        self._obtain_credential = obtain_credential
        self._kept: dict[object, tuple[Any, tuple[Exchange, ...]]] = {}
        self._sessions: list[tuple[str, Credential | None]] = []

    @property
    def origin(self) -> str:
        """Scheme, host and port, as a browser would write them in Origin."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        default = {"http": 80, "https": 443}[parts.scheme]
        return f"{parts.scheme}://{host}" + ("" if parts.port in {None, default} else f":{parts.port}")

    # ------------------------------------------------------------------------------------------------ what it speaks

    @property
    def credential(self) -> Credential | None:
        """User A's credential if the run has one, for a check that can do without."""
        try:
            return self._obtain_credential()
        except Judgement:
            return None

    def require_credential(self) -> Credential | None:
        """User A's credential; None when the target serves everybody.

        Raises:
            NotRun, Inconclusive: the target refuses strangers and the run has no credential, and why.
        """
        return self._obtain_credential() if self.protected else self.credential

    @property
    def eras(self) -> tuple[Era, ...]:
        """The eras the target speaks, newest first; empty when it refused to say."""
        return self.spoken.eras

    @property
    def revisions(self) -> frozenset[str]:
        """The revisions to judge by: the one the operator fixed, else those spoken, else (nothing learned) all."""
        if self.settings.revision:
            return frozenset({self.settings.revision})
        return self.spoken.revisions or frozenset({"2024-11-05", *mcp.LEGACY_REVISIONS, mcp.MODERN_REVISION})

    @property
    def spoken(self) -> Spoken:
        return self._once("spoken", self._find_eras)

    def require(self, era: Era) -> Era:
        """`era`, when the target speaks it.

        Raises:
            NotApplicable: it does not. Inconclusive: it refused to say.
        """
        if era in self.eras:
            return era
        if self.spoken.refused:
            raise Inconclusive("the target answered no handshake, so which eras it speaks is unknown")
        raise NotApplicable(f"the target does not speak the {era} era")

    @property
    def era(self) -> Era:
        """The newest era spoken; when nothing was learned, HTTP+SSE if only GET is challenged, else modern."""
        return self.eras[0] if self.eras else self.spoken.likely

    # --------------------------------------------------------------------------------------------- requests and answers

    def harmless(self, era: Era | None = None) -> Request:
        """A request without a credential that changes nothing; its era is the newest spoken unless given."""
        return harmless_request(self.url, era or self.era)

    def send(self, message: Message | Request, credential: Credential | None = None, *extra: Header) -> Exchange:
        """Send a message, or a request as it stands, to the target; `extra` headers replace those of the same name."""
        request = message.request(self.url) if isinstance(message, Message) else message
        headers = (*(() if credential is None else (credential.header,)), *extra)
        exchange = self.probe.send(request.with_headers(*headers), head_only=request.method == "GET")
        self._note_session(exchange, credential)
        return exchange

    def anonymous(self, request: Request) -> Exchange:
        """What `request` gets without a credential; asked once."""
        bare = request.without("authorization")
        return self._once(("anonymous", bare), lambda: self.send(bare))

    def present(
        self, value: str | bytes, *, request: Request | None = None, good: Credential | None = None
    ) -> Presentation:
        """Send `request` (default: the harmless one) with `value` as its Authorization field, and judge what became
        of it.
        """
        return self.judge(request or self.harmless(), ("Authorization", value), good=good)

    def judge(self, request: Request, *headers: Header, good: Credential | None = None) -> Presentation:
        """Send `request` with `headers` added, and judge whether the credential in it was authenticated, against the
        same request without any and, when the run has a token, with a good one.
        """
        anonymous = self.anonymous(request)
        credential = good or self.credential
        reference = None
        if credential is not None:
            known = credential
            reference = self._once(("good", request, known), lambda: self.send(request, known))
        exchange = self.send(request.adding(*headers))
        return Presentation(judge(exchange, anonymous=anonymous, good=reference), exchange)

    @contextmanager
    def controlled(self, credential: Credential | None, request: Request | None = None) -> Iterator[Exchange]:
        """A positive control before and after a batch: the harmless request with a good credential must succeed both
        times. A finding raised inside is kept, whatever the second control says.

        Raises:
            Inconclusive: a control failed, so that refusals in between prove nothing.
        """
        yield self.control(credential, "before", request)
        self.control(credential, "after", request)

    def control(self, credential: Credential | None, when: str, request: Request | None = None) -> Exchange:
        """One positive control.

        Raises:
            Inconclusive: it failed; the reason names the answer.
        """
        exchange = self.send(request or self.harmless(), credential)
        good = exchange.succeeded and exchange.rpc_error is None
        if credential is not None:
            self.controls.run += 1
            self.controls.passed += good
        if not good:
            raise Inconclusive(f"the good request {when} the batch did not succeed: {exchange.summary}")
        return exchange

    def tools(self, credential: Credential | None) -> list[dict[str, Any]]:
        """What `tools/list` answers in the newest era that lists without a stream; asked once. Empty when refused."""
        return self._once(("tools", credential), lambda: self._list_tools(credential))

    # ------------------------------------------------------------------------------------------------ authorization

    @property
    def challenge(self) -> Exchange:
        """What the target answers without a credential: a refusal if any harmless request is refused, else a success
        if any succeeds.
        """
        return self._once("challenge", self._find_challenge)

    @property
    def protected(self) -> bool:
        """Whether the target refuses the harmless request without a credential (401, or 403)."""
        return self.challenge.status in {401, 403}

    def require_protected(self) -> Exchange:
        """The refusal of a request without credentials.

        Raises:
            NotApplicable: such a request succeeds. Inconclusive: it neither succeeds nor is refused for want of
            credentials.
        """
        exchange = self.challenge
        if self.protected:
            return exchange
        if exchange.succeeded:
            raise NotApplicable("the target requires no authorization: it serves requests without a credential")
        raise Inconclusive(f"a request without a credential is neither served nor refused: {exchange.summary}")

    def close(self) -> None:
        """End the sessions the run opened, as far as the budget goes."""
        for session, credential in self._sessions[: self.probe.requests_left]:
            headers = (("Mcp-Session-Id", session), *(() if credential is None else (credential.header,)))
            self.probe.send(Request("DELETE", self.url, headers), heed_limits=False)
        self._sessions.clear()

    # ------------------------------------------------------------------------------------------------------- internal

    def _list_tools(self, credential: Credential | None) -> list[dict[str, Any]]:
        if self.era is Era.MODERN:
            answer = self.send(mcp.modern("tools/list"), credential)
        else:
            session = self.send(mcp.initialize(), credential).header("mcp-session-id") or ""
            self.send(mcp.legacy("notifications/initialized", request_id=None, session=session), credential)
            answer = self.send(mcp.legacy("tools/list", session=session), credential)
        listed = (result_of(answer) or {}).get("tools")
        return [tool for tool in listed if isinstance(tool, dict)] if isinstance(listed, list) else []

    def _find_challenge(self) -> Exchange:
        answers: list[Exchange] = []
        for era in Era:
            answers.append(self.send(self.harmless(era)))
            if answers[-1].status in {401, 403}:
                return answers[-1]
        return next((answer for answer in answers if answer.succeeded and answer.rpc_error is None), answers[0])

    def _once(self, key: object, learn: Callable[[], _T]) -> _T:
        if key not in self._kept:
            before = len(self.probe.cited)
            learned = learn()
            self._kept[key] = learned, tuple(self.probe.cited[before:])
        kept: _T
        kept, evidence = self._kept[key]
        self.probe.cite(*evidence)
        return kept

    def _note_session(self, exchange: Exchange, credential: Credential | None) -> None:
        session = exchange.header("mcp-session-id")
        if session and exchange.succeeded and b'"initialize"' in (exchange.request.body or b""):
            self._sessions.append((session, credential))

    def forget_session(self, session: str) -> None:
        """Leave a session out of the clean-up, for a check that ends it itself."""
        self._sessions = [kept for kept in self._sessions if kept[0] != session]

    def _find_eras(self) -> Spoken:
        credential = self.credential

        def on_stream(revision: str) -> dict[str, Any]:
            with open_sse(self.probe, self.url, credential) as session:
                return dict((session.begin(credential, revision) or {}).get("result") or {})

        return find_eras(self.url, lambda request: self.send(request, credential), on_stream)
