"""A browser over the DevTools protocol: real keys and a real mouse, and every wait is bounded."""

import base64
import contextlib
import json
import os
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WITHIN_SECONDS = 15.0
DOMAINS = ("Page", "Runtime", "Network", "Log")


class BrowserError(RuntimeError):
    """The browser refused a command, did not answer in time, or did not start."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a tab, by the protocol's name and parameters."""

    method: str
    params: dict[str, Any]


class Browser:
    """A browser process. Tabs of one `context` share cookies; contexts share nothing."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._last_id = 0
        self._rest = b""
        self._answers: dict[int, dict[str, Any]] = {}
        self._tabs: dict[str, Tab] = {}

    def command(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Run one command and answer its result."""
        self._last_id += 1
        number = self._last_id
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._writes, data) :]
        self.until(lambda: number in self._answers, method)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def until(self, ready: Callable[[], bool], what: str, within_seconds: float = WITHIN_SECONDS) -> None:
        """Take in what the browser says until `ready`."""
        deadline = time.monotonic() + within_seconds
        while not ready():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise BrowserError(f"{what}: nothing came within {within_seconds:g} seconds")
            readable, _, _ = select.select([self._reads], [], [], remaining)
            if readable:
                self._take_in()

    def _take_in(self) -> None:
        chunk = os.read(self._reads, 1 << 16)
        if not chunk:
            raise BrowserError("the browser has ended")
        *messages, self._rest = (self._rest + chunk).split(b"\0")
        for message in map(json.loads, messages):
            tab = self._tabs.get(message.get("sessionId", ""))
            if "id" in message:
                self._answers[message["id"]] = message
            elif tab is not None:
                tab.events.append(Event(message["method"], message["params"]))

    @contextlib.contextmanager
    def context(self) -> Iterator["Context"]:
        """A profile of its own, as after a fresh start."""
        context = self.command("Target.createBrowserContext", disposeOnDetach=True)["browserContextId"]
        try:
            yield Context(self, context)
        finally:
            self.command("Target.disposeBrowserContext", browserContextId=context)

    def new_tab(self, context: str) -> "Tab":
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self._tabs[session] = Tab(self, session)
        for domain in DOMAINS:
            tab.command(f"{domain}.enable")
        tab.command("Page.setLifecycleEventsEnabled", enabled=True)
        return tab


@dataclass(frozen=True)
class Context:
    """A profile: its tabs and its cookies."""

    browser: Browser
    id: str

    def tab(self) -> "Tab":
        return self.browser.new_tab(self.id)

    def cookies(self) -> list[dict[str, Any]]:
        """Each cookie with `name`, `value`, `domain`, `path`, `session`, `httpOnly`, `secure`, `sameSite`."""
        cookies: list[dict[str, Any]] = self.browser.command("Storage.getCookies", browserContextId=self.id)["cookies"]
        return cookies

    def clear_cookies(self) -> None:
        self.browser.command("Storage.clearCookies", browserContextId=self.id)


@dataclass
class Tab:
    """One tab, with all that happened in it."""

    browser: Browser
    session: str
    events: list[Event] = field(default_factory=list)

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.command(method, self.session, **params)

    def named(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all events of this name so far."""
        return [event.params for event in self.events if event.method == method]

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """What is done in the block leads to another page, which is there when it ends."""
        before = len(self.named("Page.loadEventFired"))
        yield
        try:
            self.browser.until(lambda: len(self.named("Page.loadEventFired")) > before, "the next page")
        except BrowserError as error:
            raise BrowserError(f"{error}; complaints: {self.complaints()}") from None

    def open(self, url: str) -> None:
        """Go where a typed URL leads, redirects included, and wait for that page."""
        self.command("Page.bringToFront")
        load = {"loaderId": self.command("Page.navigate", url=url)["loaderId"], "name": "load"}
        self.browser.until(
            lambda: any(load.items() <= params.items() for params in self.named("Page.lifecycleEvent")), url
        )

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page, a promise's once it is there."""
        answer = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for_focus(self) -> None:
        """Wait until a field has the focus; a page gives it away some time after it has loaded."""
        focused = "document.activeElement !== document.body"
        self.evaluate(
            f"new Promise(done => {{ const look = () => {focused} ? done() : setTimeout(look, 5); look(); }})"
        )

    @property
    def url(self) -> str:
        """Where the tab is, as the address bar has it."""
        return str(self.evaluate("location.href"))

    @property
    def text(self) -> str:
        """What a person reads."""
        return str(self.evaluate("document.body.innerText"))

    def click(self, selector: str) -> None:
        """Press the left button of the mouse in the middle of what `selector` finds."""
        self.command("Page.bringToFront")
        x, y = self.evaluate(
            f"""(() => {{
                const found = document.querySelector({json.dumps(selector)});
                found.scrollIntoView({{block: "center"}});
                const box = found.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def write(self, text: str) -> None:
        """Type into whatever has the focus."""
        self.command("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """Press one key; `code` is its virtual key code."""
        said = {"Enter": "\r"}.get(key)
        down: dict[str, Any] = {"type": "keyDown", "text": said} if said else {"type": "rawKeyDown"}
        for event in (down, {"type": "keyUp"}):
            self.command("Input.dispatchKeyEvent", key=key, code=key, windowsVirtualKeyCode=code, **event)

    def sign_in(self, user: str, password: str) -> None:
        """Fill in the login page with mouse and keys, and send it."""
        self.command("Page.bringToFront")
        self.wait_for_focus()
        for selector, value in (("#username", user), ("#password", password)):
            self.click(selector)
            self.evaluate("document.activeElement.select()")
            self.write(value)
        with self.loading():
            self.click("button[type=submit]")

    def decide(self, decision: str) -> None:
        """Press a button of the consent page: `approve` or `deny`."""
        with self.loading():
            self.click(f"button[value={decision}]")

    def requests(self) -> list[str]:
        """Every URL that was asked for, redirects included."""
        return [params["request"]["url"] for params in self.named("Network.requestWillBeSent")]

    def wait_for_request(self, start: str) -> None:
        """Wait until a URL with this start was asked for, whether or not anything is there."""
        self.browser.until(lambda: any(url.startswith(start) for url in self.requests()), start)

    def complaints(self) -> list[str]:
        """What the console of this tab shows: messages, exceptions, blocked and failed requests."""
        return [
            *(str(params["args"]) for params in self.named("Runtime.consoleAPICalled")),
            *(str(params["exceptionDetails"]) for params in self.named("Runtime.exceptionThrown")),
            *(f"{entry['entry']['text']} {entry['entry'].get('url')}" for entry in self.named("Log.entryAdded")),
        ]

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        data = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))
