"""PKCE: an authorization code works once, for one client and one redirect URI, and gives nothing away."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

from hypothesis import strategies as st

from conformance_suites.code_redemption import Redemptions, issued_tokens, oauth_error, outcome_of
from pytest_mcp_conformance import Advice, Finding, Inconclusive, requirement
from pytest_mcp_conformance.exchange import Exchange
from pytest_mcp_conformance.grants import Grant, Override, Tokens, fresh_pkce
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.options import Profile
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Presentation, Target

AT_ONCE = 2
LONGEST_CODE_SECONDS = 600.0
RIGHT, WRONG, PAIR = "the right verifier", "a wrong verifier", "the right verifier twice at once"
Attempts = tuple[str, ...]


class CodeRedeemedAgain(Finding):
    """A code gave tokens more than once."""


class RefusedWithAnotherError(Advice):
    """A code was refused, and not with invalid_grant."""


class ReuseForgiven(Advice):
    """A code was used again, and what it had given goes on working."""


class StrangersCutUsersOff(Advice):
    """A used code with a wrong verifier ended what it had given."""


class CodeRedeemedByAnotherClient(Finding):
    """A code was redeemed by a client it was not issued to."""


class CodeRedeemedForAnotherRedirect(Finding):
    """A code was redeemed with another redirect_uri than it was issued to."""


class CodeNeverExpires(Finding):
    """A code was redeemed more than ten minutes after it was issued."""


class ChallengeExposed(Finding):
    """The challenge can be read from the authorization response."""


@requirement("PKCE-007")
def test_a_code_works_once(authorization_server: AuthorizationServer, space: Space) -> None:
    """OAuth 2.1 §4.1.3: whatever attempts are made, one at most succeeds; also of two at the same time."""
    server = authorization_server

    def judge(attempts: Attempts) -> None:
        grant = server.grant()
        answers = [exchange for attempt in attempts for exchange in _attempt(server, grant, attempt)]
        good = [exchange for exchange in answers if issued_tokens(exchange)]
        if len(good) > 1:
            raise CodeRedeemedAgain(
                f"a code gave tokens {len(good)} times",
                evidence=good,
                expected="tokens once, then invalid_grant",
                got=", ".join(outcome_of(exchange) for exchange in answers),
                counterexample=f"attempts with {', then '.join(attempts)}",
            )
        if not good and attempts[0] != WRONG:
            raise Inconclusive(f"a good code gave no token: {outcome_of(answers[0])}")
        if attempts[-1] == RIGHT and good and good[0] is not answers[-1]:
            _judge_error(answers[-1], "a used code")

    attempts = st.lists(st.sampled_from([RIGHT, WRONG, PAIR]), min_size=2, max_size=3).map(tuple)
    space.search(judge, attempts, classics=[(RIGHT, RIGHT), (PAIR, RIGHT)], max_examples=2)


def _attempt(server: AuthorizationServer, grant: Grant, how: str) -> Sequence[Exchange]:
    if how == WRONG:
        return [server.redeem(grant, code_verifier=fresh_pkce().verifier)]
    if how == RIGHT:
        return [server.redeem(grant)]
    start = threading.Barrier(AT_ONCE)

    def redeem(number: int) -> Exchange:
        start.wait()
        return server.redeem(grant)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(redeem, range(AT_ONCE)))


def _judge_error(exchange: Exchange, what: str) -> None:
    if oauth_error(exchange) != "invalid_grant":
        raise RefusedWithAnotherError(
            f"{what} is refused with another error",
            evidence=exchange,
            expected="invalid_grant",
            got=outcome_of(exchange),
        )


@requirement("PKCE-007")
def test_using_a_code_again_undoes_what_it_gave(target: Target, authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §4.1.3: who presents a used code with its verifier may have stolen it the first time. Who has the code
    alone, from a log or a history, must not be able to cut a user off.
    """
    server = authorization_server
    grant = server.grant()
    tokens = server.tokens(grant)
    if not _works(target, tokens).authenticated:
        raise Inconclusive("the access token of a regular grant is not accepted")
    replay = server.redeem(grant, code_verifier=fresh_pkce().verifier)
    seen = _works(target, tokens)
    if not seen.authenticated:
        raise StrangersCutUsersOff(
            "a used code, presented with a wrong verifier, ended the access token it had given",
            evidence=(replay, seen.exchange),
            expected="the token works as before",
            got=seen.exchange.summary,
        )
    again = server.redeem(grant)
    if issued_tokens(again):
        return  # the other check of this requirement judges that
    seen = _works(target, tokens)
    refreshed = server.refresh(tokens) if tokens.refresh_token else None
    if seen.authenticated or (refreshed is not None and issued_tokens(refreshed)):
        which = "access" if seen.authenticated else "refresh"
        raise ReuseForgiven(
            f"a code was used twice, and the {which} token it gave goes on working",
            evidence=(again, seen.exchange if seen.authenticated or refreshed is None else refreshed),
            expected="invalid_token from the MCP server, invalid_grant from the authorization server",
            got=f"the {which} token is accepted",
        )


