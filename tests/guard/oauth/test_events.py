"""The audit tells what the authorization server did, and for whom."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.guard.attacks.deployment import Deployment, deployed
from tests.guard.attacks.flow import Flow


@pytest.fixture(scope="module")
def told() -> Mapping[str, Mapping[str, Any]]:
    """The records of one login from registration to a refresh, by their event."""
    with deployed() as live:
        flow = Flow(live)
        flow.client_id = flow.register(grant_types=["authorization_code", "refresh_token"])
        flow.sign_in()
        issued = flow.redeem(flow.fields(flow.code())).json()
        refreshed = flow.redeem(
            [
                ("grant_type", "refresh_token"),
                ("refresh_token", issued["refresh_token"]),
                ("client_id", flow.client_id),
            ]
        )
        assert refreshed.status_code == 200
        deny(flow)
        nothing_else_is_told(live, issued)
        return {record["event"]: record for record in live.audit.records() if record["event"] is not None}


def deny(flow: Flow) -> None:
    page = flow.consent()
    fields = dict(httpx.QueryParams(page.url.query))
    form = page.text
    csrf = form.partition('name="csrf" value="')[2].partition('"')[0]
    answer = {"transaction": fields["transaction"], "csrf": csrf, "decision": "deny"}
    assert flow.browser.post(f"{flow.live.origin}/consent", data=answer).status_code == 303


def nothing_else_is_told(live: Deployment, issued: Mapping[str, str]) -> None:
    written = b"".join(live.audit.lines).decode()
    assert issued["access_token"] not in written
    assert issued["refresh_token"] not in written


def test_every_step_of_a_login_is_an_event(told: Mapping[str, Mapping[str, Any]]) -> None:
    assert set(told) == {"client_registered", "login", "consent", "denial", "code_redeemed", "token_refreshed"}


@pytest.mark.parametrize("event", ["login", "consent", "denial", "code_redeemed", "token_refreshed"])
def test_an_event_names_the_person_and_the_client(told: Mapping[str, Mapping[str, Any]], event: str) -> None:
    principal = told[event]["principal"]
    assert principal["subject"] == "alice"
    assert principal["client"] == told["client_registered"]["principal"]["client"]
    assert told[event]["verdict"] == "allowed"


def test_a_registration_names_no_person(told: Mapping[str, Mapping[str, Any]]) -> None:
    assert told["client_registered"]["principal"]["subject"] is None


@pytest.mark.parametrize("event", ["code_redeemed", "token_refreshed"])
def test_an_issued_token_is_named_by_its_fingerprint(told: Mapping[str, Mapping[str, Any]], event: str) -> None:
    assert len(told[event]["token"]) == 16
    assert told["login"]["token"] is None
