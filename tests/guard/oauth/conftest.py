"""Fixtures of the authorization server's tests."""

import pytest

from tests.guard.oauth.flow import World, YieldingStore


@pytest.fixture
def world() -> World:
    """A server of its own, with limits nobody reaches."""
    return World()


@pytest.fixture
def crowded() -> World:
    """A server whose store makes simultaneous requests interleave."""
    return World(given_store=YieldingStore())
