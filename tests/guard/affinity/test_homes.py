"""A home is read from a record strictly; a place to listen is ours alone, and free of what dead workers left."""

import os
import socket
import stat
from pathlib import Path

import pytest

from mcp_guard.affinity.homes import Home
from mcp_guard.affinity.places import Place, remove
from mcp_guard.failures import ConfigurationError, Unavailable

NAME = "0123456789abcdef" * 2
HOMES = [
    f"{NAME}@unix:/run/mcp/{NAME}.sock",
    f"{NAME}@tcp:10.0.0.5:41234",
    f"{NAME}@tcp:[::1]:1",
    f"{NAME}@tcp:[fd00::5]:65535",
]


@pytest.mark.parametrize("text", HOMES)
def test_a_home_reads_as_it_was_written(text: str) -> None:
    home = Home.parse(text)
    assert (home.name, str(home)) == (NAME, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        NAME,
        f"{NAME}@",
        f"{NAME}@unix:run/{NAME}.sock",
        f"{NAME}@unix:/run/other.sock",
        f"{NAME}@unix:/run/../{NAME}.sock",
        f"{NAME}@unix:/run mcp/{NAME}.sock",
        f"{NAME}@unix:/{'d' * 100}/{NAME}.sock",
        f"{NAME}@unix:/run/{'f' * 32}.sock",
        f"{NAME}@unix:/run/{NAME}.sock\n",
        f"{NAME}@tcp:localhost:1",
        f"{NAME}@tcp:10.0.0.5",
        f"{NAME}@tcp:10.0.0.5:0",
        f"{NAME}@tcp:10.0.0.5:65536",
        f"{NAME}@tcp:10.0.0.5:01",
        f"{NAME}@tcp:10.0.0.5:\u0661",
        f"{NAME}@tcp:010.0.0.5:1",
        f"{NAME}@tcp:[10.0.0.5]:1",
        f"{NAME}@tcp:[0:0::1]:1",
        f"{NAME}@tcp:::1:1",
        f"{NAME.upper()}@tcp:10.0.0.5:1",
        f"{NAME[1:]}@tcp:10.0.0.5:1",
        f"{NAME}@udp:10.0.0.5:1",
        f"{NAME}@tcp:10.0.0.5:1{' ' * 300}",
    ],
)
def test_any_other_text_is_no_home(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not "):
        Home.parse(text)


@pytest.mark.parametrize(
    ("listen", "advertise", "said"),
    [
        ("/run/mcp", None, "listen: .* is neither"),
        ("unix:run", None, "listen: .* is neither"),
        ("tcp:127.0.0.1", None, "listen: .* is neither"),
        ("tcp:127.0.0.1:123456", None, "listen: .* is neither"),
        ("tcp:localhost:1", None, "listen: 'localhost' is no IP address"),
        ("tcp:127.0.0.1:65536", None, "listen: 65536 is no port"),
        ("tcp:0.0.0.0:1", None, "advertise: needed"),
        ("tcp:[::]:1", "::", "advertise: needed"),
        ("tcp:0.0.0.0:1", "here", "advertise: 'here' is no IP address"),
        ("unix:/run/mcp", "10.0.0.5", "advertise: has a meaning for tcp alone"),
        ("unix:/run/m cp", None, "listen: .* plain ASCII"),
        ("unix:/run/mcp\u00e9", None, "listen: .* plain ASCII"),
        ("unix:/run/../mcp", None, "listen: .* plain ASCII"),
        (f"unix:/{'d' * 80}", None, "listen: .* too long"),
    ],
)
def test_a_place_that_cannot_be_one_is_refused(listen: str, advertise: str | None, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Place.parse(listen, advertise)


def test_a_listener_may_be_reached_under_another_address() -> None:
    listener, home = Place.parse("tcp:0.0.0.0:0", "10.0.0.5").open(NAME)
    with listener:
        assert str(home) == f"{NAME}@tcp:10.0.0.5:{listener.getsockname()[1]}"
    remove(home)


def test_a_port_that_is_taken_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Unavailable, match="cannot listen"):
        Place.parse(f"tcp:127.0.0.1:{taken.getsockname()[1]}", None).open(NAME)


def test_the_directory_and_the_socket_are_of_this_user_alone(folder: Path) -> None:
    directory = folder / "new" / "sockets"
    listener, home = Place.parse(f"unix:{directory}", None).open(NAME)
    with listener:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(Path(str(home.path)).stat().st_mode) == 0o600
    remove(home)
    remove(home)
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_directory_that_others_may_enter_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(ConfigurationError, match="of this user alone"):
        Place.parse(f"unix:{folder}", None).open(NAME)
    folder.chmod(0o700)


def test_a_link_to_a_directory_and_anothers_directory_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "real").mkdir(mode=0o700)
    (folder / "link").symlink_to(folder / "real")
    with pytest.raises(ConfigurationError, match="of this user alone"):
        Place.parse(f"unix:{folder / 'link'}", None).open(NAME)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigurationError, match="of this user alone"):
        Place.parse(f"unix:{folder / 'real'}", None).open(NAME)


def test_a_path_that_is_a_file_is_unavailable(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot listen"):
        Place.parse(f"unix:{folder / 'file'}", None).open(NAME)


def test_a_socket_that_cannot_be_bound_is_closed_again(folder: Path) -> None:
    (folder / f"{NAME}.new").mkdir()
    with pytest.raises(Unavailable, match="cannot listen"):
        Place.parse(f"unix:{folder}", None).open(NAME)


def test_what_dead_workers_left_is_removed_and_nothing_else(folder: Path) -> None:
    place = Place.parse(f"unix:{folder}", None)
    living, home = place.open("a" * 32)
    for name in ("b" * 32, "other"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(folder / f"{name}.sock"))
    (folder / f"{'c' * 32}.sock").symlink_to(folder / "nowhere")
    (folder / "file").write_text("")
    with living:
        listener, _ = place.open(NAME)
        listener.close()
        left_over = {path.name for path in folder.iterdir()}
    assert left_over == {f"{'a' * 32}.sock", f"{NAME}.sock", "other.sock", f"{'c' * 32}.sock", "file"}
    remove(home)
