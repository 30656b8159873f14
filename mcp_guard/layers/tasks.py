"""Binds each task to the principal that it was created for.

Decides: whether every task that a request names is the caller's own, and which tasks a response may tell of. Refuses
with `task_not_found`: another's task is answered exactly like one that never existed, by a JSON-RPC error in a response
with status 200, as servers answer it, because 404 would tell the client that its session has ended; only the audit
tells them apart. Does not: authenticate (a task id is never a credential), nor make ids hard to guess. Needs the
principal, the resource and the call. Must stand after: token, intake; beside the other layers that share a store call.

A task is named by `params.taskId` of the `tasks/…` methods, by `params.notifications.taskIds` of
`subscriptions/listen`, and in requests and notifications by `_meta["io.modelcontextprotocol/related-task"]`. Of the ids
of a subscription, those that are not the caller's are taken out of the body that the app is shown, so that its
acknowledgement omits them. A notification that names another's task is answered with 202, like any, and not handed on.
Not judged: `notifications/tasks/status` of a client, which is about a task that it runs itself, and responses of a
client, which are addressed by the id of the request that they answer.

A task is bound before the client can see its id: in any result that makes one (`task.taskId` in 2025-11-25, `taskId`
in the extension `io.modelcontextprotocol/tasks`), and in notifications on the stream that answers a request. A result
with a task that is bound to somebody else does not go out. Of `tasks/list` the caller's own tasks go out; other
messages about tasks that are not the caller's are taken out of the stream.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, ClassVar

from mcp_guard import rejections
from mcp_guard.check import StatefulCheck
from mcp_guard.facts import Call, MessageKind, Principal, Resource
from mcp_guard.failures import ConfigurationError
from mcp_guard.keyring import KeyRing
from mcp_guard.layer import Admission, Answer, RequestHead
from mcp_guard.messages import MessageRewrite
from mcp_guard.ownership import Ownership, Standing
from mcp_guard.protocol.event_stream import Fields
from mcp_guard.protocol.tasks import LISTEN, Told, asked, asking, is_id, listed, made, named, presents, spelled, told
from mcp_guard.rejections import Rejection
from mcp_guard.secret import digest, fingerprint
from mcp_guard.stores.base import Get, Operation, Result

logger = logging.getLogger("mcp_guard")

MAX_PRESENTED = 100
"""The most ids of one request that are looked up; further ones count as unknown."""
MAX_LISTED = 1000
"""The most tasks on one page of a list; a longer page cannot be judged."""
SHORTEST = timedelta(minutes=1)
"""No record lives for less, whatever the app says of its task: clocks differ."""
DEFAULT_TTL = timedelta(days=1)
DEFAULT_MAX_TTL = timedelta(days=30)
PLACE_FIELDS = frozenset({b"id", b"retry"})
"""What stays of an event whose message is taken out: where the stream is, and when to come back."""


class Withheld(Rejection):
    """A request or notification of the app is about a task that is not the caller's."""

    def __init__(self, fault: str) -> None:
        super().__init__(rejections.GUARD_FAULT, fault)


@dataclass(frozen=True, kw_only=True)
class Tasks(StatefulCheck):
    """`ttl` is how long a task is remembered that does not say how long it lives; `max_ttl` bounds what one says.

    `ring` signs the records. Every look at a task that says its time to live restarts it.
    """

    needs = (Principal, Resource, Call)

    ring: KeyRing
    ttl: timedelta = DEFAULT_TTL
    max_ttl: timedelta = DEFAULT_MAX_TTL

    def __post_init__(self) -> None:
        if not SHORTEST <= self.ttl <= self.max_ttl:
            raise ConfigurationError(f"ttl must be from {SHORTEST} to max_ttl ({self.max_ttl}), not {self.ttl}")

    def ask(self, request: RequestHead) -> Sequence[Operation]:
        if not any(map(presents, request.fact(Call).messages)):
            return ()
        return [Get(key) for key in self._presented(request).values()]

    def answer(self, request: RequestHead, results: Sequence[Result]) -> Admission:
        call = request.fact(Call)
        rewrite = _Rewrite(layer=self, method=request.method, facts=request.facts)
        if not any(map(presents, call.messages)):
            return Admission(rewrite=rewrite)
        ownership = self.ownership(request.facts)
        presented = self._presented(request).items()
        standings = {
            one: ownership.standing(key, record) for (one, key), record in zip(presented, results, strict=True)
        }
        refusal = _refusal(call, standings)
        if refusal is not None:
            if call.batch or call.messages[0].kind is not MessageKind.NOTIFICATION:
                raise refusal
            return Admission((refusal,), answer=Answer(202))
        message = call.messages[0]
        shown = message if call.batch else asking(message, lambda one: _standing(one, standings) is Standing.OWN)
        if shown is message:
            return Admission(rewrite=rewrite)
        return Admission((call._replace(messages=(shown,)),), body=spelled(shown), rewrite=rewrite)

    def ownership(self, facts: Mapping[type, Any]) -> Ownership:
        """The caller before the records of the store."""
        return Ownership(self.store, self.ring, facts[Principal])

    def _presented(self, request: RequestHead) -> dict[str, str]:
        """The store keys of the ids that the request presents, by id; of the ids that can be one, the first hundred."""
        ids: dict[str, None] = {}
        for message in request.fact(Call).messages:
            ids |= dict.fromkeys(one for one in (*named(message), *asked(message)) if is_id(one))
        return {one: key_of(request.fact(Resource), one) for one in islice(ids, MAX_PRESENTED)}

    def term(self, seconds: float | None) -> timedelta | None:
        """How long the record of a task lives that says it lives for `seconds`; None when it says nothing."""
        if seconds is None:
            return None
        bounded = min(max(seconds, SHORTEST.total_seconds()), self.max_ttl.total_seconds())
        return timedelta(seconds=bounded)


