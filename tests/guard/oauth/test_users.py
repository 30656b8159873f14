"""The static directory of users."""

import json
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from argon2 import extract_parameters

from mcp_guard.failures import ConfigurationError, Unavailable
from mcp_guard.oauth import StaticUsers, User, hash_password, users
from mcp_guard.secret import Secret
from tests.guard.oauth.flow import FAST

HASH = hash_password("right", hasher=FAST)


def written(folder: Path, text: str, name: str = "users.json", mode: int = 0o600) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


async def test_the_right_password_names_the_user() -> None:
    directory = StaticUsers.from_pairs({"alice": "right", "bob": Secret("other")}, hasher=FAST)
    assert await directory.authenticate("alice", Secret("right")) == User("alice", "alice")
    assert await directory.authenticate("bob", Secret("other")) == User("bob", "bob")


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice", "wrong"),
        ("alice", ""),
        ("alice", "right "),
        ("Alice", "right"),
        ("bob", "right"),
        ("", "right"),
        ("alice", "x" * 1025),
        ("a" * 257, "right"),
    ],
)
async def test_anything_else_names_nobody(name: str, password: str) -> None:
    assert await StaticUsers.from_pairs({"alice": "right"}, hasher=FAST).authenticate(name, Secret(password)) is None


async def test_an_unknown_name_costs_what_a_known_one_does() -> None:
    """tok-01's rule for people: a hash of the costliest parameters is verified for nobody too."""
    costly = FAST.__class__(time_cost=2, memory_cost=16, parallelism=1)
    directory = StaticUsers(
        {
            "cheap": (User("a", "a"), hash_password("x", hasher=FAST)),
            "costly": (User("b", "b"), hash_password("x", hasher=costly)),
        }
    )
    verified: list[str] = []
    verify = directory._verify

    def spy(stored: str, password: str) -> bool:
        verified.append(stored)
        return verify(stored, password)

    directory._verify = spy  # type: ignore[method-assign]
    assert await directory.authenticate("nobody", Secret("x")) is None
    (stored,) = verified
    assert extract_parameters(stored) == extract_parameters(hash_password("x", hasher=costly))


async def test_hashing_leaves_the_event_loop_free_and_is_bounded() -> None:
    directory = StaticUsers.from_pairs({"alice": "right"}, hasher=FAST)
    at_once, most = 0, 0
    lock = threading.Lock()
    release = threading.Event()
    loop_thread = threading.get_ident()

    def slow(stored: str, password: str) -> bool:
        nonlocal at_once, most
        assert threading.get_ident() != loop_thread
        with lock:
            at_once += 1
            most = max(most, at_once)
        assert release.wait(10)
        with lock:
            at_once -= 1
        return True

    directory._verify = slow  # type: ignore[method-assign]
    outcomes: list[object] = []

    async def attempt() -> None:
        try:
            outcomes.append(await directory.authenticate("alice", Secret("right")))
        except Unavailable as fault:
            outcomes.append(fault.retry_after_seconds)

    async with anyio.create_task_group() as group:
        for _ in range(users.HASHES_AT_ONCE + users.HASHES_WAITING + 3):
            group.start_soon(attempt)
        while len(outcomes) < 3 or at_once < users.HASHES_AT_ONCE:
            await anyio.lowlevel.checkpoint()
        assert outcomes == [5, 5, 5]
        release.set()
    assert most == users.HASHES_AT_ONCE
    assert outcomes.count(User("alice", "alice")) == users.HASHES_AT_ONCE + users.HASHES_WAITING


async def test_a_json_file_holds_hashes_or_tables(tmp_path: Path) -> None:
    text = json.dumps(
        {"alice": HASH, "bob": {"hash": HASH, "subject": "u-7", "name": "Bob B.", "tenant": "acme", "scopes": ["a"]}}
    )
    directory = StaticUsers.from_file(written(tmp_path, text))
    assert await directory.authenticate("alice", Secret("right")) == User("alice", "alice")
    expected = User("u-7", "Bob B.", "acme", frozenset({"a"}))
    assert await directory.authenticate("bob", Secret("right")) == expected


async def test_a_toml_file_does_too(tmp_path: Path) -> None:
    text = f'alice = "{HASH}"\n[bob]\nhash = "{HASH}"\nsubject = "u-7"\n'
    directory = StaticUsers.from_file(str(written(tmp_path, text, "users.toml")))
    assert await directory.authenticate("alice", Secret("right")) == User("alice", "alice")
    assert await directory.authenticate("bob", Secret("right")) == User("u-7", "bob")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({}, "at least one user"),
        ({"alice": "plain"}, "'alice' is not an argon2 hash"),
        ({"alice": HASH.replace("argon2id", "argon2i")}, "'alice' must be argon2id"),
        ({"alice": ""}, "'alice'"),
        ({"alice": 1}, "'alice' must have a hash"),
        ({"alice": {}}, "'alice' must have a hash"),
        ({"alice": {"hash": HASH, "admin": True}}, "'alice' has an unknown member 'admin'"),
        ({"alice": {"hash": HASH, "subject": ""}}, "the subject of user 'alice'"),
        ({"alice": {"hash": HASH, "name": 1}}, "the name of user 'alice'"),
        ({"alice": {"hash": HASH, "tenant": []}}, "the tenant of user 'alice'"),
        ({"alice": {"hash": HASH, "scopes": "a"}}, "the scopes of user 'alice'"),
        ({"alice": {"hash": HASH, "scopes": [1]}}, "the scopes of user 'alice'"),
        ({"alice": HASH, "bob": {"hash": HASH, "subject": "alice"}}, "different subjects"),
        ({"": HASH}, "1 to 256 characters"),
        ({"a" * 257: HASH}, "1 to 256 characters"),
        ([], "a table of users"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named_with_file_and_user(tmp_path: Path, entries: Any, said: str) -> None:
    path = written(tmp_path, json.dumps(entries))
    with pytest.raises(ConfigurationError, match=said) as refusal:
        StaticUsers.from_file(path)
    assert str(path) in str(refusal.value)
    assert HASH not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [("{", "users.json", "not JSON"), ("x", "users.toml", "not TOML"), ('{"a":"x","a":"y"}', "users.json", "not JSON")],
)
def test_a_file_that_does_not_parse_is_named(tmp_path: Path, text: str, name: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refusal:
        StaticUsers.from_file(written(tmp_path, text, name))
    assert name in str(refusal.value)


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    path.write_bytes(b"\xff")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        StaticUsers.from_file(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.*No such file"):
        StaticUsers.from_file(tmp_path / "nowhere")


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o620, 0o666])
def test_a_file_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, json.dumps({"alice": HASH}), mode=mode)
    with pytest.raises(ConfigurationError, match=f"{mode:04o}.*0600 or 0640"):
        StaticUsers.from_file(path)


@pytest.mark.parametrize("password", ["", "x" * 1025])
def test_a_password_has_a_length(password: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 1024"):
        hash_password(password)


def test_the_default_hash_is_the_second_recommendation_of_rfc_9106() -> None:
    parameters = extract_parameters(hash_password("x"))
    assert (parameters.type.name, parameters.memory_cost, parameters.time_cost) == ("ID", 65536, 3)


def test_a_directory_does_not_show_its_users() -> None:
    assert repr(StaticUsers.from_pairs({"alice": "right"}, hasher=FAST)) == "StaticUsers(1 users)"
