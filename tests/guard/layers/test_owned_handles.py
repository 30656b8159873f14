"""Two principals create, use and list tasks and handles in any order; a model says what each may see."""

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule

from mcp_guard.asgi import Receive, Scope, Send
from mcp_guard.keyring import KeyRing
from mcp_guard.layers.handles import Handle, Handles
from mcp_guard.layers.tasks import Tasks
from mcp_guard.stack import guard
from tests.guard.asgi import body as sent_body
from tests.guard.asgi import drive, http_scope, read_all
from tests.guard.asgi import start as sent_start
from tests.guard.stubs import CountingStore, Facts

LIFE_SECONDS = 600
PEOPLE = st.sampled_from([b"alice", b"bob"])
STREAMED = st.booleans()


@dataclass
class Trusting:
    """A server that believes whoever knows an id, as many do."""

    tasks: dict[str, str] = field(default_factory=dict)
    baskets: dict[str, list[str]] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = json.loads(await read_all(receive))
        params = message["params"]
        result = getattr(self, message["method"].replace("/", "_"))(params)
        text = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        streamed = (b"x-streamed", b"1") in scope["headers"]
        await send(sent_start(200, (b"content-type", b"text/event-stream" if streamed else b"application/json")))
        for byte in (b"data: " + text + b"\n\n" if streamed else text).partition(b"askId"):
            await send(sent_body(byte, more=True))
        await send(sent_body())

    def tools_call(self, params: dict[str, Any]) -> dict[str, Any]:
        arguments = params["arguments"]
        if params["name"] == "slow":
            self.tasks[arguments["id"]] = "working"
            return {"task": self.task(arguments["id"])}
        if params["name"] == "open":
            self.baskets.setdefault(arguments["id"], [])
            return {"content": [], "structuredContent": {"basket": arguments["id"]}}
        self.baskets[arguments["basket"]].append("item")
        return {"content": []}

    def task(self, identifier: str) -> dict[str, Any]:
        return {"taskId": identifier, "status": self.tasks[identifier], "ttl": LIFE_SECONDS * 1000}

    def tasks_get(self, params: dict[str, Any]) -> dict[str, Any]:
        return self.task(params["taskId"])

    def tasks_list(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"tasks": [self.task(one) for one in self.tasks]}

    def subscriptions_listen(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"acknowledged": params["notifications"]["taskIds"]}


class Owners(RuleBasedStateMachine):
    """The model: who owns what, and until when."""

    tasks = Bundle("tasks")
    baskets = Bundle("baskets")

    def __init__(self) -> None:
        super().__init__()
        self.app = Trusting()
        self.store = CountingStore()
        basket = Handle(kind="basket", minted={"open": "$.basket"}, used={"add": "$.basket"})
        layers = (
            Facts(),
            Tasks(store=self.store, ring=KeyRing((b"k" * 32,)), ttl=timedelta(seconds=LIFE_SECONDS)),
            Handles(
                store=self.store,
                ring=KeyRing((b"k" * 32,)),
                handles=(basket,),
                ttl=timedelta(seconds=LIFE_SECONDS),
            ),
        )
        self.guarded = guard(self.app, *layers)
        self.now = 0
        self.made = 0
        self.owners: dict[str, tuple[bytes, int]] = {}

    def ask(self, who: bytes, streamed: bool, method: str, **params: Any) -> dict[str, Any]:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = [(b"x-as", who), *([(b"x-streamed", b"1")] if streamed else [])]
        answer = anyio.run(drive, self.guarded, http_scope(headers=headers), json.dumps(message).encode())
        assert answer.complete
        found: dict[str, Any] = json.loads(answer.body.removeprefix(b"data: "))
        return found

    def owns(self, who: bytes, identifier: str) -> bool:
        owner, until = self.owners.get(identifier, (b"", 0))
        return owner == who and self.now < until

    def keep(self, who: bytes, identifier: str) -> None:
        self.owners[identifier] = (who, self.now + LIFE_SECONDS)

    @rule(target=tasks, who=PEOPLE, streamed=STREAMED)
    def create_task(self, who: bytes, streamed: bool) -> str:
        self.made += 1
        identifier = f"t-{self.made}"
        self.ask(who, streamed, "tools/call", name="slow", arguments={"id": identifier})
        self.keep(who, identifier)
        return identifier

    @rule(target=baskets, who=PEOPLE, streamed=STREAMED)
    def open_basket(self, who: bytes, streamed: bool) -> str:
        self.made += 1
        identifier = f"b-{self.made}"
        self.ask(who, streamed, "tools/call", name="open", arguments={"id": identifier})
        self.keep(who, identifier)
        return identifier

    @rule(who=PEOPLE, streamed=STREAMED, identifier=tasks | st.just("never"))
    def look(self, who: bytes, streamed: bool, identifier: str) -> None:
        answer = self.ask(who, streamed, "tasks/get", taskId=identifier)
        if self.owns(who, identifier):
            assert answer["result"]["taskId"] == identifier
            self.keep(who, identifier)
        else:
            assert answer["error"] == {"code": -32602, "message": "Task not found"}

    @rule(who=PEOPLE, streamed=STREAMED, identifier=baskets | st.just("never"))
    def add(self, who: bytes, streamed: bool, identifier: str) -> None:
        before = {name: len(items) for name, items in self.app.baskets.items()}
        answer = self.ask(who, streamed, "tools/call", name="add", arguments={"basket": identifier})
        if self.owns(who, identifier):
            assert len(self.app.baskets[identifier]) == before[identifier] + 1
            self.keep(who, identifier)
        else:
            assert answer["error"] == {"code": -32602, "message": "Handle not found"}
            assert before == {name: len(items) for name, items in self.app.baskets.items()}

    @rule(who=PEOPLE, streamed=STREAMED)
    def look_at_the_list(self, who: bytes, streamed: bool) -> None:
        shown = [one["taskId"] for one in self.ask(who, streamed, "tasks/list")["result"]["tasks"]]
        assert shown == [one for one in self.app.tasks if self.owns(who, one)]

    @rule(who=PEOPLE, streamed=STREAMED, wanted=st.lists(tasks | st.just("never"), max_size=4))
    def subscribe(self, who: bytes, streamed: bool, wanted: list[str]) -> None:
        answer = self.ask(who, streamed, "subscriptions/listen", notifications={"taskIds": wanted})
        assert answer["result"]["acknowledged"] == [one for one in wanted if self.owns(who, one)]

    @rule(seconds=st.sampled_from([1, LIFE_SECONDS - 1, LIFE_SECONDS]))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.store.clock.advance(seconds)

    @rule(identifier=consumes(tasks), who=PEOPLE)
    def create_again(self, identifier: str, who: bytes) -> None:
        """An expired task's id may be given out anew, to anybody; the server forgets the old one."""
        if not self.owns(b"alice", identifier) and not self.owns(b"bob", identifier):
            self.ask(who, False, "tools/call", name="slow", arguments={"id": identifier})
            self.keep(who, identifier)


Owners.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestOwners = Owners.TestCase
