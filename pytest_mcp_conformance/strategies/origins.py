"""Origin values around an allowed one, and foreign ones; and Host values likewise."""

from __future__ import annotations

from urllib.parse import urlsplit

from hypothesis import strategies as st

_LABELS = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789"), min_size=1, max_size=10)
FOREIGN_ORIGINS = ("https://evil.example", "http://evil.example", "https://evil.example:8443", "http://192.0.2.7")


def origin_classics(origin: str) -> list[str]:
    """Neighbours of `origin` no exact comparison lets through, and the special values; none is an allowed spelling."""
    parts = urlsplit(origin)
    host, port = parts.netloc, parts.port
    bare = parts.hostname or ""
    other_scheme = "http" if parts.scheme == "https" else "https"
    candidates = [
        "null",
        "file://",
        f"{origin}.evil.example",
        f"{origin}@evil.example",
        f"{parts.scheme}://evil.example@{host}",
        f"{parts.scheme}://evil-{host}",
        f"{parts.scheme}://evil.{host}",
        f"{other_scheme}://{host}",
        f"{parts.scheme}://{_bracketed(bare)}:{(port or 443) % 65535 + 1}",
        f"{parts.scheme}://{_bracketed(bare)}.:{port}" if port else f"{origin}.",
        f"{origin}/",
        f"{origin}/path",
        f"{origin}?x",
        f"{origin}#x",
        f"{origin} {FOREIGN_ORIGINS[0]}",
        f"{FOREIGN_ORIGINS[0]} {origin}",
        f"{FOREIGN_ORIGINS[0]}, {origin}",
        f"{parts.scheme}://xn--{bare}-9ya",
        f"{origin}\u00e9",
        f"{parts.scheme}:{host}",
        host,
    ]
    return [*FOREIGN_ORIGINS, *dict.fromkeys(candidate for candidate in candidates if candidate != origin)]


def strangers() -> st.SearchStrategy[str]:
    """Origins that have nothing in common with any server's: hosts under `.example`, by several schemes."""
    schemes = st.sampled_from(["http", "https", "ws", "chrome-extension", "moz-extension"])
    ports = st.integers(1, 65535)
    return st.one_of(
        st.builds("{}://{}.example".format, schemes, _LABELS),
        st.builds("{}://{}.example:{}".format, schemes, _LABELS, ports),
    )


def foreign_origins(origin: str) -> st.SearchStrategy[str]:
    """Origins that are not `origin`: other hosts, and the same host with a label, a port or text added."""
    parts = urlsplit(origin)
    ports = st.integers(1, 65535)
    drawn = st.one_of(
        strangers(),
        ports.map(lambda port: f"{parts.scheme}://{_bracketed(parts.hostname or '')}:{port}"),
        _LABELS.map(lambda label: f"{parts.scheme}://{label}.{parts.netloc}"),
        _LABELS.map(lambda label: f"{parts.scheme}://{parts.netloc}.{label}"),
        _LABELS.map(lambda label: f"{parts.scheme}://{label}{parts.netloc}"),
        st.builds("{}://{}@{}".format, st.just(parts.scheme), _LABELS, st.just(parts.netloc)),
    )
    return drawn.filter(lambda candidate: candidate != origin)


def host_classics(host: str) -> list[str]:
    """Foreign Host values for the server at `host` (a name or address with port): other names, and look-alikes."""
    name, _, port = host.rpartition(":") if ":" in host.rpartition("]")[2] else (host, "", "")
    suffix = f":{port}" if port else ""
    return [
        "evil.example",
        f"evil.example{suffix}",
        f"{name}.evil.example{suffix}",
        f"evil.{name}{suffix}" if not name.startswith("[") else f"evil.example:{port or 80}",
        f"{host}.evil.example",
        f"{host}@evil.example",
        f"evil.example@{host}",
        "192.0.2.7",
        f"192.0.2.7{suffix}",
        f"[2001:db8::7]{suffix}",
    ]


def foreign_hosts(host: str) -> st.SearchStrategy[str]:
    """Host values naming other hosts than `host`, with and without its port."""
    port = host.rpartition("]")[2].rpartition(":")[2]
    suffixes = st.sampled_from(["", f":{port}", ".", f".:{port}"] if port.isdigit() else ["", ".", ":443"])
    return st.builds("{}.example{}".format, _LABELS, suffixes)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
