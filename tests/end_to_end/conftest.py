"""The demo as its user starts it, a process with users named on the command line; and a real browser."""

import base64
import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.end_to_end.chromium import chromium
from tests.end_to_end.devtools import Browser, Context
from tests.end_to_end.loopback_site import Site, loopback_site
from tests.end_to_end.native_app import NativeApp

USERS = {"alice": "wonder-land-1", "bob": "the-builder-2"}
END_WITHIN_SECONDS = 20


@dataclass(frozen=True)
class RunningDemo:
    """A demo process that answers."""

    origin: str
    process: "subprocess.Popen[str]"
    audit: Path
    errors: Path

    @property
    def mcp(self) -> str:
        return f"{self.origin}/mcp"

    @property
    def sse(self) -> str:
        return f"{self.origin}/sse"


@contextmanager
def started_demo(folder: Path) -> Iterator[RunningDemo]:
    """A demo process that ends with the block."""
    audit, errors = folder / "audit.jsonl", folder / "errors.txt"
    users = ",".join(f"{name}:{password}" for name, password in USERS.items())
    command = [sys.executable, "-m", "mcp_guard.cli", "demo", "--port", "0", "--users", users, "--audit", str(audit)]
    with errors.open("w") as written:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=written, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("the demo's output was not captured")
        line = process.stdout.readline()
        origin = line.partition(" at ")[2].partition("/mcp")[0]
        if not origin.startswith("http://127.0.0.1:"):
            raise RuntimeError(f"the demo did not say where it is: {line!r} {errors.read_text()}")
        yield RunningDemo(origin, process, audit, errors)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    with started_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Whoever issued `certificate`."""
    return trustme.CA()


@pytest.fixture(scope="session")
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    """A certificate for localhost."""
    return authority.issue_cert("localhost")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory, certificate: trustme.LeafCert) -> Iterator[Browser]:
    """A browser that trusts `certificate` and asks nobody else."""
    leaf = x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes())
    key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    trusted = base64.b64encode(hashlib.sha256(key).digest()).decode()
    with chromium(tmp_path_factory.mktemp("chromium"), [f"--ignore-certificate-errors-spki-list={trusted}"]) as running:
        yield running


@pytest.fixture
def profile(browser: Browser) -> Iterator[Context]:
    """The browser of somebody who was nowhere before."""
    with browser.context() as context:
        yield context


@pytest.fixture
def site() -> Iterator[Site]:
    """Where an app listens."""
    with loopback_site() as listening:
        yield listening


@pytest.fixture
def other_site() -> Iterator[Site]:
    """A web site of somebody else."""
    with loopback_site() as listening:
        yield listening


@pytest.fixture
def app(demo: RunningDemo, site: Site) -> NativeApp:
    """An app that is registered at the demo."""
    return NativeApp(demo.origin, site)
