"""An issuer and a client of somebody else: the programs in `node`, on packages that `make clients` installs."""

import contextlib
import json
import math
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from mcp_guard.layers.rate_limit import Limit
from mcp_guard.profiles import Limits
from mcp_guard.secret import mint_token
from tests.end_to_end.headless import INSTALLED, NODE
from tests.end_to_end.walker import walk

PROGRAMS = Path(__file__).parent / "node"
REDIRECT = "http://127.0.0.1:3999/callback"
ANSWER_WITHIN_SECONDS = 60
SCOPE = "mcp:tools"
USER, PASSWORD = "alice", "wonder-land-1"

_PLENTY = Limit(1_000_000, timedelta(minutes=1))
UNLIMITED = Limits(address=_PLENTY, principal=_PLENTY, tool=_PLENTY)
"""The tests come from one address, and fast."""


@dataclass
class Program:
    """A program that answers each line with a line of JSON."""

    process: "subprocess.Popen[str]"

    def answer(self) -> Any:
        """Its next line.

        Raises:
            RuntimeError: it has ended, or says nothing for a minute.
        """
        output = self.process.stdout
        if output is None or not select.select([output], [], [], ANSWER_WITHIN_SECONDS)[0]:
            raise RuntimeError("the program did not answer in time")
        line = output.readline()
        if not line:
            raise RuntimeError("the program has ended; what it said is among the errors")
        return json.loads(line)

    def tell(self, line: str) -> None:
        """Give it a line that it does not answer."""
        if self.process.stdin is None:
            raise RuntimeError("the program's input is not open")
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> Any:
        """Its answer to a line."""
        self.tell(line)
        return self.answer()


@contextlib.contextmanager
def program(name: str, settings: Mapping[str, Any]) -> Iterator[Program]:
    """A program of `node` that ends with the block."""
    assert NODE.exists(), "the clients are installed by: make clients"
    environment = {"CLIENTS": str(INSTALLED.parent), "NO_PROXY": "127.0.0.1,localhost"}
    process = subprocess.Popen(
        [str(NODE), str(PROGRAMS / f"{name}.mjs"), json.dumps(settings)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Program(process)
        finally:
            process.kill()


@dataclass(frozen=True)
class Issuer:
    """An issuer that answers at `url`. It knows two clients with `secret`: `guard` and `robot`."""

    url: str
    secret: str
    program: Program

    def rotate(self) -> None:
        """Put a new signing key in front of the old one."""
        self.program.ask("rotate")


@contextlib.contextmanager
def issuer(*, opaque: bool = False, nonces: bool = False) -> Iterator[Issuer]:
    """An issuer whose access tokens are JWTs or opaque, and which may ask for nonces in DPoP proofs."""
    secret = mint_token()
    settings = {"format": "opaque" if opaque else "jwt", "nonces": nonces, "secret": secret}
    with program("issuer", settings) as running:
        yield Issuer(running.answer()["issuer"], secret, running)


@contextlib.contextmanager
def authorized(mcp: str) -> Iterator[Program]:
    """A client that has a code."""
    with program("client", {"mcp": mcp, "redirect_uri": REDIRECT}) as client:
        started = client.answer()
        assert started["bound"], "it registered for bound tokens alone"
        client.tell(walk(started["authorize"], USER, PASSWORD))
        yield client


def let_the_second_end() -> None:
    """Proofs tell whole seconds; one of the second in which the store began counts as one from before it did."""
    began = time.time()
    while time.time() < math.floor(began) + 1:
        time.sleep(0.02)
