"""Everything one run works with, wired together once."""

from __future__ import annotations

from collections.abc import Callable

from pytest_mcp_conformance.credentials import Credential, given_accounts, given_tokens
from pytest_mcp_conformance.declarations import read_declarations
from pytest_mcp_conformance.egress import Egress
from pytest_mcp_conformance.failures import Judgement, NotRun
from pytest_mcp_conformance.login import Login
from pytest_mcp_conformance.minting import Mint
from pytest_mcp_conformance.oauth import AuthorizationServer
from pytest_mcp_conformance.options import Settings
from pytest_mcp_conformance.possession import Possession
from pytest_mcp_conformance.probe import Probe
from pytest_mcp_conformance.redaction import Secrets
from pytest_mcp_conformance.target import Target


class Bench:
    """The target, the ways to reach it, and the credentials of one run."""

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        self.settings = settings
        self.secrets = Secrets()
        self.declared = read_declarations(settings.declarations)
        self.mint = Mint(settings.mint_command, self.secrets)
        self._tokens = given_tokens(settings, self.secrets)
        self.probe = Probe(
            Egress(settings.host, settings.authorized_hosts),
            max_requests=settings.max_requests,
            requests_per_second=settings.requests_per_second,
            secrets=self.secrets,
        )
        self.login = Login(settings.login, given_accounts(self.secrets), self.probe, announce)
        self.target = Target(settings, self.probe, lambda: self.credential("a"))
        self.possession = Possession(self.target, self.mint, self.authorization_server, lambda: self.credential("a"))
        self._servers: dict[str, AuthorizationServer] = {}
        self._unobtainable: dict[str, Judgement] = {}

    def credential(self, who: str) -> Credential:
        """The token of user `a` or `b`, else by logging in, once; an `expired` or `upstream` one as given.

        Raises:
            NotRun, Inconclusive: there is none, and why.
        """
        if who in self._unobtainable:
            raise self._unobtainable[who]
        if who not in self._tokens:
            try:
                self._tokens[who] = self._obtain(who)
            except Judgement as judgement:
                self._unobtainable[who] = judgement
                raise
        return self._tokens[who]

    def authorization_server(self) -> AuthorizationServer:
        """The first authorization server the target names.

        Raises:
            NotApplicable: the target names none. Inconclusive: it publishes no metadata.
            NotRun: it may not be contacted.
        """
        self.target.require_protected()
        issuer = self.target.discovery.issuers()[0]
        document = self.target.discovery.server_document(issuer)
        if issuer not in self._servers:
            named = self.target.discovery.resource_document().members.get("resource")
            resource = named if isinstance(named, str) else self.settings.target
            self._servers[issuer] = AuthorizationServer(document, issuer, resource, self.probe, self.login)
        return self._servers[issuer]

    def close(self) -> None:
        """Undo what the run left at the target: sessions and registered clients. End the minting command."""
        self.mint.close()
        for close in (self.target.close, *(server.close for server in self._servers.values())):
            try:
                close()
            except Judgement as judgement:
                self.probe.ledger.not_contacted.setdefault("clean-up", judgement.reason)

    def _obtain(self, who: str) -> Credential:
        if who == "expired":
            raise NotRun("no expired token was given: MCP_CONFORMANCE_TOKEN_EXPIRED is not set")
        if who == "upstream":
            raise NotRun("no token of the service behind was given: MCP_CONFORMANCE_TOKEN_UPSTREAM is not set")
        missing = self.login.missing(who)
        if missing:
            variable = "MCP_CONFORMANCE_TOKEN" + ("" if who == "a" else "_B")
            raise NotRun(f"no access token of user {who}: {variable} is not set, and {missing}")
        return self.authorization_server().credential(who)
