"""Whether aud holds this resource: exact membership (RFC 7519 §4.1.3, RFC 8707 §2), unless a fault says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import SplitResult, unquote, urlsplit

from tests.support.model_server.keys import JSON

Has = Callable[[str], bool]


def audience_matches(has: Has, claims: JSON, resource: str, issuer: str) -> bool:
    """Whether the claims name `resource` among their audiences."""
    if has("audience_ignored"):
        return True
    audience = claims.get("aud")
    if audience is None:
        return has("missing_audience_accepted") and "aud" not in claims
    if isinstance(audience, str):
        return _same(has, audience, resource, issuer)
    if not isinstance(audience, list) or has("audience_list_refused"):
        return False
    if not audience and has("empty_audience_accepted"):
        return True
    if has("audience_list_as_text") and resource in ",".join(str(one) for one in audience):
        return True
    if has("nested_audience_accepted") and any(isinstance(one, list) and resource in one for one in audience):
        return True
    if not all(isinstance(one, str) for one in audience):
        return False
    return any(_same(has, one, resource, issuer) for one in audience)


def _same(has: Has, audience: str, resource: str, issuer: str) -> bool:
    if audience == resource:
        return True
    if audience == issuer and (has("issuer_as_audience") or has("tokens_for_the_issuer")):
        return True
    return _as_text(has, audience, resource) or _as_url(has, audience, resource)


def _as_text(has: Has, audience: str, resource: str) -> bool:
    if has("audience_prefix") and audience.startswith(resource):
        return True
    if has("audience_parent") and audience and resource.startswith(audience):
        return True
    if has("audience_suffix") and audience.endswith(urlsplit(resource).netloc + urlsplit(resource).path):
        return True
    if has("audience_any_case") and audience.lower() == resource.lower():
        return True
    return has("audience_percent_decoded") and unquote(audience) == resource


def _as_url(has: Has, audience: str, resource: str) -> bool:
    try:
        theirs, ours = urlsplit(audience), urlsplit(resource)
        _ = theirs.port
    except ValueError:
        return False
    if has("audience_query_ignored") and theirs._replace(query="") == ours:
        return True
    if has("audience_fragment_ignored") and theirs._replace(fragment="") == ours:
        return True
    if has("audience_scheme_ignored") and theirs[1:] == ours[1:]:
        return True
    if has("audience_port_ignored") and _but(theirs, port=True) == _but(ours, port=True):
        return True
    if has("audience_userinfo_ignored") and _but(theirs, port=False) == _but(ours, port=False):
        return True
    return has("audience_origin_only") and theirs[:2] == ours[:2]


def _but(url: SplitResult, *, port: bool) -> tuple[object, ...]:
    """The parts of a URL without its user information and, if asked, without its port."""
    user = url.netloc.rpartition("@")[0] if port else ""
    return (url.scheme, user, url.hostname, None if port else url.port, url.path, url.query, url.fragment)
