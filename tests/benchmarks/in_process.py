"""B1 and B8: the stack and its refusals in process, beside the SDK's own authentication and a raw signature check."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.benchmarks.peers import Exchange, Keys, bare, fastmcp_verifier, guarded, headers, sdk_auth
from tests.benchmarks.timing import microseconds

CALLS = 1_000
AUTHORITY = "127.0.0.1:8000"
URL = f"http://{AUTHORITY}/mcp"


@dataclass(frozen=True)
class Row:
    """One line of the table. `goal` is an upper bound unless `at_least`."""

    name: str
    figure: float
    unit: str
    goal: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        return self.figure >= self.goal if self.at_least else self.figure <= self.goal


async def measure(audit: Path) -> list[Row]:
    """Measure B1 and B8; the audit is written to the file `audit`."""
    keys = Keys()
    token = keys.token(URL)
    behind_guard = guarded(bare, URL, keys, audit)
    await behind_guard.start()
    signature = keys.private.sign(b"message", ec.ECDSA(hashes.SHA256()))
    public = keys.private.public_key()

    async def raw_verify() -> None:
        public.verify(signature, b"message", ec.ECDSA(hashes.SHA256()))

    forged = [token[:-8] + f"{number:08d}" for number in range(10)]
    costs = await microseconds(
        {
            "bare": Exchange(bare, headers(AUTHORITY, None), 200),
            "guard": Exchange(behind_guard, headers(AUTHORITY, token), 200),
            "sdk": Exchange(sdk_auth(bare, URL, keys), headers(AUTHORITY, token), 200),
            "no token": Exchange(behind_guard, headers(AUTHORITY, None), 401),
            "fastmcp": Exchange(sdk_auth(bare, URL, keys, fastmcp_verifier(keys, URL)), headers(AUTHORITY, token), 200),
            "bad signature": Exchange(behind_guard, headers(AUTHORITY, forged[0]), 401),
            "sdk bad signature": Exchange(sdk_auth(bare, URL, keys), headers(AUTHORITY, forged[0]), 401),
            "raw verify": raw_verify,
        },
        CALLS,
    )
    await behind_guard.close()
    added, sdk_added = costs["guard"] - costs["bare"], costs["sdk"] - costs["bare"]
    fastmcp_added = costs["fastmcp"] - costs["bare"]
    return [
        Row("B1 stack over the bare app, token warm", added, "µs", 8.0),
        Row("B1 the SDK's own auth with PyJWT over the bare app", sdk_added, "µs", float("inf")),
        Row("B1 FastMCP's auth with its JWTVerifier over the bare app", fastmcp_added, "µs", float("inf")),
        Row("B1 stack / SDK auth with PyJWT", added / sdk_added, "×", 0.08),
        Row("B1 stack / FastMCP's auth", added / fastmcp_added, "×", float("inf")),
        Row("B8 refusal without a token", costs["no token"], "µs", 30.0),
        Row("B8 refusal of a bad signature / raw verify", costs["bad signature"] / costs["raw verify"], "×", 1.5),
        Row("B8 the SDK's refusal of a bad signature", costs["sdk bad signature"], "µs", float("inf")),
        Row("B8 raw ES256 verify", costs["raw verify"], "µs", float("inf")),
    ]
