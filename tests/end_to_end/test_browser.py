"""A person signs in and answers in a real browser: the ways that lead to the app, and others that lead nowhere."""

import html
from urllib.parse import urlsplit

import httpx
import pytest

from tests.end_to_end.conftest import USERS, RunningDemo
from tests.end_to_end.devtools import Context, Tab
from tests.end_to_end.loopback_site import Site
from tests.end_to_end.native_app import NativeApp
from tests.end_to_end.test_demo_process import call_whoami

pytestmark = pytest.mark.clients

PASSWORD = USERS["alice"]
TAB, ENTER = ("Tab", 9), ("Enter", 13)


def path(tab: Tab) -> str:
    return urlsplit(tab.url).path


def sign_in(tab: Tab, url: str, user: str = "alice") -> None:
    """From the app's link to the consent page."""
    tab.open(url)
    tab.sign_in(user, USERS[user])
    assert path(tab) == "/consent", tab.text


def test_login_and_approval_end_at_the_app_with_a_code_that_is_good(
    demo: RunningDemo, app: NativeApp, profile: Context
) -> None:
    tab = profile.tab()
    sign_in(tab, app.url())
    said = tab.text
    tab.decide("approve")
    answer = app.answer()
    assert set(answer.query) == {"code", "state", "iss"}
    assert (answer.query["state"], answer.query["iss"]) == (app.state, demo.origin)
    assert "referer" not in answer.headers
    assert "alice" in call_whoami(demo, app.redeem(answer.query["code"])).text
    for shown in ("Acme Notes", "alice", f"127.0.0.1:{app.site.port}", demo.mcp, "Call the demo's tools"):
        assert shown in said
    sent = [event["headers"] for event in tab.named("Network.requestWillBeSentExtraInfo")]
    forms = [(fields["Origin"], fields["Sec-Fetch-Site"]) for fields in sent if "Origin" in fields]
    assert forms == [("null", "same-origin")] * 2
    assert tab.complaints() == []
    assert {urlsplit(url).netloc for url in tab.requests()} == {urlsplit(demo.origin).netloc, urlsplit(tab.url).netloc}


def test_a_login_that_began_with_a_link_of_another_site_is_no_different(
    app: NativeApp, profile: Context, other_site: Site
) -> None:
    other_site.pages["/"] = f'<a href="{html.escape(app.url())}">Connect</a>'
    tab = profile.tab()
    tab.open(other_site.at("/", "localhost"))
    with tab.loading():
        tab.click("a")
    tab.sign_in("alice", PASSWORD)
    tab.decide("approve")
    assert "code" in app.answer().query


def test_the_whole_login_can_be_done_with_keys_alone(app: NativeApp, profile: Context) -> None:
    tab = profile.tab()
    tab.open(app.url())
    tab.wait_for_focus()
    tab.write("alice")
    tab.press(*TAB)
    tab.write(PASSWORD)
    with tab.loading():
        tab.press(*ENTER)
    tab.press(*TAB)
    assert tab.evaluate("document.activeElement.value") == "approve"
    with tab.loading():
        tab.press(*ENTER)
    assert "code" in app.answer().query


def test_a_wrong_password_is_said_on_the_page_and_the_name_stays(app: NativeApp, profile: Context) -> None:
    tab = profile.tab()
    tab.open(app.url())
    tab.sign_in("alice", "not-the-password")
    assert "Name or password is wrong." in tab.text
    tab.wait_for_focus()
    assert tab.evaluate("[username.value, password.value, document.activeElement.id]") == ["alice", "", "password"]
    tab.write(PASSWORD)
    with tab.loading():
        tab.press(*ENTER)
    tab.decide("approve")
    assert "code" in app.answer().query


def test_denial_reaches_the_app_and_grants_nothing(demo: RunningDemo, app: NativeApp, profile: Context) -> None:
    tab = profile.tab()
    sign_in(tab, app.url())
    tab.decide("deny")
    answer = app.answer().query
    assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", app.state, demo.origin)
    assert "code" not in answer
    assert tab.complaints() == []


def test_an_answered_request_cannot_be_answered_again(app: NativeApp, profile: Context) -> None:
    tab = profile.tab()
    sign_in(tab, app.url())
    consent = tab.url
    tab.decide("approve")
    tab.open(consent)
    assert "This request is over" in tab.text
    assert len(app.site.answers()) == 1


def test_what_the_app_did_wrong_reaches_it_after_the_login(app: NativeApp, profile: Context) -> None:
    tab = profile.tab()
    tab.open(app.url(scope="no:such"))
    assert app.site.answers() == []
    tab.sign_in("alice", PASSWORD)
    assert app.answer().query["error"] == "invalid_scope"
    assert tab.complaints() == []


def test_two_tabs_with_one_link_both_come_to_their_end(app: NativeApp, profile: Context) -> None:
    first, second = profile.tab(), profile.tab()
    first.open(app.url())
    second.open(app.url())
    first.sign_in("alice", PASSWORD)
    second.sign_in("alice", PASSWORD)
    for tab in (first, second):
        assert path(tab) == "/consent", tab.text
        tab.decide("approve")
    codes = [answer.query["code"] for answer in app.site.answers()]
    assert len(set(codes)) == 2


def test_a_tab_whose_browser_signed_in_as_somebody_else_meanwhile_may_choose(app: NativeApp, profile: Context) -> None:
    first, second = profile.tab(), profile.tab()
    first.open(app.url())
    second.open(app.url())
    first.sign_in("alice", PASSWORD)
    second.sign_in("bob", USERS["bob"])
    assert path(second) == "/login"
    assert "You are signed in as alice" in second.text
    second.sign_in("bob", USERS["bob"])
    assert "bob" in second.text
    second.decide("approve")
    assert "code" in app.answer().query


