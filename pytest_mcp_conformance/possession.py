"""Access tokens that are bound to a key (RFC 9449), and the proofs that go with them.

A server may want a nonce of its own in each proof (§8, §9). The newest one it handed out goes into every proof; what is
refused for want of a newer one is sent once more, so that a refusal that is left speaks of what was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pytest_mcp_conformance.acceptance import Acceptance, judge
from pytest_mcp_conformance.challenges import Challenge
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.exchange import Exchange, Header, Request
from pytest_mcp_conformance.failures import Inconclusive, Judgement, NotApplicable, NotRun
from pytest_mcp_conformance.forge.dpop import ProofKey
from pytest_mcp_conformance.forge.jws import read_jws
from pytest_mcp_conformance.grants import Grant, Tokens
from pytest_mcp_conformance.minting import Mint
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.target import Presentation, Target

ALGORITHMS = "dpop_signing_alg_values_supported"
REQUIRED = "dpop_bound_access_tokens_required"
MakeHeaders = Callable[[], Sequence[Header]]


@dataclass(frozen=True, repr=False)
class BoundToken:
    """An access token and the key it is bound to. `tokens` is the response it came in; None when it was minted."""

    text: str
    key: ProofKey
    tokens: Tokens | None = None

    def __repr__(self) -> str:
        return "BoundToken(…)"


def dpop_challenge(exchange: Exchange) -> Challenge | None:
    """The first DPoP challenge; None when there is none or the field is malformed."""
    try:
        return next((one for one in exchange.challenges if one.scheme.lower() == "dpop"), None)
    except ValueError:
        return None


def algorithms(members: Mapping[str, Any]) -> list[str]:
    """The algorithms of proofs that a metadata document lists; empty when it speaks of none."""
    listed = members.get(ALGORITHMS)
    return [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []


def confirmed_key(token: str) -> object:
    """What `cnf.jkt` of a JWT says; None when the token is opaque or says nothing."""
    jws = read_jws(token)
    cnf = None if jws is None else jws.claims.get("cnf")
    return cnf.get("jkt") if isinstance(cnf, dict) else None


class Possession:
    """One bound token for the run, obtained at first use, and whatever is sent with it."""

    def __init__(
        self, target: Target, mint: Mint, server: Callable[[], AuthorizationServer], pattern: Callable[[], Credential]
    ) -> None:
        self.target = target
        self._mint = mint
        self._server = server
        self._pattern = pattern
        self._found: BoundToken | Judgement | None = None
        self._evidence: tuple[Exchange, ...] = ()
        self._good: Exchange | None = None
        self._nonces: dict[str, str] = {}

    # ----------------------------------------------------------------------------------------------- who speaks of it

    @property
    def announced(self) -> bool:
        """Whether the resource speaks of DPoP, in its challenge or its metadata."""
        if dpop_challenge(self.target.require_protected()) is not None:
            return True
        members = self.target.discovery.resource_document().members
        return bool(algorithms(members)) or members.get(REQUIRED) is True

    def server(self) -> AuthorizationServer:
        """The authorization server, when it speaks of DPoP.

        Raises:
            NotApplicable: it does not, or there is none. NotRun, Inconclusive: it cannot be asked.
        """
        server = self._server()
        self.target.probe.cite(server.document.exchange)
        if ALGORITHMS not in server.metadata:
            raise NotApplicable(f"the authorization server's metadata has no {ALGORITHMS}")
        return server

    @property
    def bound(self) -> BoundToken:
        """The token of the run, which the target serves with a good proof.

        Raises:
            NotApplicable: nobody speaks of DPoP, or the resource does not and takes no proof either.
            NotRun: there are no means to get a token. Inconclusive: they failed, or the good request did.
        """
        if self._found is None:
            before = len(self.target.probe.cited)
            try:
                self._found = self._tried(self.obtain(ProofKey()))
            except Judgement as judgement:
                self._found = judgement
            self._evidence = tuple(self.target.probe.cited[before:])
        self.target.probe.cite(*self._evidence)
        if isinstance(self._found, Judgement):
            raise self._found
        return self._found

    # ------------------------------------------------------------------------------------------------ at the resource

    def proof(
        self,
        *,
        bound: BoundToken | None = None,
        key: ProofKey | None = None,
        request: Request | None = None,
        **changes: Any,
    ) -> str:
        """A good proof for `request` (default: the harmless one), but for `key` and the `changes` that `ProofKey.proof`
        takes.
        """
        held, asked = bound or self.bound, request or self.target.harmless()
        claims = {**self._nonce(self.target.url), **(changes.pop("claims", None) or {})}
        return (key or held.key).proof(asked.method, asked.url, token=held.text, claims=claims, **changes)

    def proved(self, bound: BoundToken | None = None, **changes: Any) -> MakeHeaders:
        """The two fields of a request: the token, and a proof made anew each time."""
        held = bound or self.bound
        return lambda: (self.authorization(held), ("DPoP", self.proof(bound=held, **changes)))

    def authorization(self, bound: BoundToken | None = None) -> Header:
        return ("Authorization", f"DPoP {(bound or self.bound).text}")

    def send(self, make: MakeHeaders, request: Request | None = None) -> Exchange:
        """Send `request` with the fields that `make` makes."""
        asked = request or self.target.harmless()
        exchange = self.target.send(asked.adding(*make()))
        if self._learn(self.target.url, exchange) and wants_nonce(exchange):
            exchange = self.target.send(asked.adding(*make()))
        return exchange

    def present(self, make: MakeHeaders, request: Request | None = None) -> Presentation:
        """As `send`, and judge what became of it, against the harmless request with a good proof and with nothing."""
        _ = self.bound
        return self.judged(self.send(make, request))

    def judged(self, exchange: Exchange) -> Presentation:
        """What became of the credentials in a harmless request. Whatever is answered 400 was refused."""
        anonymous = self.target.anonymous(self.target.harmless())
        if exchange.status == 400:
            return Presentation(Acceptance.REFUSED, exchange)
        return Presentation(judge(exchange, anonymous=anonymous, good=self._good), exchange)

    @contextmanager
    def controlled(self) -> Iterator[None]:
        """The harmless request with a good proof has to be served before and after a batch.

        Raises:
            NotApplicable, NotRun, Inconclusive: as `bound`; or a control failed.
        """
        self.control(self.bound, "before")
        yield
        self.control(self.bound, "after")

    def control(self, bound: BoundToken, when: str) -> Exchange:
        """One positive control: the harmless request with this token and a good proof.

        Raises:
            Inconclusive: it failed; the reason names the answer.
        """
        exchange = self.send(self.proved(bound))
        good = exchange.succeeded and exchange.rpc_error is None
        self.target.controls.run += 1
        self.target.controls.passed += good
        if not good:
            raise Inconclusive(f"the request with a good proof, {when}, did not succeed: {exchange.summary}")
        return exchange

    # ------------------------------------------------------------------------------------ at the authorization server

    def ask(self, key: ProofKey, send: Callable[[Header], Exchange], **changes: Any) -> Exchange:
        """What the token endpoint answers to `send(field)` with a proof of `key`, good but for `changes`."""
        endpoint = self._server().endpoint("token_endpoint")

        def once() -> Exchange:
            claims = {**self._nonce(endpoint), **(changes.get("claims") or {})}
            return send(("DPoP", key.proof("POST", endpoint, **{**changes, "claims": claims})))

        exchange = once()
        if self._learn(endpoint, exchange) and wants_nonce(exchange):
            exchange = once()
        return exchange

    def redeem(self, key: ProofKey, grant: Grant, **changes: Any) -> Exchange:
        """Redeem a code with a proof."""
        server = self._server()
        return self.ask(key, lambda field: server.redeem(grant, field), **changes)

    def refresh(self, key: ProofKey, tokens: Tokens, **changes: Any) -> Exchange:
        """Refresh with a proof."""
        server = self._server()
        return self.ask(key, lambda field: server.refresh(tokens, field), **changes)

    @cached_property
    def another(self) -> BoundToken:
        """A second token for the key of `bound`: refreshed, granted or minted.

        Raises:
            NotRun, Inconclusive: there is none to be had.
        """
        key, first = self.bound.key, self.bound.tokens
        if first is None:
            return self._minted(key)
        server = self._server()
        answer = self.refresh(key, first) if first.refresh_token else self.redeem(key, server.grant())
        return self._of(server.tokens_from(answer, first.registration), key)

    def obtain(self, key: ProofKey) -> BoundToken:
        """A token bound to `key`: of a grant where that is possible, else minted.

        Raises:
            NotApplicable: nobody speaks of DPoP. NotRun: there are no means. Inconclusive: they failed.
        """
        announced = self.announced
        try:
            server = self.server()
            grant = server.grant()
            return self._of(server.tokens_from(self.redeem(key, grant), grant.registration), key)
        except NotApplicable:
            if not announced:
                raise NotApplicable("neither the resource nor its authorization server speaks of DPoP") from None
        except NotRun:
            if not self._mint.available:
                raise
        return self._minted(key)

    def _of(self, tokens: Tokens, key: ProofKey) -> BoundToken:
        bound = confirmed_key(tokens.access_token) == key.thumbprint or read_jws(tokens.access_token) is None
        if str(tokens.members.get("token_type", "")).lower() != "dpop" or not bound:
            raise Inconclusive("the authorization server does not bind its tokens (see DPOP-014)")
        return BoundToken(tokens.access_token, key, tokens)

    def _minted(self, key: ProofKey) -> BoundToken:
        return BoundToken(self.mint({"cnf": {"jkt": key.thumbprint}}), key)

    def mint(self, claims: Mapping[str, Any]) -> str:
        """A token after user A's, with these claims replaced.

        Raises:
            NotRun: the run cannot mint, or its tokens are opaque.
        """
        if not self._mint.available:
            self._mint.token({}, {})
        pattern = read_jws(self._pattern().token)
        if pattern is None:
            raise NotRun("access tokens are opaque, so there is no pattern to mint by")
        return self._mint.token(pattern.header, {**pattern.claims, **claims})

    def _tried(self, bound: BoundToken) -> BoundToken:
        try:
            self._good = self.control(bound, "at first")
        except Inconclusive:
            if self.announced:
                raise
            raise NotApplicable("the resource does not speak of DPoP, and serves nobody with a proof") from None
        return bound

    def _nonce(self, url: str) -> dict[str, str]:
        return {"nonce": self._nonces[url]} if url in self._nonces else {}

    def _learn(self, url: str, exchange: Exchange) -> bool:
        """Whether an answer brings another nonce than the one in use, which is used from then on."""
        nonce = exchange.header("dpop-nonce")
        if not nonce or nonce == self._nonces.get(url):
            return False
        self._nonces[url] = nonce
        return True


def wants_nonce(exchange: Exchange) -> bool:
    """Whether a proof was refused for want of a nonce (RFC 9449 §8 at the issuer, §9 at the resource)."""
    members = exchange.json()
    errors = [members.get("error")] if isinstance(members, dict) else []
    with suppress(ValueError):
        errors += [challenge.parameters.get("error") for challenge in exchange.challenges]
    return exchange.status in {400, 401} and "use_dpop_nonce" in errors
