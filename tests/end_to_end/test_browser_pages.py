"""The pages in a real browser: on a narrow screen, in the dark, heard, over https, and opened by the command line."""

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from mcp_guard.oauth import AuthorizationServer, StaticUsers
from mcp_guard.stores.memory import MemoryStore
from tests.end_to_end import chromium
from tests.end_to_end.conftest import USERS, RunningDemo
from tests.end_to_end.devtools import Context, Tab
from tests.end_to_end.loopback_site import Site
from tests.end_to_end.native_app import NativeApp
from tests.end_to_end.test_demo_process import call_whoami
from tests.support.serving import serving

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parents[2]
PASSWORD = USERS["alice"]
NARROW_PIXELS = 320
TEXT_CONTRAST, SHAPE_CONTRAST = 4.5, 3.0
"""WCAG 2.2, 1.4.3 and 1.4.11."""
TARGET_PIXELS = 24
"""WCAG 2.2, 2.5.8."""

# What is drawn on what: [description, contrast of the text, contrast of the border if it is a control, height].
DRAWN = """(() => {
  const parse = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => parse(color).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor, alpha = parse(color)[3];
      if (alpha === undefined || alpha === 1) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const isControl = element => element.matches("input:not([type=hidden]), button");
  const hasText = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  return [...document.body.querySelectorAll("*")].filter(e => isControl(e) || hasText(e)).map(e => {
    const style = getComputedStyle(e);
    return [e.outerHTML.slice(0, 60), contrast(style.color, ground(e)),
      isControl(e) ? contrast(style.borderTopColor, ground(e.parentElement)) : null, e.getBoundingClientRect().height];
  });
})()"""

RING = """(() => {
  const at = document.activeElement, style = getComputedStyle(at);
  return [at.id || at.value || at.textContent, style.outlineStyle, parseFloat(style.outlineWidth)];
})()"""


@pytest.fixture
def narrow(profile: Context) -> Tab:
    """A tab as narrow as a page must bear (WCAG 2.2, 1.4.10)."""
    tab = profile.tab()
    tab.command("Emulation.setDeviceMetricsOverride", width=NARROW_PIXELS, height=640, deviceScaleFactor=1, mobile=True)
    return tab


def look_at(tab: Tab, folder: Path, name: str) -> None:
    """The page fits, and everything on it can be made out, by day and by night. Pictures go to `folder`."""
    for scheme in ("light", "dark"):
        tab.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        tab.screenshot(folder / f"{name}-{scheme}.png")
        widths = tab.evaluate("[innerWidth, document.documentElement.scrollWidth]")
        assert widths == [NARROW_PIXELS, NARROW_PIXELS], name
        drawn: list[tuple[str, float, float | None, float]] = tab.evaluate(DRAWN)
        assert drawn
        for what, text, border, height in drawn:
            assert text >= TEXT_CONTRAST, (scheme, what, text)
            assert border is None or (border >= SHAPE_CONTRAST and height >= TARGET_PIXELS), (scheme, what, border)
    paper = tab.evaluate("getComputedStyle(document.querySelector('main')).backgroundColor")
    assert paper != "rgb(255, 255, 255)", "the page does not follow the dark scheme"


def tab_through(tab: Tab, stops: int) -> list[str]:
    """Press the tabulator key and answer what was in focus, each time with a visible ring."""
    found = []
    for _ in range(stops):
        tab.press("Tab", 9)
        what, style, width = tab.evaluate(RING)
        assert (style, width) == ("solid", 3), what
        found.append(what)
    return found


def heard(tab: Tab) -> set[tuple[str, str]]:
    """Role and name of what assistive technology finds, with what a field is described by."""
    nodes: list[dict[str, Any]] = tab.command("Accessibility.getFullAXTree")["nodes"]
    return {
        (node["role"]["value"], " | ".join(node[key]["value"] for key in ("name", "description") if node.get(key)))
        for node in nodes
        if not node["ignored"]
    }


