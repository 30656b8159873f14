"""Fixtures of the authorization server's tests."""

import pytest

from tests.guard.oauth.flow import World


@pytest.fixture
def world() -> World:
    """A server of its own, with limits nobody reaches."""
    return World()
