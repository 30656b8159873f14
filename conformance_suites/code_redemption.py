"""Attempts to redeem codes in ways that should fail, made so that a refusal proves something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.failures import Inconclusive
from pytest_mcp_conformance.grants import Grant, Override, Registration
from pytest_mcp_conformance.oauth import AuthorizationServer


def issued_tokens(exchange: Exchange) -> bool:
    """Whether a token endpoint handed out an access token."""
    members = exchange.json()
    return exchange.succeeded and isinstance(members, dict) and bool(members.get("access_token"))


def oauth_error(exchange: Exchange) -> str:
    """The error of a token, registration or revocation response (RFC 6749 §5.2); empty when there is none."""
    members = exchange.json()
    error = members.get("error") if isinstance(members, dict) else None
    return error if isinstance(error, str) else ""


def outcome_of(exchange: Exchange) -> str:
    """What a token endpoint answered, for a person: the error, or the status."""
    error = oauth_error(exchange)
    return f"{exchange.status} {error}" if error else exchange.summary


class Redemptions:
    """Wrong attempts on good codes.

    Where the server leaves a code alone when an attempt on it fails, one code serves for many attempts, and `prove`
    shows that it was good all along. Where a failure ends the code, each attempt gets a code of its own.
    """

    def __init__(self, server: AuthorizationServer, obtain: Callable[[], Grant] | None = None) -> None:
        self._server = server
        self._obtain = obtain or server.grant
        self._grant: Grant | None = None

    @property
    def grant(self) -> Grant:
        """The code of the next attempt.

        Raises:
            NotRun, Inconclusive: none could be obtained.
        """
        if self._grant is None:
            self._grant = self._obtain()
        return self._grant

    def attempt(self, by: Registration | None = None, **overrides: Override) -> Exchange:
        """Redeem `grant` with these fields replaced, as its client or another. The first refusal of a run is followed
        by a positive control, which also finds out what a failure does to a code.

        Raises:
            NotRun, Inconclusive: no code could be obtained, or no good one could be redeemed.
        """
        grant = self.grant
        presented = grant if by is None else replace(grant, registration=by)
        exchange = self._server.redeem(presented, **overrides)
        if issued_tokens(exchange) or self._server.codes_survive is False:
            self._grant = None
        elif self._server.codes_survive is None:
            self._server.codes_survive = issued_tokens(self._server.redeem(grant))
            self._grant = None
            if not self._server.codes_survive:
                self._server.tokens(self._obtain())
        return exchange

    def prove(self) -> None:
        """The positive control at the end.

        Raises:
            Inconclusive: the code that was attempted on is not good any more, so its refusals prove nothing.
        """
        grant, self._grant = self._grant or self._obtain(), None
        exchange = self._server.redeem(grant)
        if not issued_tokens(exchange):
            raise Inconclusive(f"the good redemption after the batch did not succeed: {outcome_of(exchange)}")