def _works(target: Target, tokens: Tokens) -> Presentation:
    """Raises: Inconclusive when it is not clear whether the access token was accepted."""
    seen = target.present(f"Bearer {tokens.access_token}")
    if not seen.authenticated and not seen.refused:
        raise Inconclusive(f"whether the access token works is not clear: {seen.exchange.summary}")
    return seen


@requirement("PKCE-008")
def test_a_code_belongs_to_one_client_and_one_redirect_uri(
    target: Target, authorization_server: AuthorizationServer
) -> None:
    """OAuth 2.1 §4.1.3, §10.2. The deep profile also waits until a code must have expired (§4.1.2)."""
    server = authorization_server
    redemptions = Redemptions(server)
    exchange = redemptions.attempt(by=server.register())
    if issued_tokens(exchange):
        raise CodeRedeemedByAnotherClient(
            "a code was redeemed by a client it was not issued to",
            evidence=exchange,
            expected="invalid_grant",
            got="an access token",
        )
    _judge_error(exchange, "another client's code")
    for what, uri in _other_redirects(redemptions.grant.registration.redirect_uri).items():
        _judge_redirect(redemptions, what, uri)
    redemptions.prove()
    if target.settings.profile is Profile.DEEP:
        _judge_age(server)


def _other_redirects(uri: str) -> dict[str, Override]:
    return {
        "another path": f"{uri}/other",
        "another port": uri.replace(":33418/", ":33419/") if ":33418/" in uri else f"{uri}?x=1",
        "another host": "https://attacker.example/callback",
        "a query added": f"{uri}?code=x",
    }


def _judge_redirect(redemptions: Redemptions, what: str, uri: Override) -> None:
    exchange = redemptions.attempt(redirect_uri=uri)
    if issued_tokens(exchange):
        raise CodeRedeemedForAnotherRedirect(
            "a code was redeemed with another redirect_uri than it was issued to",
            evidence=exchange,
            expected="invalid_grant",
            got="an access token",
            counterexample=f"redirect_uri: {what}",
        )
    _judge_error(exchange, f"a code with {what} in redirect_uri")


def _judge_age(server: AuthorizationServer) -> None:
    grant = server.grant()
    threading.Event().wait(LONGEST_CODE_SECONDS + 1)
    exchange = server.redeem(grant)
    if issued_tokens(exchange):
        raise CodeNeverExpires(
            "a code was redeemed more than ten minutes after it was issued",
            evidence=(grant.outcome.exchange, exchange),
            expected="invalid_grant",
            got="an access token",
        )


@requirement("PKCE-009")
def test_the_challenge_is_not_in_the_response(authorization_server: AuthorizationServer) -> None:
    """OAuth 2.1 §4.1.2: neither beside the code nor inside it."""
    grant = authorization_server.grant()
    challenge = grant.pkce.challenge
    raw = base64.urlsafe_b64decode(challenge + "=")
    for name, values in grant.outcome.answer.items():
        for value in values:
            if any(challenge.encode() in reading or raw in reading for reading in _readings(value)):
                raise ChallengeExposed(
                    "the code_challenge can be read from the authorization response",
                    evidence=grant.outcome.exchange,
                    expected="a response that does not hold it",
                    got=f"it is in {name}",
                )


def _readings(value: str) -> Iterator[bytes]:
    """A parameter as it stands, and decoded in the usual ways, whole and by its dotted parts."""
    for text in dict.fromkeys((value, unquote(value))):
        yield text.encode()
        for part in dict.fromkeys((text, *text.split("."))):
            try:
                yield base64.b64decode(part.encode() + b"=" * (-len(part) % 4), altchars=b"-_")
            except (binascii.Error, ValueError):
                continue
            try:
                yield bytes.fromhex(part)
            except ValueError:
                continue