def key_of(resource: Resource, task: str) -> str:
    """The store key of a task: the same id at two resources is two tasks."""
    return "mcp:task:" + digest(f"{resource.url}\n{task}")


def _learns(method: str, call: Call) -> bool:
    """Whether the response may tell of tasks that are new: it answers requests, none of which is a subscription."""
    requests = [message for message in call.messages if message.kind is MessageKind.REQUEST]
    return method == "POST" and bool(requests) and all(message.method != LISTEN for message in requests)


def _standing(one: object, standings: Mapping[str, Standing]) -> Standing:
    return standings.get(one, Standing.UNKNOWN) if is_id(one) else Standing.UNKNOWN


def _refusal(call: Call, standings: Mapping[str, Standing]) -> Rejection | None:
    """The refusal of a call that names a task which is not the caller's; a batch cannot be shown in part."""
    for message in call.messages:
        for one in (*named(message), *(asked(message) if call.batch else ())):
            standing = _standing(one, standings)
            if standing is not Standing.OWN:
                return rejections.TASK_NOT_FOUND.because(f"task {fingerprint(str(one))} {standing}")
    return None


@dataclass(eq=False)
class _Rewrite(MessageRewrite):
    """Binds the tasks that a response tells of, and takes out those that are not the caller's."""

    marks: ClassVar[tuple[bytes, ...]] = (b'"taskId"',)

    layer: Tasks
    method: str
    facts: Mapping[type, Any]

    def key(self, task: str) -> str:
        """The store key of a task of the resource that the request is for."""
        return key_of(self.facts[Resource], task)

    async def event(self, fields: Fields) -> Fields | None:
        try:
            return await super().event(fields)
        except Withheld as withheld:
            logger.warning("a message is taken out of a stream: %s", withheld.reason)
            return [pair for pair in fields if pair[0] in PLACE_FIELDS]

    async def message(self, message: dict[str, Any]) -> dict[str, Any] | None:
        about = told(message)
        if about:
            await self._tell(about)
        result = message.get("result")
        if not isinstance(result, dict):
            return None
        await self._bind(made(result))
        tasks = result.get("tasks")
        kept = await self._own(tasks) if isinstance(tasks, list) else tasks
        return None if kept == tasks else {**message, "result": {**result, "tasks": kept}}

    async def _tell(self, about: Sequence[Told]) -> None:
        """Let a request or notification pass that is about tasks of the caller; new ones become the caller's.

        Raises:
            Withheld: one of them is not the caller's.
        """
        terms = self._terms(about)
        if terms is None:
            raise Withheld("the app tells of a task whose id is no text, or too long")
        if _learns(self.method, self.facts[Call]):
            foreign = await self.layer.ownership(self.facts).bind(terms, self.layer.ttl)
        else:
            foreign = terms.keys() - await self.layer.ownership(self.facts).own(terms)
        if foreign:
            raise Withheld("the app tells of a task that is not the caller's")

    async def _bind(self, new: Sequence[Told]) -> None:
        """Bind the tasks of a result.

        Raises:
            Rejection: one is bound to another principal, or its id cannot be bound.
        """
        terms = self._terms(new)
        if terms is None:
            raise rejections.GUARD_FAULT.because("the app made a task whose id is no text, or too long")
        if terms and await self.layer.ownership(self.facts).bind(terms, self.layer.ttl):
            raise rejections.GUARD_FAULT.because("the app gave out a task that is bound to another principal")

    async def _own(self, entries: Sequence[Any]) -> list[Any]:
        """The entries of a list of tasks that are the caller's.

        Raises:
            Rejection: there are more than can be judged.
        """
        ids = {entry["taskId"] for entry in entries if listed(entry) and is_id(entry["taskId"])}
        if len(ids) > MAX_LISTED:
            raise rejections.GUARD_FAULT.because(f"the app lists more than {MAX_LISTED} tasks on one page")
        keys = {one: self.key(one) for one in ids}
        own = await self.layer.ownership(self.facts).own(keys.values())
        return [
            entry for entry in entries if not listed(entry) or (is_id(entry["taskId"]) and keys[entry["taskId"]] in own)
        ]

    def _terms(self, about: Iterable[Told]) -> dict[str, timedelta | None] | None:
        """How long the record of each task lives, by its key; None when one of them has no id."""
        terms: dict[str, timedelta | None] = {}
        for one, seconds in about:
            if not is_id(one):
                return None
            terms[self.key(one)] = self.layer.term(seconds)
        return terms
