"""The minting command of a model server: `python -m tests.support.minting URL`, lines of JSON in, tokens out."""

from __future__ import annotations

import json
import sys
import urllib.request

MINT_PATH = "/-/mint"
SECONDS = 5.0


def mint(url: str, signing_input: str) -> str:
    """The token that the model server at `url` makes of an exact signing input."""
    body = json.dumps({"signing_input": signing_input}).encode()
    request = urllib.request.Request(url + MINT_PATH, body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - the test's own server
        return str(json.load(answer)["access_token"])


def main() -> int:
    for line in sys.stdin:
        print(mint(sys.argv[1], json.loads(line)["signing_input"]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
