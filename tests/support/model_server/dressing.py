"""What pages say to browsers, changed where a fault wants it."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

FRAMING = ("content-security-policy", "x-frame-options")
IMAGE = b'<img src="https://tracker.example/pixel.png" alt="">'


def dressed(response: Response, has: Callable[[str], bool]) -> Response:
    """The page as it goes out; redirects go out as they are."""
    if response.media_type != "text/html":
        return response
    headers = response.headers
    if has("pages_frameable") or (has("error_pages_frameable") and response.status_code >= 400):
        for name in FRAMING:
            del headers[name]
    if has("frames_from_anywhere"):
        del headers["x-frame-options"]
        headers["content-security-policy"] = "default-src 'none'; frame-ancestors https:"
    if has("referrer_policy_missing"):
        del headers["referrer-policy"]
    if has("referrer_policy_unsafe"):
        headers["referrer-policy"] = "unsafe-url"
    if has("third_party_images"):
        response.body = bytes(response.body).replace(b"</body>", IMAGE + b"</body>")
        headers["content-length"] = str(len(response.body))
    return response
