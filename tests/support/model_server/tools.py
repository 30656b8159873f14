"""The tools, what they need, and who sees them."""

from __future__ import annotations

import contextlib
import math
import re
import secrets
from dataclasses import dataclass, replace
from typing import Any

from tests.support.model_server.deployment import (
    ADMIN_SCOPE,
    AUDIT_SCOPE,
    BASE_SCOPE,
    IMPLIED_SCOPES,
    SCOPES,
    Deployment,
)
from tests.support.model_server.keys import JSON
from tests.support.model_server.outbound import fetch_on_loopback
from tests.support.model_server.principal import Principal, Refused
from tests.support.model_server.protocol import INVALID_PARAMS, RpcError

NOTES_PER_USER = 50
NUMBER = {"type": "number"}
TEXT = {"type": "string"}
Caller = tuple[str, int] | None
_PRODUCT = re.compile(r"\{\{(\d+)\*(\d+)\}\}")


@dataclass(frozen=True)
class Tool:
    """`scopes` are needed beside the basic one; a `hidden` tool is listed only for tokens that hold them."""

    name: str
    description: str
    arguments: JSON
    scopes: tuple[str, ...] = ()
    hidden: bool = False
    only_reads: bool = False
    output: JSON | None = None

    def described(self) -> JSON:
        listed: JSON = {"name": self.name, "description": self.description, "inputSchema": _object(self.arguments)}
        if self.output is not None:
            listed["outputSchema"] = _object(self.output)
        return {**listed, "annotations": {"readOnlyHint": True}} if self.only_reads else listed


def _object(members: JSON) -> JSON:
    return {"type": "object", "properties": members, "required": list(members)}


TOOLS = (
    Tool(
        "whoami",
        "Who the access token speaks for.",
        {},
        only_reads=True,
        output={"subject": TEXT, "client_id": TEXT},
    ),
    Tool("add", "The sum of two numbers.", {"a": NUMBER, "b": NUMBER}, only_reads=True, output={"result": NUMBER}),
    Tool("remember", "Keep a note; answers its name.", {"text": TEXT}),
    Tool("recall", "A note of your own by its name.", {"note": TEXT}, only_reads=True),
    Tool("ask", "Ask the user for a colour and answer it.", {}),
    Tool("fetch", "What a URL on this machine answers.", {"url": TEXT}),
    Tool("admin_reset", "Pretends to reset the server.", {}, (ADMIN_SCOPE, AUDIT_SCOPE)),
    Tool("measured", "What whoami says, a few times in a while.", {}),
    Tool("audit_log", "The audit log.", {}, (AUDIT_SCOPE,), hidden=True),
)
LATE = Tool("encore", "Listed only after another call.", {})


