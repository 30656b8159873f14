"""What the guard's tests share: a clock that stands still, a store on it, and an app that counts its calls."""

import pytest

from mcp_guard.auditlog import AuditLog, MemorySink
from mcp_guard.clock import ManualClock
from tests.guard.asgi import CountingApp
from tests.guard.stubs import CountingStore


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when it is told to."""
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> CountingStore:
    """A memory store on the manual clock."""
    return CountingStore(clock=clock)


@pytest.fixture
def app() -> CountingApp:
    """An app that counts its calls."""
    return CountingApp()


@pytest.fixture
def sink() -> MemorySink:
    """Where audit lines go."""
    return MemorySink()


@pytest.fixture
def log(sink: MemorySink) -> AuditLog:
    """An audit log that keeps its lines in `sink`."""
    return AuditLog(sink)
