from __future__ import annotations

import pytest

from pytest_mcp_conformance.acceptance import Acceptance, judge
from pytest_mcp_conformance.exchange import Exchange
from tests.conformance.answers import RESULT, answered, rpc_error, unanswered

CHALLENGED = answered(401, ("WWW-Authenticate", "Bearer"))
SERVED = answered(200, body=RESULT)
SCOPE = answered(403, ("WWW-Authenticate", 'Bearer error="insufficient_scope", scope="x"'))
FORBIDDEN = answered(403, body={"error": "forbidden"})


@pytest.mark.parametrize(
    ("presented", "anonymous", "good", "expected"),
    [
        (SERVED, CHALLENGED, SERVED, Acceptance.AUTHENTICATED),
        (SERVED, CHALLENGED, None, Acceptance.AUTHENTICATED),
        (answered(202), CHALLENGED, None, Acceptance.AUTHENTICATED),
        (CHALLENGED, CHALLENGED, SERVED, Acceptance.REFUSED),
        (answered(401), CHALLENGED, SERVED, Acceptance.REFUSED),
        (SCOPE, CHALLENGED, SERVED, Acceptance.AUTHENTICATED),
        (SCOPE, CHALLENGED, None, Acceptance.AUTHENTICATED),
        (SCOPE, SCOPE, SERVED, Acceptance.UNCLEAR),
        (
            answered(404, body=rpc_error(-32001)),
            CHALLENGED,
            answered(404, body=rpc_error(-32001)),
            Acceptance.AUTHENTICATED,
        ),
        (answered(400, body=rpc_error(-32600)), CHALLENGED, SERVED, Acceptance.UNCLEAR),
        (answered(400), answered(400), answered(400), Acceptance.UNCLEAR),
        (answered(400, ("WWW-Authenticate", 'Bearer error="invalid_request"')), CHALLENGED, SERVED, Acceptance.REFUSED),
        (answered(403, ("WWW-Authenticate", 'Bearer error="invalid_token"')), CHALLENGED, SERVED, Acceptance.REFUSED),
        (FORBIDDEN, FORBIDDEN, FORBIDDEN, Acceptance.UNCLEAR),
        (FORBIDDEN, FORBIDDEN, SERVED, Acceptance.REFUSED),
        (FORBIDDEN, CHALLENGED, SERVED, Acceptance.UNCLEAR),
        (SERVED, SERVED, SERVED, Acceptance.UNCLEAR),
        (answered(200, body=rpc_error(-32001)), CHALLENGED, SERVED, Acceptance.UNCLEAR),
        (answered(429), CHALLENGED, answered(429), Acceptance.UNCLEAR),
        (answered(500), CHALLENGED, answered(500), Acceptance.UNCLEAR),
        (unanswered(), CHALLENGED, SERVED, Acceptance.UNCLEAR),
    ],
)
def test_acceptance_is_judged_by_comparison(
    presented: Exchange, anonymous: Exchange, good: Exchange | None, expected: Acceptance
) -> None:
    assert judge(presented, anonymous=anonymous, good=good) is expected
