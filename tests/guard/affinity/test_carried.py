"""What goes from one worker to another says the same there."""

from mcp_guard.affinity.carried import read_request, write_request
from mcp_guard.facts import FACTS_KEY, Resource, ScopePolicy, fact
from tests.guard.asgi import http_scope


def test_a_resource_is_carried_with_its_policy() -> None:
    policy = ScopePolicy(
        methods={"tasks/*": frozenset({"jobs"})},
        tools={"delete_*": frozenset({"write", "danger"})},
        prompts={"plan": frozenset({"read"})},
        uris={"note:*": frozenset()},
        implies={"write": frozenset({"read"})},
    )
    resource = Resource(
        "https://mcp.example/mcp", "/mcp", None, frozenset({"urn:a"}), frozenset({"tools"}), policy, "N"
    )
    there = read_request(write_request({**http_scope(), FACTS_KEY: {Resource: resource}}))
    assert fact(there, Resource) == resource
