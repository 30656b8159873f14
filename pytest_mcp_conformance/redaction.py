"""The one place that knows every live secret of a run, and takes them out of whatever is about to be shown."""

from __future__ import annotations

import base64
import json
import re
import shlex
from urllib.parse import quote, quote_plus

_WINDOW = 12  # characters of a secret in a row that count as a leak of it
_PLACEHOLDER = re.compile(r"\$MCP_[A-Z0-9_]+")
_JWT = re.compile(r"[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_SHORTEST = 4


class Secrets:
    """Secrets by placeholder. Longer ones are replaced first, so that one inside another does not split it.

    A token that was cut, extended or bent is still caught: any `_WINDOW` characters in a row of a long secret (of a
    JWT: of its signature, since its header and claims are not credentials) are replaced by `<part of $NAME>`.
    """

    def __init__(self) -> None:
        self._exact: dict[str, str] = {}
        self._by_start: dict[str, list[str]] = {}
        self._windows: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def add(self, value: str, name: str) -> str:
        """Remember `value` as `$MCP_<name>` and return that placeholder; numbered when the name is taken by another
        value.

        Values of fewer than four characters are not replaced: they would mangle every text.
        """
        if value in self._exact:
            return self._exact[value]
        if len(value) < _SHORTEST:
            return ""
        count = self._counts[name] = self._counts.get(name, 0) + 1
        placeholder = f"$MCP_{name}" if count == 1 else f"$MCP_{name}_{count}"
        for spelling in _spellings(value):
            if spelling not in self._exact:
                self._hold(spelling, placeholder)
        self._hold(value, placeholder)
        self._watch(value, placeholder)
        return placeholder

    def rename(self, value: str, name: str) -> None:
        """As `add`, but the value is known as `$MCP_<name>` from now on even if it had a name."""
        known = self._exact.get(value)
        if known is None:
            self.add(value, name)
            return
        for names in (self._exact, self._windows):
            names.update({spelling: f"$MCP_{name}" for spelling, shown in names.items() if shown == known})

    def redact(self, text: str) -> str:
        """`text` without any secret added so far."""
        starts = {text[at : at + _SHORTEST] for at in range(len(text) - _SHORTEST + 1)}
        possible = [value for start in self._by_start.keys() & starts for value in self._by_start[start]]
        for value in sorted(possible, key=len, reverse=True):
            if value in text:
                text = text.replace(value, self._exact[value])
        return self._redact_parts(text)

    def _hold(self, value: str, placeholder: str) -> None:
        """Replace `value` from now on. Those that a text may hold are found by how they start: a run has thousands."""
        if value not in self._exact:
            self._by_start.setdefault(value[:_SHORTEST], []).append(value)
        self._exact[value] = placeholder

    def shell_word(self, word: str) -> str:
        """`word` redacted and quoted for a POSIX shell so that the placeholders still expand."""
        redacted = self.redact(word)
        if redacted == word:
            return shlex.quote(word)
        pieces: list[str] = []
        end = 0
        for match in _PLACEHOLDER.finditer(redacted):
            if match.start() > end:
                pieces.append(shlex.quote(redacted[end : match.start()]))
            pieces.append(f'"{match[0]}"')
            end = match.end()
        if end < len(redacted):
            pieces.append(shlex.quote(redacted[end:]))
        return "".join(pieces)

    def _watch(self, value: str, placeholder: str) -> None:
        jwt = _JWT.fullmatch(value)
        if jwt is not None and f"{jwt[1]}.{jwt[2]}" not in self._exact:
            self._hold(f"{jwt[1]}.{jwt[2]}", placeholder)
        body = value if jwt is None else jwt[2]
        if len(body) >= 2 * _WINDOW:
            for start in range(len(body) - _WINDOW + 1):
                self._windows.setdefault(body[start : start + _WINDOW], placeholder)

    def _redact_parts(self, text: str) -> str:
        if not self._windows:
            return text
        pieces: list[str] = []
        position = 0
        while position <= len(text) - _WINDOW:
            placeholder = self._windows.get(text[position : position + _WINDOW])
            if placeholder is None:
                pieces.append(text[position])
                position += 1
                continue
            position += _WINDOW
            while self._windows.get(text[position - _WINDOW + 1 : position + 1]) == placeholder:
                position += 1
            pieces.append(f"<part of {placeholder}>")
        return "".join(pieces) + text[position:]


def _spellings(value: str) -> set[str]:
    """The ways `value` is written inside URLs, forms, JSON and Basic credentials."""
    return {
        quote(value, safe=""),
        quote(value),
        quote_plus(value),
        json.dumps(value)[1:-1],
        base64.b64encode(value.encode()).decode(),
        base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    }
