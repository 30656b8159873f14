"""Where messages name tasks: the tasks of MCP 2025-11-25 and those of the extension `io.modelcontextprotocol/tasks`.

Ids are answered as they stand in the message, whatever they are: to judge them is for the caller.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeGuard

from mcp_guard.facts import MessageKind, RpcMessage

METHODS: Final = "tasks/"
LISTEN: Final = "subscriptions/listen"
STATUS: Final = "notifications/tasks"
"""The method in the extension; in 2025-11-25 it is `notifications/tasks/status`."""

RELATED: Final = "io.modelcontextprotocol/related-task"
"""The member of `_meta` that says which task a message belongs to (2025-11-25 basic/utilities/tasks)."""

MAX_ID_CHARACTERS: Final = 1024
UNLIMITED: Final = float("inf")
_MOST_MILLISECONDS: Final = 2**53
_PRESENTING: Final = (METHODS, LISTEN)


class Told(NamedTuple):
    """A task that a message of the app tells of, and how many seconds it lives; None where that is not said."""

    id: object
    seconds: float | None


def is_id(value: object) -> TypeGuard[str]:
    """Whether a value can be the id of a task: a text of at most 1,024 characters."""
    return isinstance(value, str) and len(value) <= MAX_ID_CHARACTERS


def presents(message: RpcMessage) -> bool:
    """Whether a client's request or notification may present the id of a task: `named` or `asked` finds one."""
    if message.method is None:
        return False
    meta = message.params.get("_meta")
    return message.method.startswith(_PRESENTING) or (isinstance(meta, dict) and RELATED in meta)


def named(message: RpcMessage) -> list[object]:
    """The ids in a client's request or notification that it must own; those of a subscription are `asked`.

    Under a name that a lenient reader takes for `taskIds` stands no id that anybody owns.
    """
    params = message.params
    found = _related(params)
    if any(name != "taskIds" and name.replace("_", "").casefold() == "taskids" for name in _filter(message)):
        found.append(None)
    if message.method is not None and message.method.startswith(METHODS) and "taskId" in params:
        found.append(params["taskId"])
    return found


def asked(message: RpcMessage) -> list[object]:
    """The ids that a subscription asks for (extension: `params.notifications.taskIds` of `subscriptions/listen`)."""
    ids = _filter(message).get("taskIds")
    return ids if isinstance(ids, list) else []


def asking(message: RpcMessage, is_own: Callable[[object], bool]) -> RpcMessage:
    """The same message with those ids alone that are the client's own; the very same when all are, or none is asked."""
    wanted = _filter(message)
    ids = wanted.get("taskIds")
    kept = [one for one in asked(message) if is_own(one)]
    if ids is None or ids == kept:
        return message
    return message._replace(params={**message.params, "notifications": {**wanted, "taskIds": kept}})


def spelled(message: RpcMessage) -> bytes:
    """The body of a request or notification that is sent alone."""
    known = {} if message.kind is MessageKind.NOTIFICATION else {"id": message.id}
    content = {"jsonrpc": "2.0", **known, "method": message.method, "params": message.params}
    return json.dumps(content, separators=(",", ":")).encode()


def made(result: Mapping[str, Any]) -> list[Told]:
    """The tasks in a result of the app: one it creates or shows, and the one that the result belongs to."""
    found = [Told(one, None) for one in _related(result)]
    task = result.get("task")
    if isinstance(task, dict) and "taskId" in task:
        found.append(_told(task))
    if "taskId" in result and (result.get("resultType") == "task" or isinstance(result.get("status"), str)):
        found.append(_told(result))
    return found


def told(message: Mapping[str, Any]) -> list[Told]:
    """The tasks in a request or notification of the app."""
    method, params = message.get("method"), message.get("params")
    if not isinstance(method, str) or not isinstance(params, dict):
        return []
    found = [Told(one, None) for one in _related(params)]
    if method == STATUS or method.startswith(f"{STATUS}/"):
        found.append(_told(params))
    return found


def listed(entry: object) -> bool:
    """Whether an entry of a result's `tasks` is a task, which a list shows to its owner alone."""
    return isinstance(entry, dict) and "taskId" in entry


def _told(task: Mapping[str, Any]) -> Told:
    """`ttl` (2025-11-25) and `ttlMs` (extension) are in milliseconds; null says that there is no end."""
    ttl = task.get("ttlMs", task.get("ttl", False))
    if ttl is None:
        return Told(task.get("taskId"), UNLIMITED)
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not ttl >= 0:
        return Told(task.get("taskId"), None)
    return Told(task.get("taskId"), min(ttl, _MOST_MILLISECONDS) / 1000)


def _related(carrier: Mapping[str, Any]) -> list[object]:
    meta = carrier.get("_meta")
    if not isinstance(meta, dict) or RELATED not in meta:
        return []
    related = meta[RELATED]
    return [related.get("taskId") if isinstance(related, dict) else related]


def _filter(message: RpcMessage) -> Mapping[str, Any]:
    wanted = message.params.get("notifications") if message.method == LISTEN else None
    return wanted if isinstance(wanted, dict) else {}
