"""What a check may ask for. Loaded, and these names taken, only in a run with `--mcp-target`."""

from __future__ import annotations

import pytest

from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.checks import requirement_of
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations
from pytest_mcp_conformance.failures import NotRun
from pytest_mcp_conformance.login import Login
from pytest_mcp_conformance.minting import Mint
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.possession import Possession
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

BENCH = pytest.StashKey[Bench]()


@pytest.fixture(scope="session")
def bench(pytestconfig: pytest.Config) -> Bench:
    """Everything the run works with; checks want the parts below."""
    return pytestconfig.stash[BENCH]


@pytest.fixture(scope="session")
def target(bench: Bench) -> Target:
    """The server under test."""
    return bench.target


@pytest.fixture(scope="session")
def probe(bench: Bench) -> Probe:
    """Sends whatever it is given."""
    return bench.probe


@pytest.fixture
def alice(bench: Bench) -> Credential:
    """A good token of user A; the check is not run without."""
    return bench.credential("a")


@pytest.fixture
def bob(bench: Bench) -> Credential:
    """A good token of another user, B; the check is not run without."""
    return bench.credential("b")


@pytest.fixture
def expired(bench: Bench) -> Credential:
    """A token that was good and has expired; the check is not run without."""
    return bench.credential("expired")


@pytest.fixture
def expired_if_given(bench: Bench) -> Credential | None:
    """A token that was good and has expired; None when the run has none."""
    try:
        return bench.credential("expired")
    except NotRun:
        return None


@pytest.fixture
def bob_if_given(bench: Bench) -> Credential | None:
    """A good token of another user, B; None when the run has none."""
    try:
        return bench.credential("b")
    except NotRun:
        return None


@pytest.fixture
def upstream(bench: Bench) -> Credential:
    """A token of the service behind the target, good there; the check is not run without."""
    return bench.credential("upstream")


@pytest.fixture(scope="session")
def mint(bench: Bench) -> Mint:
    """Makes tokens with the issuer's key, where the operator gave a command for it."""
    return bench.mint


@pytest.fixture(scope="session")
def declared(bench: Bench) -> Declarations:
    """What the operator declared about the target."""
    return bench.declared


@pytest.fixture(scope="session")
def possession(bench: Bench) -> Possession:
    """A token that is bound to a key, and proofs to go with it."""
    return bench.possession


@pytest.fixture
def authorization_server(bench: Bench) -> AuthorizationServer:
    """The first authorization server the target names."""
    return bench.authorization_server()


@pytest.fixture(scope="session")
def login(bench: Bench) -> Login:
    """How this run logs in."""
    return bench.login


@pytest.fixture
def space(bench: Bench, request: pytest.FixtureRequest) -> Space:
    """Searches input spaces for the running check."""
    return Space(bench.settings, bench.probe, f"{requirement_of(request.node)} {request.node.name}")
