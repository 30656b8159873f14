#!/usr/bin/env python3
"""A browser for tests: walks login and consent of the URL it is given and ends at the client's callback.

Run as a program it takes the last http argument, as browsers do, goes on in the background and returns at once. The
user comes from WALKER_USER and WALKER_PASSWORD.
"""

import os
import sys
import time
from urllib.parse import urljoin

import httpx

from mcp_guard.forms import Form
from mcp_guard.secret import Secret

MAX_STEPS = 10
CALLBACK_TRIES = 50


def walk(url: str, user: str, password: str) -> str:
    """The redirect that the login ends in, which is not requested."""
    with httpx.Client(timeout=10) as browser:
        request = browser.build_request("GET", url)
        for _ in range(MAX_STEPS):
            page = browser.send(request)
            if page.is_redirect:
                target = urljoin(str(page.url), page.headers["location"])
                if httpx.URL(target).netloc != httpx.URL(url).netloc:
                    return target
                request = browser.build_request("GET", target)
                continue
            form = Form.on(page.text)
            if form is None:
                raise RuntimeError(
                    f"{page.status_code} and no form at {page.url.copy_with(query=None)}: {page.text[:500]}"
                )
            target = urljoin(str(page.url), form.action)
            request = browser.build_request("POST", target, data=form.filled(user, Secret(password)))
    raise RuntimeError("the login did not come to an end")


def call_back(url: str) -> None:
    """Deliver the redirect; the client's listener may come up later than the browser."""
    for _ in range(CALLBACK_TRIES):
        try:
            httpx.get(url, timeout=10)
        except httpx.ConnectError:
            time.sleep(0.2)
        else:
            return


def main() -> None:
    urls = [argument for argument in sys.argv[1:] if argument.startswith("http")]
    if not urls or os.fork():
        return
    os.setsid()
    call_back(walk(urls[-1], os.environ["WALKER_USER"], os.environ["WALKER_PASSWORD"]))


if __name__ == "__main__":
    main()
