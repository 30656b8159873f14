"""AUTHZ: what users see and may use of the tools, and of each other's objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from conformance_suites.calls import Caller, did_it, harmless_tools, names_in
from conformance_suites.minted import held_scopes, offered_scopes, with_scopes
from pytest_mcp_conformance import Finding, Inconclusive, NotApplicable, NotRun, mcp, requirement
from pytest_mcp_conformance.bench import Bench
from pytest_mcp_conformance.credentials import Credential
from pytest_mcp_conformance.declarations import Declarations, ObjectTools
from pytest_mcp_conformance.eras import result_of
from pytest_mcp_conformance.exchange import Exchange, Header
from pytest_mcp_conformance.failures import Judgement
from pytest_mcp_conformance.mcp import Era
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.properties import Space
from pytest_mcp_conformance.target import Target

KINDS = {"tools": "name", "prompts": "name", "resources": "uri"}
MOST_CALLS = 8
IDENTITY_HEADERS = (
    "X-User",
    "X-Forwarded-User",
    "X-Remote-User",
    "Remote-User",
    "X-Auth-Request-User",
    "X-Authenticated-User",
    "X-Roles",
    "User-Agent",
)
CLIENT_INFO = "io.modelcontextprotocol/clientInfo"
CLAIMED = ("admin", "administrator", "root", "superuser", "system", "Claude Desktop")


class ObjectOfAnotherRead(Finding):
    """One user reads what another made."""


class HiddenThingWorks(Finding):
    """What is not listed for a caller works when the caller uses it."""


class ListsDependOnTheConnection(Finding):
    """Lists differ between connections of one token, or change with calls made on one."""


class ClaimChangesTheList(Finding):
    """What a client says about itself changes what it is shown."""


@requirement("AUTHZ-017")
def test_one_user_cannot_read_what_another_made(
    target: Target, alice: Credential, bob: Credential, declared: Declarations
) -> None:
    """OWASP API1:2023: the right scope does not make an object one's own."""
    tools = declared.object_tools
    if tools is None:
        raise NotRun("no tools are declared that make an object and read it (object_tools)")
    owner, other = Caller(target, alice), Caller(target, bob)
    name, text = _make(owner, tools)

    def judge(spelling: str) -> None:
        exchange = other.send(other.call(tools.read, {tools.argument: spelling}))
        if did_it(exchange) and _text(exchange) == text:
            raise ObjectOfAnotherRead(
                "a user reads an object that another user made",
                evidence=exchange,
                expected="the answer for an object that does not exist",
                got=exchange.summary,
                counterexample="the object's name" if spelling == name else "another spelling of the object's name",
            )

    spellings = dict.fromkeys([name, name.upper(), name.lower(), f" {name}", f"{name} ", f"/{name}", f"{name}\x00"])
    with target.controlled(alice), target.controlled(bob):
        for spelling in spellings:
            judge(spelling)
        if _text(owner.send(owner.call(tools.read, {tools.argument: name}))) != text:
            raise Inconclusive("the owner cannot read the object either, afterwards")


def _make(owner: Caller, tools: ObjectTools) -> tuple[str, str]:
    made = result_of(owner.send(owner.call(tools.create, tools.arguments))) or {}
    structured = made.get("structuredContent")
    name = structured.get(tools.identifier) if isinstance(structured, dict) else None
    if not isinstance(name, str | int):
        raise Inconclusive(f"{tools.create} did not answer with {tools.identifier} in its structured content")
    read = owner.send(owner.call(tools.read, {tools.argument: name}))
    if not did_it(read) or not _text(read):
        raise Inconclusive(f"the owner cannot read the object with {tools.read}: {read.summary}")
    return str(name), _text(read)


def _text(exchange: Exchange) -> str:
    content = (result_of(exchange) or {}).get("content")
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


@dataclass(frozen=True)
class Seen:
    """Who sees what."""

    who: str
    caller: Caller
    lists: Mapping[str, frozenset[str]]


@requirement("AUTHZ-018")
def test_what_is_not_shown_cannot_be_used(target: Target, bench: Bench, alice: Credential, bob: Credential) -> None:
    """OWASP API5:2023: hiding a function is no protection of it."""
    users, more = {"user A": alice, "user B": bob}, ""
    try:
        every = offered_scopes(target, bench.authorization_server())
        if not every <= held_scopes(alice):
            users["user A with every scope"] = with_scopes(bench, alice, every)
    except Judgement as judgement:
        more = f"; and {judgement.reason}"
    seen = [Seen(who, caller, _lists(caller)) for who, caller in ((w, Caller(target, c)) for w, c in users.items())]
    calls = 0
    with target.controlled(alice), target.controlled(bob):
        for kind in KINDS:
            everything = frozenset().union(*(one.lists.get(kind, frozenset()) for one in seen))
            for one in seen:
                for name in sorted(everything - one.lists.get(kind, everything))[:MOST_CALLS]:
                    calls += 1
                    _judge_hidden(one, kind, name)
    if not calls:
        raise NotApplicable(f"every user of the run is shown the same{more}")