class Tools:
    """Runs tools for principals whose scopes suffice."""

    def __init__(self, deployment: Deployment) -> None:
        self.has = deployment.has
        self._notes: dict[str, tuple[str, str]] = {}
        self._callers: set[Caller] = set()

    def listed(self, principal: Principal, caller: Caller) -> list[JSON]:
        """The tools this principal may know of."""
        known = [tool for tool in TOOLS if not tool.hidden or self._missing(tool, principal) == ()]
        if self.has("tools_appear_after_use") and caller in self._callers:
            known.append(LATE)
        return [tool.described() for tool in known]

    def authorize(self, name: object, principal: Principal) -> Tool:
        """The tool, if the principal's scopes suffice.

        Raises:
            RpcError: there is no such tool.
            Refused: 403 `insufficient_scope`, naming every scope the tool needs.
        """
        tool = self.named(name)
        if tool is None:
            raise RpcError(INVALID_PARAMS, "there is no such tool")
        missing = self._missing(tool, principal)
        if missing and not (tool.hidden and self.has("hidden_tools_run")):
            named = missing[:1] if self.has("scopes_one_at_a_time") else (BASE_SCOPE, *tool.scopes)
            raise Refused(403, "insufficient_scope", "the token lacks a scope that the tool needs", named)
        return tool

    def named(self, name: object) -> Tool | None:
        """The tool of this name; None when there is none."""
        return next((one for one in TOOLS if one.name == name), None)

    def require_base(self, principal: Principal) -> None:
        """Refuse a principal without the basic scope, which everything needs."""
        if BASE_SCOPE not in self._effective(principal):
            raise Refused(403, "insufficient_scope", "the token lacks the basic scope", (BASE_SCOPE,))

    def _missing(self, tool: Tool, principal: Principal) -> tuple[str, ...]:
        held = self._effective(principal)
        return tuple(scope for scope in (BASE_SCOPE, *tool.scopes) if scope not in held)

    def _effective(self, principal: Principal) -> frozenset[str]:
        held = principal.scopes
        if self.has("scope_hierarchy_ignored"):
            return held
        return held.union(*(IMPLIED_SCOPES.get(scope, frozenset()) for scope in held))

    def elevated(self, principal: Principal, client: JSON, user_header: str) -> Principal:
        """The principal, with more scopes when a fault believes what the client says about itself."""
        believed = (self.has("client_name_grants") and "admin" in str(client.get("name", "")).lower()) or (
            self.has("user_header_grants") and "admin" in user_header.lower()
        )
        return replace(principal, scopes=frozenset(SCOPES)) if believed else principal

    def run(self, tool: Tool, arguments: JSON, principal: Principal, caller: Caller) -> JSON:
        """The tool's result (`content`, `isError`)."""
        self._callers.add(caller)
        match tool.name:
            case "whoami" | "measured":
                return self._whoami(principal)
            case "add":
                return self._add(arguments)
            case "remember":
                return self._remember(arguments, principal)
            case "recall":
                return self._recall(arguments, principal)
            case "fetch":
                return self._fetch(arguments, principal)
            case "admin_reset" | "audit_log":
                return said("nothing was changed and nothing was logged")
        return failed("this connection cannot ask the user")

    def _whoami(self, principal: Principal) -> JSON:
        if self.has("structured_content_missing"):
            return said(principal.subject)
        subject: object = [principal.subject] if self.has("structured_content_of_another_type") else principal.subject
        return said(principal.subject, subject=subject, client_id=principal.client_id)

    def _add(self, arguments: JSON) -> JSON:
        if self.has("missing_arguments_run"):
            arguments = {"a": 0, "b": 0, **arguments}
        numbers = [arguments.get(name) for name in ("a", "b")]
        if self.has("wrong_types_run"):
            numbers = [one if isinstance(one, int | float) or one is None else len(str(one)) for one in numbers]
        if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers):
            return failed("a and b must be numbers")
        try:
            total = numbers[0] + numbers[1]  # type: ignore[operator]
        except OverflowError:
            return failed("the numbers are too large")
        return failed("the numbers are too large") if math.isinf(total) else said(str(total), result=total)

    def _remember(self, arguments: JSON, principal: Principal) -> JSON:
        owned = [name for name, (owner, _) in self._notes.items() if owner == principal.subject]
        if len(owned) >= NOTES_PER_USER:
            del self._notes[owned[0]]
        name = secrets.token_hex(8)
        self._notes[name] = (principal.subject, str(arguments.get("text", ""))[:200])
        return said(name, note=name)

    def _recall(self, arguments: JSON, principal: Principal) -> JSON:
        owner, text = self._notes.get(str(arguments.get("note")), ("", ""))
        if owner and (owner == principal.subject or self.has("notes_are_shared")):
            return said(text)
        return failed(f"there is no such note{self._looked_into(str(arguments.get('note')))}")

    def _looked_into(self, text: str) -> str:
        """What a fault makes of an argument that is only a name."""
        if self.has("urls_in_arguments_fetched"):
            with contextlib.suppress(OSError, ValueError):
                fetch_on_loopback(text, {})
        if self.has("templates_evaluated"):
            return ": " + _PRODUCT.sub(lambda found: str(int(found[1]) * int(found[2])), text)
        return ""

    def _fetch(self, arguments: JSON, principal: Principal) -> JSON:
        headers = {"Authorization": f"Bearer {principal.token}"} if self.has("token_forwarded") else {}
        try:
            return said(fetch_on_loopback(str(arguments.get("url")), headers).decode("utf-8", "replace"))
        except (OSError, ValueError):
            return failed("nothing could be fetched")


def said(text: str, **structured: Any) -> JSON:
    content: JSON = {"content": [{"type": "text", "text": text}], "isError": False}
    return {**content, "structuredContent": structured} if structured else content


def failed(text: str) -> JSON:
    return {"content": [{"type": "text", "text": text}], "isError": True}
