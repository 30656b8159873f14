"""Shows the verified principal to the app: in `scope["user"]`, `request.state.user` and the SDK's context variable.

Decides: nothing. Refuses: nothing. Needs the principal. Must stand innermost.

The `mcp` SDK and FastMCP recognise their own user class, so it is used when the SDK is installed; their tools then see
the principal, and their own binding of sessions and of `requestState` works on it. The token itself is not handed on:
`AccessToken.token` holds its fingerprint, because a server that can read the token is invited to pass it along. Each
request has a user of its own, so that nothing an app does to one reaches another request.
"""

from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from mcp_guard.check import Check
from mcp_guard.facts import Principal, Resource
from mcp_guard.layer import Admission, Around, RequestHead


@dataclass(frozen=True, slots=True)
class GuardedUser:
    """The user where the `mcp` SDK is not installed; has the members of Starlette's `BaseUser`."""

    principal: Principal

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return self.principal.subject

    @property
    def identity(self) -> str:
        return self.principal.subject


@dataclass(frozen=True, slots=True)
class GuardedCredentials:
    """What Starlette's `requires` reads: the granted scopes."""

    scopes: list[str]


class Introduction(NamedTuple):
    """A principal in the app's terms; `around` makes it current while the app runs."""

    user: Any
    credentials: GuardedCredentials
    around: Around | None


@dataclass(slots=True)
class Current:
    """Makes a user current in a context variable for as long as it is entered."""

    variable: ContextVar[Any]
    user: Any
    before: Token[Any] = field(init=False, repr=False)

    def __enter__(self) -> None:
        self.before = self.variable.set(self.user)

    def __exit__(self, *fault: object) -> None:
        self.variable.reset(self.before)


Introducer: TypeAlias = Callable[[Principal, str | None], Introduction]


@dataclass(frozen=True)
class Bridge(Check):
    """No settings."""

    needs = (Principal,)

    introduce: Introducer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "introduce", _introducer())

    async def admit(self, request: RequestHead) -> Admission:
        resource = request.get(Resource)
        known = self.introduce(request.fact(Principal), None if resource is None else resource.url)
        state = {**request.scope.get("state", {}), "user": known.user}
        return Admission(
            scope={"user": known.user, "auth": known.credentials, "state": state},
            around=known.around,
        )


def _introducer() -> Introducer:
    """The way to introduce principals: in the SDK's terms where it is installed, in ours otherwise."""
    try:
        from mcp.server.auth.middleware.auth_context import auth_context_var
        from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
        from mcp.server.auth.provider import AccessToken
    except ImportError:
        return _introduce_plainly

    class SdkUser(AuthenticatedUser):
        """The SDK's user; its token is made when the app asks for it."""

        def __init__(self, principal: Principal, resource: str | None) -> None:
            # Past the SDK's own initialiser, which wants the token at once.
            super(AuthenticatedUser, self).__init__(principal.client_id)
            self.principal, self.resource = principal, resource
            self.scopes = sorted(principal.scopes)
            self.made: AccessToken | None = None

        @property
        def access_token(self) -> AccessToken:
            if self.made is None:
                self.made = AccessToken(
                    token=f"sha256:{self.principal.token_fingerprint}",
                    client_id=self.principal.client_id,
                    scopes=self.scopes,
                    expires_at=int(self.principal.expires_at),
                    resource=self.resource,
                    subject=self.principal.subject,
                    claims={**self.principal.claims, "iss": self.principal.issuer},
                )
            return self.made

        @access_token.setter
        def access_token(self, token: AccessToken) -> None:
            self.made = token

    def introduce(principal: Principal, resource: str | None) -> Introduction:
        user = SdkUser(principal, resource)
        return Introduction(user, GuardedCredentials(user.scopes), partial(Current, auth_context_var, user))

    return introduce


def _introduce_plainly(principal: Principal, resource: str | None) -> Introduction:
    return Introduction(GuardedUser(principal), GuardedCredentials(sorted(principal.scopes)), None)
