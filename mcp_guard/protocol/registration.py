"""Client metadata (RFC 7591 §2): what a client may say of itself, and what is kept of it.

Everything here is self-asserted. Members that are not understood are ignored (RFC 7591 §2); members that are understood
must have their type. Members of no use to this server (logos, policies, contacts) are checked and not registered.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_guard.protocol import scopes
from mcp_guard.protocol.redirects import RedirectError, parse_redirect

MAX_REDIRECT_URIS = 10
MAX_TEXT = 2048
"""Characters in a member that is a string."""
MAX_NAME = 200
"""Characters in `client_name`: it is shown to people."""
MAX_ITEMS = 32
"""Items in a member that is an array."""

AUTH_METHODS = ("none", "client_secret_basic")
GRANT_TYPES = ("authorization_code", "refresh_token")
RESPONSE_TYPES = ("code",)

_URLS = ("client_uri", "logo_uri", "tos_uri", "policy_uri", "jwks_uri")
_STRINGS = ("client_name", "scope", "software_id", "software_version", "token_endpoint_auth_method", *_URLS)
_ARRAYS = ("redirect_uris", "grant_types", "response_types", "contacts")
_DPOP_BOUND = "dpop_bound_access_tokens"
_KEPT = ("client_name", "client_uri", "software_id", "software_version")

# Control, format (bidirectional overrides, zero width), surrogate, private use, line and paragraph separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_WEB_URL = re.compile(r"https?://[^\s/?#@\\]+(?:[/?#][^\s\\]*)?")

INVALID_REDIRECT_URI = "invalid_redirect_uri"
INVALID_CLIENT_METADATA = "invalid_client_metadata"


class RegistrationError(ValueError):
    """Metadata that is not accepted. `error` is the code of RFC 7591 §3.2.2; the message is fit for the client."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


@dataclass(frozen=True, slots=True)
class ClientMetadata:
    """What is registered. `scopes` is None when the client named none; `extra` are members kept as they came.

    `dpop_bound` is the member `dpop_bound_access_tokens` (RFC 9449 §5.2).
    """

    redirect_uris: tuple[str, ...]
    auth_method: str
    grant_types: tuple[str, ...]
    response_types: tuple[str, ...]
    scopes: tuple[str, ...] | None
    extra: Mapping[str, str]
    dpop_bound: bool = False

    def members(self) -> dict[str, Any]:
        """The members of the response, in the spelling of RFC 7591 §2."""
        found: dict[str, Any] = {
            "redirect_uris": list(self.redirect_uris),
            "token_endpoint_auth_method": self.auth_method,
            "grant_types": list(self.grant_types),
            "response_types": list(self.response_types),
            **self.extra,
        }
        if self.scopes is not None:
            found["scope"] = " ".join(self.scopes)
        if self.dpop_bound:
            found[_DPOP_BOUND] = True
        return found


def parse_client_metadata(document: object) -> ClientMetadata:
    """Read a registration request.

    Raises:
        RegistrationError: a member that is understood has a value that cannot be served.
    """
    if not isinstance(document, dict):
        raise RegistrationError(INVALID_CLIENT_METADATA, "The request is a JSON object")
    uris = _redirect_uris(document)
    texts = {name: _text(document, name) for name in _STRINGS}
    arrays = {name: _array(document, name) for name in _ARRAYS}
    _check_urls(texts)
    _check_keys(document, texts)
    return ClientMetadata(
        redirect_uris=uris,
        auth_method=_chosen(texts["token_endpoint_auth_method"]),
        grant_types=_listed("grant_types", arrays, GRANT_TYPES, ("authorization_code",), "authorization_code"),
        response_types=_listed("response_types", arrays, RESPONSE_TYPES, ("code",), "code"),
        scopes=_scopes(texts["scope"]),
        extra={name: value for name in _KEPT if (value := texts[name]) is not None},
        dpop_bound=_dpop_bound(document),
    )