def test_a_login_page_that_lost_its_cookie_asks_once_more(app: NativeApp, profile: Context) -> None:
    tab = profile.tab()
    tab.open(app.url())
    profile.clear_cookies()
    tab.sign_in("alice", PASSWORD)
    assert "Try again." in tab.text
    tab.sign_in("alice", PASSWORD)
    tab.decide("approve")
    assert "code" in app.answer().query


def test_the_form_policy_lets_the_answer_out_to_every_kind_of_redirect_uri(
    demo: RunningDemo, site: Site, profile: Context
) -> None:
    tab = profile.tab()
    sign_in(tab, NativeApp(demo.origin, site).url())
    for redirect_uri in (
        site.at("/callback", "localhost"),
        site.at("/callback", "[::1]"),
        "com.example.notes:/callback",
    ):
        app = NativeApp(demo.origin, site, redirect_uri=redirect_uri)
        tab.open(app.url())
        tab.click("button[value=approve]")
        tab.wait_for_request(f"{redirect_uri}?code=")
        assert not [line for line in tab.complaints() if "form-action" in line]


def test_the_cookie_is_kept_from_scripts_and_other_sites(demo: RunningDemo, app: NativeApp, profile: Context) -> None:
    tab = profile.tab()
    tab.open(app.url())
    (before,) = profile.cookies()
    tab.sign_in("alice", PASSWORD)
    (after,) = profile.cookies()
    assert after["name"] == f"mcp-guard-session-{urlsplit(demo.origin).port}"
    assert (after["httpOnly"], after["sameSite"], after["session"], after["path"]) == (True, "Lax", True, "/")
    assert after["value"] != before["value"]
    assert tab.evaluate("document.cookie") == ""


def test_the_pages_cannot_be_framed(app: NativeApp, profile: Context, other_site: Site) -> None:
    victim = profile.tab()
    sign_in(victim, app.url())
    # Another port of the same host is another origin but the same site: the cookie goes along.
    framed = [victim.url, app.url(), app.site.at("/")]
    other_site.pages["/"] = "".join(f'<iframe src="{html.escape(url)}"></iframe>' for url in framed)
    tab = profile.tab()
    tab.open(other_site.at("/"))
    frames = [child["frame"] for child in tab.command("Page.getFrameTree")["frameTree"]["childFrames"]]
    assert ["unreachableUrl" in frame for frame in frames] == [True, True, False]


def test_the_pages_cannot_be_read_by_another_origin(app: NativeApp, profile: Context, other_site: Site) -> None:
    victim = profile.tab()
    sign_in(victim, app.url())
    tab = profile.tab()
    tab.open(other_site.at("/"))
    read = "fetch({}, {{credentials: 'include'}}).then(answer => answer.text(), () => 'refused')"
    assert tab.evaluate(read.format(f"'{victim.url}'")) == "refused"
    assert "Back at the app" in tab.evaluate(read.format("'/'"))


FOREIGN = [
    pytest.param("127.0.0.1", '<meta name="referrer" content="no-referrer">', id="another-port-that-hides-its-origin"),
    pytest.param("localhost", "", id="another-site"),
]


def post_from(other_site: Site, host: str, head: str, context: Context, action: str, fields: dict[str, str]) -> Tab:
    """A tab in which a page of another origin had a person send a form."""
    inputs = "".join(f'<input type="hidden" name="{name}" value="{html.escape(fields[name])}">' for name in fields)
    other_site.pages["/"] = (
        f'{head}<form method="post" action="{html.escape(action)}">{inputs}<button>Win a prize</button></form>'
    )
    tab = context.tab()
    tab.open(other_site.at("/", host))
    with tab.loading():
        tab.click("button")
    return tab


def hidden(tab: Tab) -> dict[str, str]:
    """The hidden fields of the form in a tab: more than another origin can know."""
    script = "Object.fromEntries([...document.querySelectorAll('input[type=hidden]')].map(i => [i.name, i.value]))"
    fields: dict[str, str] = tab.evaluate(script)
    return fields


@pytest.mark.parametrize(("host", "head"), FOREIGN)
def test_an_approval_sent_by_another_origin_does_nothing(
    app: NativeApp, profile: Context, other_site: Site, host: str, head: str
) -> None:
    victim = profile.tab()
    sign_in(victim, app.url())
    fields = {**hidden(victim), "decision": "approve"}
    tab = post_from(other_site, host, head, profile, f"{app.issuer}/consent", fields)
    assert "This form came from elsewhere" in tab.text
    assert app.site.answers() == []
    victim.decide("approve")
    assert "code" in app.answer().query


@pytest.mark.parametrize(("host", "head"), FOREIGN)
def test_nobody_is_signed_in_by_another_origin(
    app: NativeApp, profile: Context, other_site: Site, host: str, head: str
) -> None:
    victim = profile.tab()
    victim.open(app.url())
    cookies = profile.cookies()
    fields = {**hidden(victim), "username": "bob", "password": USERS["bob"]}
    tab = post_from(other_site, host, head, profile, victim.url, fields)
    assert "This form came from elsewhere" in tab.text
    assert profile.cookies() == cookies
    tab.open(app.url())
    assert path(tab) == "/login"
    assert httpx.get(app.url()).status_code == 302
