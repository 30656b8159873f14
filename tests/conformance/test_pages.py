from __future__ import annotations

import pytest

from pytest_mcp_conformance.pages import Form, read_forms

PAGE = "http://127.0.0.1/login?x=1"


def only_form(html: str) -> Form:
    (form,) = read_forms(html, PAGE)
    return form


@pytest.mark.parametrize("name", ["username", "email", "login", "j_user", "identifier"])
def test_a_login_form_is_filled_whatever_its_fields_are_called(name: str) -> None:
    form = only_form(
        f'<form method=post action="/do?a=b&amp;c=d"><input type=hidden name=csrf value="t&quot;"><input name=search>'
        f"<input name={name}><input type=password name=secret><input type=checkbox name=remember>"
        "<button name=go value=1>Log in</button></form>"
    )
    assert form.action == "http://127.0.0.1/do?a=b&c=d"
    assert form.method == "post"
    filled = dict(form.login("alice", "pw"))
    assert filled == {"csrf": 't"', "search": "", name: "alice", "secret": "pw", "remember": "on", "go": "1"}


def test_an_action_is_relative_to_the_page_and_absent_means_the_page_itself() -> None:
    assert only_form("<form><input name=a></form>").action == PAGE
    assert only_form("<form action=next></form>").action == "http://127.0.0.1/next"


@pytest.mark.parametrize(
    ("buttons", "pressed"),
    [
        ("<button name=d value=deny>Deny</button><button name=d value=allow>Allow</button>", ("d", "allow")),
        ("<input type=submit name=no value=Cancel><input type=submit name=yes value=Authorize>", ("yes", "Authorize")),
        ("<button name=x value=0>Refuse access</button><button name=x value=1>Grant access</button>", ("x", "1")),
        ("<button name=one value=go>Next</button>", ("one", "go")),
    ],
)
def test_the_approving_button_is_pressed(buttons: str, pressed: tuple[str, str]) -> None:
    pairs = only_form(f"<form method=post><input type=hidden name=t value=v>{buttons}</form>").consent()
    assert pairs == [("t", "v"), pressed]


def test_a_form_that_can_only_be_denied_is_left_alone() -> None:
    assert only_form("<form><button name=d value=deny>Deny</button></form>").consent() is None
    assert only_form("<form><button>Spam</button><button>Eggs</button></form>").consent() is None


def test_radio_buttons_take_the_approving_choice_and_selects_their_chosen_option() -> None:
    form = only_form(
        "<form><input type=radio name=r value=deny checked><input type=radio name=r value=allow>"
        "<select name=s><option value=a><option value=b selected></select><input disabled name=off value=1></form>"
    )
    assert form.consent() == [("r", "allow"), ("s", "b")]


def test_every_form_of_a_page_is_read_even_unclosed() -> None:
    forms = read_forms("<form action=/a><input name=x></form><form action=/b><input type=password name=p>", PAGE)
    assert [form.asks_for_password for form in forms] == [False, True]