def _lists(caller: Caller) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for kind, naming in KINDS.items():
        names = caller.listed(f"{kind}/list", kind, naming)
        if names is not None:
            found[kind] = names
    return found


def _judge_hidden(one: Seen, kind: str, name: str) -> None:
    requests = {
        "tools": lambda: one.caller.call(name),
        "prompts": lambda: one.caller.request("prompts/get", {"name": name}),
        "resources": lambda: one.caller.request("resources/read", {"uri": name}),
    }
    exchange = one.caller.send(requests[kind]())
    if did_it(exchange):
        raise HiddenThingWorks(
            f"what is not listed for a caller works when the caller uses it ({kind})",
            evidence=exchange,
            expected="a refusal",
            got=exchange.summary,
            counterexample=f"{name}, as {one.who}",
        )


@requirement("AUTHZ-019")
def test_lists_depend_on_the_credentials_alone(
    target: Target, alice: Credential, declared: Declarations, probe: Probe, space: Space
) -> None:
    """MCP 2026-07-28, tools §Capabilities: not on the connection, and not on what was called before."""
    target.require_protected()
    target.require(Era.MODERN)
    harmless = harmless_tools(target, declared, alice)
    listing = mcp.modern("tools/list").request(target.url, alice.header)

    def judge(calls: list[str]) -> None:
        with probe.connection(target.url) as used, probe.connection(target.url) as fresh:
            before = _list_of(used.send(listing))
            for tool in calls:
                call = mcp.modern("tools/call", {"name": tool, "arguments": {}})
                used.send(call.request(target.url, alice.header))
            exchange = used.send(listing)
            for after, where in ((exchange, "on the connection of the calls"), (fresh.send(listing), "on another one")):
                if _list_of(after) != before:
                    raise ListsDependOnTheConnection(
                        f"the list of tools has changed {where}, with the same token",
                        evidence=after,
                        expected=f"{len(before)} tools as before",
                        got=f"{len(_list_of(after))} tools, or others",
                        counterexample=f"calls of {', '.join(calls)}",
                    )

    drawn = st.lists(st.sampled_from(harmless), min_size=1, max_size=3)
    with target.controlled(alice):
        space.search(judge, drawn, classics=[harmless[:1]], max_examples=2)


def _list_of(exchange: Exchange) -> frozenset[str]:
    found = names_in(exchange, "tools", "name")
    if found is None:
        raise Inconclusive(f"the tools could not be listed: {exchange.summary}")
    return found


@dataclass(frozen=True)
class Claim:
    """What a client says about itself."""

    where: str
    value: str

    def headers(self) -> tuple[Header, ...]:
        return () if self.where == CLIENT_INFO else ((self.where, self.value),)

    def params(self) -> dict[str, Any]:
        if self.where != CLIENT_INFO:
            return {}
        return {"_meta": {CLIENT_INFO: {"name": self.value, "title": self.value, "version": "1"}}}


@requirement("AUTHZ-022")
def test_what_a_client_says_about_itself_decides_nothing(target: Target, alice: Credential, space: Space) -> None:
    """MCP 2026-07-28, §_meta: clientInfo is for display and debugging; identity comes from the token."""
    target.require_protected()
    target.require(Era.MODERN)
    shown = names_in(target.send(mcp.modern("tools/list"), alice), "tools", "name")

    def judge(claim: Claim) -> None:
        exchange = target.send(mcp.modern("tools/list", claim.params()), alice, *claim.headers())
        names = names_in(exchange, "tools", "name")
        if names is not None and names != shown:
            raise ClaimChangesTheList(
                "what a client says about itself changes the tools it is shown",
                evidence=exchange,
                expected="the same tools",
                got=f"{len(names)} tools instead of {len(shown or ())}",
                counterexample=f"{claim.where}: {claim.value}",
            )

    places = (CLIENT_INFO, *IDENTITY_HEADERS)
    drawn = st.builds(Claim, st.sampled_from(places), st.sampled_from(CLAIMED))
    with target.controlled(alice):
        space.search(judge, drawn, classics=[Claim(where, "admin") for where in places], max_examples=1)
