"""Area session: handles of another principal, on both session transports, and handles nobody minted."""

import socket
from collections.abc import Callable, Iterator
from http.client import HTTPResponse

from tests.guard.attacks.corpus import Shot, attack
from tests.guard.attacks.deployment import Deployment
from tests.guard.attacks.raw import Observation, Request

UNKNOWN = "0123456789abcdef0123456789abcdef"
LIST = {"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": {}}
RESPONSE = {"jsonrpc": "2.0", "id": 0, "result": {"action": "accept"}}
CANCEL = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}


def same_as(other: Observation) -> Callable[[Observation], None]:
    """A check that an answer cannot be told from `other`: status, body and header fields, their dates aside."""

    def check(seen: Observation) -> None:
        assert (seen.status, seen.body) == (other.status, other.body)
        assert told(seen) == told(other)

    return check


def told(seen: Observation) -> list[tuple[str, str]]:
    # The rate fields count the caller's own requests; a date is a date.
    changing = {"date", "ratelimit"}
    return sorted((name.lower(), value) for name, value in seen.headers if name.lower() not in changing)


def still_alive(live: Deployment, token: str, session: str) -> None:
    """The owner's session goes on working."""
    seen = live.send(live.legacy(token, LIST, session=session))
    assert seen.status == 200, f"the owner's session is answered {seen.status}"


def stolen(live: Deployment, thief: str, body: object = LIST, method: bytes = b"POST") -> Iterator[Shot]:
    """A live session of Alice, presented by `thief`, against the same request with an unknown id."""
    alice = live.token()
    session = live.open_session(alice)
    unknown = live.send(live.legacy(thief, body, session=UNKNOWN, method=method))
    request = live.legacy(thief, body, session=session, method=method)
    yield Shot(method.decode().lower(), request, (404,), check=same_as(unknown))
    still_alive(live, alice, session)


@attack("ses-01")
def another_users_session(live: Deployment) -> Iterator[Shot]:
    yield from stolen(live, live.token("bob"))


@attack("ses-02")
def another_user_of_the_same_client(live: Deployment) -> Iterator[Shot]:
    yield from stolen(live, live.token("bob", client_id="c1"))


@attack("ses-03")
def the_same_user_through_another_client(live: Deployment) -> Iterator[Shot]:
    yield from stolen(live, live.token("alice", client_id="c2"))


@attack("ses-05")
def a_session_in_place_of_a_token(live: Deployment) -> Iterator[Shot]:
    alice = live.token()
    session = live.open_session(alice)
    expired = live.token(exp=1_700_000_000, iat=1_699_999_000)
    for name, token in (("none", None), ("expired", expired), ("garbage", "garbage")):
        for method, body in ((b"POST", LIST), (b"GET", None), (b"DELETE", None)):
            request = live.legacy(token, body, session=session, method=method)
            yield Shot(f"{name}-{method.decode()}", request, (401,))
    still_alive(live, alice, session)


@attack("ses-06")
def another_users_stream(live: Deployment) -> Iterator[Shot]:
    yield from stolen(live, live.token("bob"), body=None, method=b"GET")


@attack("ses-08")
def ending_another_users_session(live: Deployment) -> Iterator[Shot]:
    yield from stolen(live, live.token("bob"), body=None, method=b"DELETE")


@attack("ses-10")
def a_session_id_chosen_by_the_client(live: Deployment) -> Iterator[Shot]:
    chosen = "attacker-chosen-0001"
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    opening = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    yield Shot("initialize", live.legacy(live.token(), opening, session=chosen), (400, 404))
    for user in ("alice", "bob"):
        yield Shot(f"later-{user}", live.legacy(live.token(user), LIST, session=chosen), (404,))


@attack("ses-11")
def ids_are_not_predictable(live: Deployment) -> Iterator[Shot]:
    """The ids are the SDK's own; the guard must hand them on as they are and bind each."""
    token = live.token()
    ids = [live.open_session(token) for _ in range(50)]
    assert len(set(ids)) == len(ids)
    assert all(len(identifier) >= 32 for identifier in ids)
    yield Shot("neighbour", live.legacy(token, LIST, session=f"{int(ids[-1], 16) + 1:032x}"), (404,))


@attack("ses-12")
def session_ids_that_are_no_ids(live: Deployment) -> Iterator[Shot]:
    token = live.token()
    odd = ["a" * 10_000, "*", "mcp:sess:*", "../x", "{x}", "", "a b", "\xff\xfe", "mcp:session:*", "a\tb", "'--"]
    for number, identifier in enumerate(odd):
        yield Shot(f"odd-{number}", live.legacy(token, LIST, session=identifier), (400, 404))
    session = live.open_session(token)
    twice = live.legacy(token, LIST, session=session)
    repeated = Request(b"POST", b"/mcp", (*twice.headers, (b"Mcp-Session-Id", session.encode())), twice.body)
    yield Shot("twice", repeated, (400, 404))
    injected = live.legacy(token, LIST, session="a\r\nX-Injected: y")
    yield Shot("line-break", injected, (400, 404))


