"""Suffixes for a path that should name nothing."""

from __future__ import annotations

from hypothesis import strategies as st

PATH_CLASSICS = (
    "/no-such-endpoint",
    "/evil.example",
    "/..%2f..%2fetc/passwd",
    "/%2e%2e/%2e%2e/admin",
    "/../admin",
    "//evil.example/mcp",
    "/https:%2f%2fevil.example",
    "/mcp/%00",
    "/" + "a" * 2000,
)


def path_suffixes() -> st.SearchStrategy[str]:
    """One to three random segments, some percent-encoded, some with dots."""
    segment = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789-_"), min_size=6, max_size=12)
    dotted = st.sampled_from(["..", "%2e%2e", ".", "%2f", "..;"])
    return st.lists(st.one_of(segment, dotted), min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


def path_spelling_classics(path: str) -> list[str]:
    """Other spellings of a path, that some reader takes for it and another does not."""
    first, rest = path[:2], path[2:]
    letter = first[1:]
    return [
        path.upper() if path.upper() != path else path.lower(),
        f"/{path}",
        f"{path}/",
        f"{path}//",
        f"/.{path}",
        f"/x/..{path}",
        f"{path}/.",
        f"{path}/x/..",
        f"/%{ord(letter):02x}{rest}",
        f"/%25{ord(letter):02x}{rest}",
        f"/%2e{path}",
        f"/%2f{path[1:]}",
        f"{path};x=1",
        f"{path}%00",
        f"{path}%20",
        f"\\{path[1:]}",
        f"{path}?",
    ]


def path_spellings(path: str) -> st.SearchStrategy[str]:
    """The path with some characters percent-encoded, in the other case, or with slashes and dots put in."""

    def spell(changes: list[str]) -> str:
        out: list[str] = []
        for letter, change in zip(path, changes, strict=True):
            out.append(_spelled(letter, change))
        return "".join(out)

    ways = st.sampled_from(["", "", "", "encode", "encode twice", "case", "double", "dot"])
    spelled = st.lists(ways, min_size=len(path), max_size=len(path)).map(spell)
    return spelled.filter(lambda candidate: candidate != path and candidate.startswith("/"))


def _spelled(letter: str, change: str) -> str:
    match change:
        case "encode" if letter != "/":
            return f"%{ord(letter):02X}"
        case "encode twice" if letter != "/":
            return f"%25{ord(letter):02X}"
        case "case":
            return letter.swapcase()
        case "double" if letter == "/":
            return "//"
        case "dot" if letter == "/":
            return "/./"
        case _:
            return letter
