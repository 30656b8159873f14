"""Servers that the tests of the stores have started end with them."""

from collections.abc import Iterator

import pytest

from tests.support import postgres_server


@pytest.fixture(scope="session", autouse=True)
def no_server_is_left_behind() -> Iterator[None]:
    """Ends the PostgreSQL server of this test process, if one was started."""
    yield
    postgres_server.end_shared()
