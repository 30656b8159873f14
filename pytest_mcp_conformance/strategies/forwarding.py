"""Header fields by which a request claims another host or scheme than the one it was sent to."""

from __future__ import annotations

from urllib.parse import urlsplit

from hypothesis import strategies as st

FORGED = "attacker.example"
Field = tuple[str, str]
_HOST_FIELDS = ("Host", "X-Forwarded-Host", "X-Original-Host", "X-HTTP-Host-Override")
_NAMES = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789"), min_size=1, max_size=8)


def forwarding_classics(url: str) -> list[Field]:
    """The fields that have rewritten the URLs of real servers, for a request to `url`."""
    parts = urlsplit(url)
    other = "http" if parts.scheme == "https" else "https"
    return [
        *((name, FORGED) for name in _HOST_FIELDS),
        ("Host", f"{parts.netloc}.{FORGED}"),
        ("X-Forwarded-Host", f"{parts.netloc}, {FORGED}"),
        ("X-Forwarded-Proto", other),
        ("X-Forwarded-Scheme", other),
        ("X-Forwarded-Ssl", "on" if other == "https" else "off"),
        ("X-Forwarded-Port", "8443"),
        ("X-Forwarded-Prefix", "/attacker"),
        ("Forwarded", f"host={FORGED};proto={other}"),
        ("Forwarded", f'for=192.0.2.7;host="[2001:db8::7]:8443";proto={other}'),
    ]


def forwarding_fields(url: str) -> st.SearchStrategy[Field]:
    """One field with a host under `.example`, with or without a port, alone or in a list with the right one."""
    authority = urlsplit(url).netloc
    hosts = st.one_of(_NAMES.map("{}.example".format), st.builds("{}.example:{}".format, _NAMES, st.integers(1, 65535)))
    lists = hosts.map(lambda host: f"{host}, {authority}")
    return st.one_of(
        st.tuples(st.sampled_from(_HOST_FIELDS), hosts),
        st.tuples(st.just("X-Forwarded-Host"), lists),
        st.tuples(st.just("Forwarded"), hosts.map(lambda host: f'host="{host}"')),
    )