@attack("ses-14")
def the_same_principal_with_a_new_token(live: Deployment) -> Iterator[Shot]:
    session = live.open_session(live.token())
    refreshed = live.token(jti="another", exp=int(live.claims()["exp"]) + 60)
    yield Shot("refreshed", live.legacy(refreshed, LIST, session=session), (200,), reaches_app=True)


@attack("ses-20")
def a_session_in_the_stateless_era(live: Deployment) -> Iterator[Shot]:
    alice = live.token()
    session = live.open_session(alice)

    def as_bob(seen: Observation) -> None:
        assert b"bob" in seen.body
        assert not seen.values("mcp-session-id")

    field = ((b"Mcp-Session-Id", session.encode()), (b"Last-Event-ID", b"1"))
    request = live.call(live.token("bob"), headers=field)
    yield Shot("modern", request, (200,), reaches_app=True, check=as_bob)
    shown = {name for name, _ in live.downstream.seen[-2]["headers"]}
    assert not shown & {b"mcp-session-id", b"last-event-id"}
    still_alive(live, alice, session)


@attack("ses-26")
def anothers_message_url(live: Deployment) -> Iterator[Shot]:
    """HTTP+SSE: the key travels in the query string of the message URL."""
    alice, bob = live.token(), live.token("bob")
    with Stream(live, alice) as stream:
        path, _, query = stream.endpoint.partition("?")
        parameter, _, key = query.partition("=")
        live.secrets.add(key)
        unknown = live.send(live.legacy(bob, LIST, target=f"{path}?{parameter}={UNKNOWN}".encode()))
        assert unknown.status == 404
        yield Shot("bob", live.legacy(bob, LIST, target=stream.endpoint.encode()), (404,), check=same_as(unknown))
        yield Shot("nobody", live.legacy(None, LIST, target=stream.endpoint.encode()), (401,))
        dashed = "-".join((key[:8], key[8:12], key[12:16], key[16:20], key[20:]))
        spellings = {
            "upper": f"{path}?{parameter}={key.upper()}",
            "dashed": f"{path}?{parameter}={dashed}",
            "urn": f"{path}?{parameter}=urn:uuid:{key}",
            "braces": f"{path}?{parameter}=%7B{key}%7D",
            "escaped": f"{path}?{parameter}=%{ord(key[0]):02x}{key[1:]}",
            "more": f"{stream.endpoint}&x=1",
            "twice": f"{stream.endpoint}&{parameter}={key}",
            "first": f"{path}?x=1&{parameter}={key}",
            "other": f"{path}?{parameter}={UNKNOWN}&{parameter}={key}",
        }
        for name, target in spellings.items():
            yield Shot(name, live.legacy(bob, LIST, target=target.encode()), (404,))
        mine = live.send(live.legacy(alice, LIST, target=stream.endpoint.encode()))
        assert mine.status == 202, f"the owner's message is answered {mine.status}"


@attack("ses-27")
def equal_ids_of_two_principals(live: Deployment) -> Iterator[Shot]:
    """Two principals use the same JSON-RPC ids; each gets its own answer."""
    for number in range(25):
        for user in ("alice", "bob"):

            def own(seen: Observation, user: str = user) -> None:
                other = "bob" if user == "alice" else "alice"
                assert user.encode() in seen.body
                assert other.encode() not in seen.body

            yield Shot(f"{user}-{number}", live.call(live.token(user)), (200,), reaches_app=True, check=own)


@attack("ses-28")
def messages_injected_into_anothers_session(live: Deployment) -> Iterator[Shot]:
    bob = live.token("bob")
    yield from stolen(live, bob, body=RESPONSE)
    yield from stolen(live, bob, body=CANCEL)


class Stream:
    """An open HTTP+SSE stream of one principal."""

    def __init__(self, live: Deployment, token: str) -> None:
        request = live.legacy(token, None, method=b"GET", target=b"/sse")
        self._socket = socket.create_connection(("127.0.0.1", live.port), 5)
        self._socket.sendall(request.encoded())
        self._response = HTTPResponse(self._socket)
        self.endpoint = ""

    def __enter__(self) -> "Stream":
        self._response.begin()
        while not self.endpoint:
            line = self._response.readline()
            if not line:
                raise RuntimeError("the stream ended before its endpoint event")
            if line.startswith(b"data:"):
                self.endpoint = line.removeprefix(b"data:").strip().decode()
        return self

    def __exit__(self, *exc: object) -> None:
        self._response.close()
        self._socket.close()