def _redirect_uris(document: Mapping[str, Any]) -> tuple[str, ...]:
    uris = document.get("redirect_uris")
    if not isinstance(uris, list) or not 1 <= len(uris) <= MAX_REDIRECT_URIS:
        raise RegistrationError(INVALID_REDIRECT_URI, f"redirect_uris is an array of 1 to {MAX_REDIRECT_URIS} strings")
    for uri in uris:
        if not isinstance(uri, str):
            raise RegistrationError(INVALID_REDIRECT_URI, "Each redirect URI is a string")
        try:
            parse_redirect(uri)
        except RedirectError as fault:
            raise RegistrationError(INVALID_REDIRECT_URI, f"A redirect URI was refused: {fault}") from None
    return tuple(dict.fromkeys(uris))


def _text(document: Mapping[str, Any], name: str) -> str | None:
    """A member that is a string; an empty one counts as absent, as several clients send it for what they lack."""
    value = document.get(name)
    if value is None or value == "":
        return None
    limit = MAX_NAME if name == "client_name" else MAX_TEXT
    if not isinstance(value, str) or len(value) > limit:
        raise RegistrationError(INVALID_CLIENT_METADATA, f"{name} is a string of at most {limit} characters")
    if not is_displayable(value):
        raise RegistrationError(INVALID_CLIENT_METADATA, f"{name} has no control or invisible characters")
    return value


def is_displayable(text: str) -> bool:
    """Whether a person sees what is there: no control, bidirectional, zero-width or separator characters."""
    return all(unicodedata.category(character) not in _INVISIBLE for character in text)


def _array(document: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = document.get(name)
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) > MAX_ITEMS
        or not all(isinstance(item, str) and len(item) <= MAX_TEXT for item in value)
    ):
        raise RegistrationError(INVALID_CLIENT_METADATA, f"{name} is an array of at most {MAX_ITEMS} strings")
    return tuple(dict.fromkeys(value))


def _check_urls(texts: Mapping[str, str | None]) -> None:
    for name in _URLS:
        value = texts[name]
        if value is not None and _WEB_URL.fullmatch(value) is None:
            raise RegistrationError(INVALID_CLIENT_METADATA, f"{name} is an http or https URL")


def _check_keys(document: Mapping[str, Any], texts: Mapping[str, str | None]) -> None:
    keys = document.get("jwks")
    if keys is None:
        return
    if texts["jwks_uri"] is not None:
        raise RegistrationError(INVALID_CLIENT_METADATA, "jwks and jwks_uri exclude each other")
    if not isinstance(keys, dict) or not isinstance(keys.get("keys"), list) or len(keys["keys"]) > MAX_ITEMS:
        raise RegistrationError(INVALID_CLIENT_METADATA, "jwks is a JSON Web Key Set")


def _dpop_bound(document: Mapping[str, Any]) -> bool:
    value = document.get(_DPOP_BOUND, False)
    if not isinstance(value, bool):
        raise RegistrationError(INVALID_CLIENT_METADATA, f"{_DPOP_BOUND} is true or false")
    return value


def _chosen(method: str | None) -> str:
    if method is None:
        return "client_secret_basic"  # RFC 7591 §2: the default when the member is omitted.
    if method not in AUTH_METHODS:
        raise RegistrationError(
            INVALID_CLIENT_METADATA, f"token_endpoint_auth_method is one of {', '.join(AUTH_METHODS)}"
        )
    return method


def _listed(
    name: str,
    arrays: Mapping[str, tuple[str, ...] | None],
    offered: Sequence[str],
    default: tuple[str, ...],
    needed: str,
) -> tuple[str, ...]:
    """`grant_types` and `response_types` go together (RFC 7591 §2.1): code needs authorization_code and the reverse."""
    values = arrays[name]
    if values is None:
        return default
    if needed not in values or not set(values) <= set(offered):
        raise RegistrationError(
            INVALID_CLIENT_METADATA, f"{name} includes {needed} and nothing but {', '.join(offered)}"
        )
    return values


def _scopes(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    try:
        return tuple(sorted(scopes.parse(text)))
    except scopes.ScopeError:
        raise RegistrationError(INVALID_CLIENT_METADATA, "scope is a list with one space between scopes") from None
