"""What a token is bound to reaches the worker that a request is carried to."""

from dataclasses import replace

from mcp_guard.affinity.carried import read_request, write_request
from mcp_guard.facts import FACTS_KEY, Confirmation, Principal, Resource, facts_of
from tests.guard.asgi import http_scope
from tests.guard.stubs import ALICE, MCP


def test_a_principal_is_carried_with_what_its_token_is_bound_to() -> None:
    for confirmation in (Confirmation(), Confirmation("key"), Confirmation(None, "certificate")):
        bound = replace(ALICE, confirmation=confirmation)
        resource = replace(MCP, dpop="required", certificates="allowed")
        carried = read_request(write_request({**http_scope(), FACTS_KEY: {Principal: bound, Resource: resource}}))
        assert facts_of(carried)[Principal].confirmation == confirmation
        assert facts_of(carried)[Resource] == resource
