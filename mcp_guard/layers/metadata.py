"""Publishes the metadata of the protected resources (RFC 9728).

Decides: which document answers a well-known URL. Each resource has its own, at the URL with its path inserted; the URL
without a path has the document of the resource that is the origin itself, or else of the first resource. Refuses with
`method_not_allowed` (405), and with `not_found` (404) every other path below `/.well-known/`: nothing there is the
app's, and none names a resource by accident. Does not: look at a credential, or at any header field. Must stand after:
wire; before origin if pages of any origin may read the documents; before token.

The documents are made when the layer is: nothing of a request ever goes into one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from mcp_guard import rejections
from mcp_guard.asgi import RawHeaders
from mcp_guard.check import Check
from mcp_guard.facts import Resource
from mcp_guard.failures import ConfigurationError
from mcp_guard.layer import ADMITTED, Admission, Answer, RequestHead
from mcp_guard.protocol.metadata import WELL_KNOWN, document, well_known_path
from mcp_guard.protocol.scope_policy import rules_of
from mcp_guard.protocol.uris import PublicUrl

WELL_KNOWN_PREFIX = "/.well-known/"
MAX_AGE_SECONDS = 300

ALLOW: RawHeaders = [(b"allow", b"GET, HEAD")]
ALLOW_PAGES: RawHeaders = [(b"allow", b"GET, HEAD, OPTIONS")]
PREFLIGHT = Answer(
    204,
    headers=[
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", b"GET, HEAD"),
        (b"access-control-allow-headers", b"mcp-protocol-version"),
        (b"access-control-max-age", b"600"),
    ],
)


@dataclass(frozen=True)
class Metadata(Check):
    """`authorization_servers` are issuers, spelled as in their own metadata; the first is the one clients take.

    `scopes_supported` are listed in every document beside all scopes that the resource itself knows. `browser_clients`
    lets pages of any origin read the documents, without cookies. `dpop` and `certificates` say that the stack judges
    proofs of possession and client certificates: then each document tells what its resource wants of them.
    """

    resources: tuple[Resource, ...]
    authorization_servers: tuple[str, ...]
    scopes_supported: frozenset[str] = frozenset()
    documentation: str | None = None
    browser_clients: bool = False
    dpop: bool = False
    certificates: bool = False

    answers: Mapping[str, Answer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.resources:
            raise ConfigurationError("resources: at least one is needed")
        if not self.authorization_servers:
            raise ConfigurationError("authorization_servers: at least one issuer is needed")
        for issuer in self.authorization_servers:
            PublicUrl.parse(issuer, setting="authorization_servers")
        if self.documentation is not None:
            PublicUrl.parse(self.documentation, setting="documentation")
        answers: dict[str, Answer] = {}
        for resource in self.resources:
            path = well_known_path(resource.url)
            if path in answers:
                raise ConfigurationError(f"resources: {resource.url!r} has the same metadata URL as another")
            answers[path] = self._answer(resource)
        answers.setdefault(WELL_KNOWN, self._answer(self.resources[0]))
        object.__setattr__(self, "answers", answers)

    def _answer(self, resource: Resource) -> Answer:
        members = document(
            resource.url,
            self.authorization_servers,
            scopes_supported=self.scopes_supported | rules_of(resource).everything,
            resource_name=resource.name,
            resource_documentation=self.documentation,
            dpop=resource.dpop if self.dpop else "off",
            certificates=resource.certificates if self.certificates else "off",
        )
        body = json.dumps(members, separators=(",", ":")).encode()
        headers: RawHeaders = [
            (b"content-type", b"application/json"),
            (b"cache-control", f"public, max-age={MAX_AGE_SECONDS}".encode()),
        ]
        if self.browser_clients:
            headers.append((b"access-control-allow-origin", b"*"))
        return Answer(200, body, headers)

    async def admit(self, request: RequestHead) -> Admission:
        path = routed_path(request)
        if not path.startswith(WELL_KNOWN_PREFIX):
            return ADMITTED
        answer = self.answers.get(path)
        if answer is None:
            raise rejections.NOT_FOUND.because("no metadata is published at this path")
        if request.method in ("GET", "HEAD"):
            return Admission(answer=answer)
        if self.browser_clients and request.method == "OPTIONS":
            return Admission(answer=PREFLIGHT)
        allow = ALLOW_PAGES if self.browser_clients else ALLOW
        raise rejections.METHOD_NOT_ALLOWED.because("metadata is only read", allow)


def routed_path(request: RequestHead) -> str:
    """The path below the app's mount point: a server told its prefix puts it before well-known paths too."""
    root = request.scope.get("root_path", "")
    if root and request.path.startswith(f"{root}/"):
        return request.path[len(root) :]
    return request.path
