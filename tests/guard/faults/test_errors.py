"""Whatever Valkey answers instead of an answer, it is a 503, and neither a 401 nor a way in."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import valkey

from tests.guard.faults.places import Place, placed
from tests.guard.faults.rows import found
from tests.guard.faults.run import BEARER, STATEFUL, loaded, pass_seconds

pytestmark = pytest.mark.faults
PASSWORD = "the-operator-changed-it"
SECONDS = 3.0


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with placed() as place:
        yield place


@contextmanager
def saying(place: Place, line: bytes) -> Iterator[None]:
    """Every reply is this error."""
    place.proxy.rewrite = lambda _: line
    yield
    place.proxy.rewrite = None
    place.proxy.reset()


@contextmanager
def busy(place: Place) -> Iterator[None]:
    """A script of somebody's does not end."""
    place.server.command("CONFIG", "SET", "busy-reply-threshold", 1)

    def forever() -> None:
        with contextlib.suppress(valkey.ResponseError):
            place.server.command("EVAL", "while true do end", 0)

    thread = threading.Thread(target=forever)
    thread.start()
    yield
    place.server.command("SCRIPT", "KILL")
    thread.join(10)
    place.server.command("CONFIG", "SET", "busy-reply-threshold", 5000)


@contextmanager
def locked(place: Place) -> Iterator[None]:
    """The password is another, and nobody who is inside stays there."""
    with contextlib.closing(place.server.client()) as operator:
        operator.config_set("requirepass", PASSWORD)
        kill_all(operator)
        yield
        operator.config_set("requirepass", "")


@contextmanager
def forbidden(place: Place) -> Iterator[None]:
    """Scripts are forbidden."""
    place.server.command("ACL", "SETUSER", "default", "-eval", "-evalsha")
    yield
    place.server.command("ACL", "SETUSER", "default", "+@all")


@contextmanager
def crowded(place: Place) -> Iterator[None]:
    """Somebody else has the only connection."""
    with contextlib.closing(place.server.client()) as operator:
        operator.config_set("maxclients", 1)
        kill_all(operator)
        yield
        operator.config_set("maxclients", 10000)


def kill_all(operator: valkey.Valkey) -> None:
    """End every connection but this."""
    operator.execute_command("CLIENT", "KILL", "SKIPME", "yes")  # type: ignore[no-untyped-call]


CLASSES: dict[str, tuple[Callable[[Place], AbstractContextManager[None]], str]] = {
    "BUSY": (busy, "valkey: BUSY"),
    "LOADING": (lambda place: saying(place, b"-LOADING the dataset\r\n"), "valkey: LOADING"),
    "MISCONF": (lambda place: saying(place, b"-MISCONF the disk\r\n"), "valkey: MISCONF"),
    "NOAUTH": (locked, "valkey: NOAUTH or WRONGPASS"),
    "NOPERM": (forbidden, "valkey: NOPERM"),
    "too many clients": (crowded, "valkey: connection lost"),
}


def test_st_09_an_error_of_the_store_is_no_word_about_the_client(place: Place) -> None:
    refused: dict[str, int] = {}
    spans: dict[str, tuple[float, float]] = {}
    with loaded(place.deployment) as run:
        pass_seconds(2.0)
        for name, (inject, _) in CLASSES.items():
            with inject(place):
                began = time.monotonic()
                spans[name] = began, pass_seconds(SECONDS)
            pass_seconds(3.0)
        ended = time.monotonic()
    safe = run.assert_safe()
    reasons = {str(record.get("reason")) for record in place.deployment.audit()}
    assert {said for _, said in CLASSES.values()} <= reasons, reasons
    for name, (began, end) in spans.items():
        assert run.statuses(STATEFUL, began + 1.5, end).keys() <= {503}, name
        assert run.statuses(BEARER, began, end).keys() <= {200, 503}, name
        refused[name] = len(run.of(STATEFUL, began, end, status=503))
        assert refused[name] > 0, name
    assert run.statuses(BEARER, ended - 1).keys() == {200}
    found(
        "errors",
        refused=sum(refused.values()),
        of_them=", ".join(f"{name} {count}" for name, count in refused.items()),
        replays_accepted=safe["replays accepted"],
        **{"401_to_good_tokens": safe["401 to good tokens"]},
    )
