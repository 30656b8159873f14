"""How long things live and how many there may be, each number with its source."""

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import get_args

from mcp_guard.facts import Policy
from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.protocol.dpop import DEFAULT_WINDOW, Window

LONGEST_ACCESS_TOKEN = timedelta(hours=1)
LONGEST_CODE = timedelta(minutes=10)
"""OAuth 2.1 §4.1.2: at most 10 minutes."""
LONGEST_PROOF = timedelta(minutes=10)
LARGEST_LEEWAY = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long what is issued stays good.

    `access_token` is at most an hour (RFC 9700 §2.2.1 asks for short). `code` is at most 10 minutes (OAuth 2.1 §4.1.2).
    `refresh_token` is the absolute lifetime of a grant: rotation does not extend it. `browser_session` is how long a
    person stays signed in. `transaction` is how long a consent page may wait for its answer. `unused_client` is how
    long a registration is kept until its first token, `client` how long after its last.
    """

    access_token: timedelta = timedelta(minutes=15)
    code: timedelta = timedelta(seconds=60)
    refresh_token: timedelta = timedelta(days=30)
    browser_session: timedelta = timedelta(hours=1)
    transaction: timedelta = timedelta(minutes=10)
    unused_client: timedelta = timedelta(days=1)
    client: timedelta = timedelta(days=90)

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < timedelta(seconds=1):
                raise ConfigurationError(f"lifetimes.{field.name} must be at least 1 second")
        if self.access_token > LONGEST_ACCESS_TOKEN:
            raise ConfigurationError("lifetimes.access_token must be at most 1 hour")
        if self.code > LONGEST_CODE:
            raise ConfigurationError("lifetimes.code must be at most 10 minutes")
        if self.refresh_token < self.access_token:
            raise ConfigurationError("lifetimes.refresh_token must be at least lifetimes.access_token")


@dataclass(frozen=True, slots=True)
class ProofTerms:
    """Whether tokens are bound to a key of the client (RFC 9449), and what is asked of its proofs.

    With the `policy` "off" proofs are not looked at, with "allowed" a request with a proof gets bound tokens, with
    "required" there are no others. `window` is how old a proof may be. `nonces` is the key ring, shared by all workers,
    that nonces are made with: given it, each proof has to carry a nonce of this server (§8).
    """

    policy: Policy = "allowed"
    window: Window = DEFAULT_WINDOW
    nonces: KeyRing | None = None

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ConfigurationError(f"proofs.policy must be off, allowed or required, not {self.policy!r}")
        if not 1 <= self.window.lifetime_seconds <= LONGEST_PROOF.total_seconds():
            raise ConfigurationError("proofs.window: a proof lives from 1 second to 10 minutes")
        if not 0 <= self.window.leeway_seconds <= LARGEST_LEEWAY.total_seconds():
            raise ConfigurationError("proofs.window: the leeway is from 0 to 5 minutes")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` at once, refilled over `period`."""

    count: int
    period: timedelta

    def __post_init__(self) -> None:
        if self.count < 1 or self.period <= timedelta(0):
            raise ConfigurationError("a rate is a count of at least 1 over a period longer than zero")


@dataclass(frozen=True, slots=True)
class Limits:
    """How often what costs something may be done.

    Guesses at a password are counted for each address, for each user wherever they come from (OWASP ASVS 4 2.2.1: no
    more than 100 an hour), and for a user from one address, fewer, so that nobody alone can lock somebody else out.
    `client_failures_per_address` counts failed client authentications, `transactions_per_user` consent pages.
    `registrations` bounds, with `Lifetimes.unused_client`, how many unused clients are
    kept: at most twice its count when its period is as long as that lifetime.
    """

    logins_per_user: Rate = Rate(100, timedelta(hours=1))
    logins_per_user_and_address: Rate = Rate(20, timedelta(minutes=15))
    logins_per_address: Rate = Rate(60, timedelta(minutes=15))
    registrations: Rate = Rate(5_000, timedelta(days=1))
    registrations_per_address: Rate = Rate(100, timedelta(hours=1))
    client_failures_per_address: Rate = Rate(30, timedelta(minutes=1))
    transactions_per_user: Rate = Rate(100, timedelta(minutes=10))
