"""Redirect URIs: which may be registered, and when one that is presented is a registered one (RFC 9700 §4.1.3)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
SCRIPTS = ("javascript:", "data:", "vbscript:", "blob:")
_LOOPBACK_REDIRECT = re.compile(r"http://(127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?(/.*)?", re.DOTALL)
_RANGE = re.compile(r"(http://)127(?:\.[0-9]+){1,3}(:.*)", re.DOTALL)
_NATIVE_SCHEME = re.compile(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)+", re.IGNORECASE)

Has = Callable[[str], bool]


def acceptable(uris: list[object], has: Has) -> bool:
    """Whether all of them may be registered."""
    looked_at = uris[:1] if has("second_redirect_unchecked") else uris
    return all(isinstance(one, str) and (_acceptable(one) or _excused(one, has)) for one in looked_at)


def _acceptable(uri: str) -> bool:
    """https, loopback http, or a reverse-domain scheme; nothing tricky."""
    if not uri.isascii() or not uri.isprintable() or set(uri) & set(' \\*"<>#'):
        return False
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if "@" in parts.netloc:
        return False
    if parts.scheme == "https":
        return bool(host)
    return host in LOOPBACK if parts.scheme == "http" else bool(_NATIVE_SCHEME.fullmatch(parts.scheme))


def _excused(uri: str, has: Has) -> bool:
    """Whether a fault lets an unacceptable one be registered."""
    lowered, host = uri.lower(), urlsplit(uri).hostname or ""
    return (
        (has("redirects_may_be_scripts") and lowered.startswith(SCRIPTS))
        or (has("redirects_may_be_files") and lowered.startswith("file:"))
        or (has("scripts_in_odd_case") and lowered.startswith(SCRIPTS) and not uri.startswith(SCRIPTS))
        or (has("redirects_may_be_cleartext") and uri.startswith("http://") and bool(host))
        or (has("local_lookalikes") and uri.startswith(("http://127.0.0.1", "http://localhost")))
        or (has("redirects_may_have_fragments") and uri.startswith("https://") and "#" in uri)
        or (has("redirects_may_be_relative") and uri.startswith("/"))
        or (has("redirects_may_have_wildcards") and "*" in uri)
        or (has("redirects_may_have_users") and uri.startswith("https://") and "@" in uri)
        or (has("dotless_schemes") and re.fullmatch(r"[a-z]{8,}:/.*", uri) is not None)
    )


def owned(presented: str, registered: tuple[str, ...], has: Has) -> bool:
    """Exact comparison, but for the port of a loopback address (RFC 8252 §7.3)."""
    return any(
        presented == one or _same_but_port(presented, one, has) or _near(presented, one, has) for one in registered
    )


def _same_but_port(presented: str, registered: str, has: Has) -> bool:
    """Whether two loopback redirect URIs are one text once the port is cut out of both."""
    if has("loopback_port_fixed") or (has("loopback_port_fixed_in_ipv6") and "[" in registered):
        return False
    if has("loopback_scheme_ignored") and presented.startswith("https://127.0.0.1"):
        presented = f"http{presented[5:]}"
    if has("loopback_range") and _RANGE.fullmatch(presented):
        presented = _RANGE.sub(r"\g<1>127.0.0.1\g<2>", presented)
    ours, theirs = _LOOPBACK_REDIRECT.fullmatch(registered), _LOOPBACK_REDIRECT.fullmatch(presented)
    return ours is not None and theirs is not None and ours.groups() == theirs.groups()


def _near(presented: str, registered: str, has: Has) -> bool:
    """Whether a fault takes one for the other."""
    try:
        theirs, ours = urlsplit(presented), urlsplit(registered)
    except ValueError:
        return False
    same_host = (theirs.scheme, theirs.netloc) == (ours.scheme, ours.netloc)
    return (
        (has("redirect_prefix") and presented.startswith(registered))
        or (has("redirect_host_only") and same_host)
        or (has("redirect_dots_resolved") and same_host and posixpath.normpath(theirs.path) == ours.path)
        or (has("redirect_query_ignored") and presented.partition("?")[0] == registered)
        or (has("redirect_subdomains") and theirs.path == ours.path and theirs.netloc.endswith(f".{ours.netloc}"))
        or (has("redirect_any_case") and presented.lower() == registered.lower())
        or (has("redirect_percent_decoded") and unquote(presented) == registered)
    )