def test_the_pages_fit_a_narrow_screen_and_are_legible_by_day_and_by_night(
    demo: RunningDemo, site: Site, narrow: Tab, tmp_path: Path
) -> None:
    long_host = ".".join(["a-label-as-long-as-labels-get-in-the-domain-name-system-of-today"[:63]] * 3)
    far = NativeApp(demo.origin, site, name="W" * 100, redirect_uri=f"https://{long_host}:8443/callback")
    narrow.open(far.url())
    narrow.sign_in("alice", "not-the-password")
    look_at(narrow, tmp_path, "login")
    narrow.sign_in("alice", PASSWORD)
    look_at(narrow, tmp_path, "consent-far")
    assert f"{long_host}:8443" in narrow.text
    narrow.open(NativeApp(demo.origin, site).url())
    look_at(narrow, tmp_path, "consent-here")
    with narrow.loading():
        narrow.click("a")
    assert "Go on as alice" in narrow.text
    look_at(narrow, tmp_path, "login-as-another")
    narrow.open(f"{demo.origin}/authorize")
    look_at(narrow, tmp_path, "error")


def test_the_pages_can_be_heard_and_walked_through(demo: RunningDemo, app: NativeApp, profile: Context) -> None:
    tab = profile.tab()
    tab.open(app.url())
    tab.wait_for_focus()
    assert tab.evaluate(RING)[0] == "username"
    tab.sign_in("alice", "not-the-password")
    tab.wait_for_focus()
    wrong = "Name or password is wrong."
    assert {
        ("heading", "Sign in to mcp-guard demo"),
        ("textbox", f"Name | {wrong}"),
        ("textbox", f"Password | {wrong}"),
        ("button", "Sign in"),
        ("StaticText", wrong),
    } <= heard(tab)
    assert tab_through(tab, 1) == ["Sign in"]
    tab.sign_in("alice", PASSWORD)
    assert {
        ("RootWebArea", "Allow Acme Notes?"),
        ("heading", "Allow Acme Notes to act for you?"),
        ("button", "Approve"),
        ("button", "Deny"),
        ("link", "Use another account"),
    } <= heard(tab)
    assert tab_through(tab, 3) == ["approve", "deny", "Use another account"]


@pytest.fixture
def secured(certificate: trustme.LeafCert, tmp_path: Path) -> Iterator[str]:
    """The issuer of an authorization server that runs alone, over https."""
    pem = tmp_path / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))

    def build(url: str) -> AuthorizationServer:
        issuer = f"https://localhost:{urlsplit(url).port}"
        return AuthorizationServer(
            issuer=issuer,
            store=MemoryStore(),
            users=StaticUsers.from_pairs(USERS),
            resources=[f"{issuer}/mcp"],
            scopes={"mcp:tools": "Call the tools"},
        )

    with serving(build, ssl_certfile=str(pem), ssl_keyfile=str(pem)) as served:
        yield f"https://localhost:{urlsplit(served.url).port}"


def test_a_login_over_https_has_a_cookie_that_no_other_host_can_set(
    secured: str, authority: trustme.CA, site: Site, profile: Context
) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    app = NativeApp(secured, site, redirect_uri=site.at("/callback", "localhost"), tls=trusting)
    tab = profile.tab()
    tab.open(app.url())
    tab.sign_in("alice", PASSWORD)
    (cookie,) = profile.cookies()
    assert cookie["name"] == "__Host-mcp-guard-session"
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, True, "Lax", "/")
    assert cookie["domain"] == "localhost"
    tab.decide("approve")
    answer = app.answer().query
    assert (answer["state"], answer["iss"]) == (app.state, secured)
    assert app.redeem(answer["code"])
    assert tab.complaints() == []


def command_line(demo: RunningDemo, folder: Path, decision: str) -> "subprocess.CompletedProcess[str]":
    """`mcp-guard token --browser` with a browser command that stays in the foreground and prints."""
    program = folder / "a-browser"
    program.write_text(f'#!/bin/sh\necho Opening a window\nexec "{sys.executable}" -m {chromium.__name__} "$@"\n')
    program.chmod(0o755)
    settings = {
        "BROWSER": str(program),
        "PYTHONPATH": str(ROOT),
        "WALKER_USER": "alice",
        "WALKER_PASSWORD": PASSWORD,
        "WALKER_DECISION": decision,
    }
    return subprocess.run(
        [sys.executable, "-m", "mcp_guard.cli", "token", demo.mcp, "--browser"],
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_command_line_prints_a_token_after_a_login_in_the_browser(demo: RunningDemo, tmp_path: Path) -> None:
    done = command_line(demo, tmp_path, "approve")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1
    assert "alice" in call_whoami(demo, done.stdout.strip()).text


def test_the_command_line_says_that_the_person_denied(demo: RunningDemo, tmp_path: Path) -> None:
    done = command_line(demo, tmp_path, "deny")
    assert (done.returncode, done.stdout) == (1, "")
    assert "access_denied" in done.stderr
    assert "Traceback" not in done.stderr
