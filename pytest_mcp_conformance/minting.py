"""Tokens that only the issuer can make: the operator's own command signs what a check asks for.

The command is started once. For each token it reads a line of JSON, `{"signing_input": …, "header": {…},
"claims": {…}}`, where `signing_input` is the exact text to sign (RFC 7515 §5.1, step 5) and the other two say what is
in it. It answers with a line that holds the token, or an empty line when it cannot make it.
"""

from __future__ import annotations

import contextlib
import json
import queue
import shlex
import subprocess
import threading
from typing import IO

from pytest_mcp_conformance.failures import Inconclusive, NotRun
from pytest_mcp_conformance.forge.jws import Json, b64url, dump, read_jws
from pytest_mcp_conformance.options import PREFIX
from pytest_mcp_conformance.redaction import Secrets

ANSWER_SECONDS = 10.0


class Mint:
    """One per run. `command` is empty when the operator gave none."""

    def __init__(self, command: str, secrets: Secrets) -> None:
        self._command = command
        self._secrets = secrets
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    @property
    def available(self) -> bool:
        """Whether the operator gave a command."""
        return bool(self._command)

    def token(self, header: Json | bytes, claims: Json | bytes) -> str:
        """A token with this header and these claims, signed with the issuer's key. Bytes are signed as they stand.

        Raises:
            NotRun: the operator gave no command, or it cannot make this token. Inconclusive: it broke, did not answer
                within `ANSWER_SECONDS`, or made another token than it was asked for.
        """
        if not self.available:
            raise NotRun(f"no means to mint tokens: {PREFIX}-mint-command was not given")
        signing_input = f"{b64url(dump(header))}.{b64url(dump(claims))}"
        told = {"header": _members(header), "claims": _members(claims)}
        token = self._ask(json.dumps({"signing_input": signing_input, **told}))
        if not token:
            raise NotRun("the minting command cannot make such a token")
        made = read_jws(token)
        if not token.startswith(f"{signing_input}.") and (
            isinstance(header, bytes)
            or isinstance(claims, bytes)
            or made is None
            or {"header": made.header, "claims": made.claims} != told
        ):
            raise Inconclusive("the minting command made another token than it was asked for")
        self._secrets.add(token, "MINTED")
        return token

    def close(self) -> None:
        """End the command."""
        if self._process is None or self._reader is None:
            return
        self._process.kill()
        self._process.wait()
        self._reader.join(ANSWER_SECONDS)
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # unsent bytes for a command that has ended
                _pipe(stream).close()
        self._process = None

    def _ask(self, line: str) -> str:
        process = self._process or self._start()
        try:
            _pipe(process.stdin).write(f"{line}\n")
            _pipe(process.stdin).flush()
            answer = self._answers.get(timeout=ANSWER_SECONDS)
        except (OSError, queue.Empty) as error:
            raise Inconclusive(f"the minting command did not answer ({type(error).__name__})") from None
        if answer is None:
            self._answers.put(None)
            raise Inconclusive("the minting command did not answer (it has ended)")
        return answer.strip()

    def _start(self) -> subprocess.Popen[str]:
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the operator's own command
                shlex.split(self._command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        except (OSError, ValueError) as error:
            raise Inconclusive(f"the minting command could not be started ({type(error).__name__})") from None
        self._reader = threading.Thread(
            target=self._read, args=(_pipe(self._process.stdout),), daemon=True, name="minting"
        )
        self._reader.start()
        return self._process

    def _read(self, answers: IO[str]) -> None:
        for answer in answers:
            self._answers.put(answer)
        self._answers.put(None)


def _members(value: Json | bytes) -> object:
    if not isinstance(value, bytes):
        return dict(value)
    try:
        return json.loads(value)
    except ValueError:
        return None


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise ValueError("the command has no such pipe")
    return stream
