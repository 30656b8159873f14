"""Whose handles are: the records of one store, as one principal stands to them.

A handle is bound to the first principal that the app gives it to, and stays bound until its record expires. A record
that was not made here counts as absent: it makes nobody an owner, and it is replaced when the app gives the handle out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from mcp_guard.bindings import bind, owner_prefix, read
from mcp_guard.facts import Principal
from mcp_guard.keyring import KeyRing
from mcp_guard.stores.base import Get, Operation, Put, Renew, Result, Store


class Standing(StrEnum):
    """How a principal stands to a handle; in the words of the audit. Whoever is answered hears of `OWN` alone."""

    OWN = "is the caller's own"
    UNKNOWN = "is unknown"
    FOREIGN = "belongs to another principal"
    CORRUPT = "has a record that was not made here"


@dataclass(frozen=True, slots=True)
class Ownership:
    """One principal before the records of a store. Keys are those of the store, one for each handle."""

    store: Store
    ring: KeyRing
    principal: Principal

    def standing(self, key: str, record: Result) -> Standing:
        """How the principal stands to the handle behind `key`, by the record that the store holds there."""
        if not isinstance(record, bytes):
            return Standing.UNKNOWN
        binding = read(self.ring, key, record)
        if binding is None:
            return Standing.CORRUPT
        return Standing.OWN if binding.belongs_to(self.principal) else Standing.FOREIGN

    async def own(self, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that are the principal's, in one round trip.

        Raises:
            StoreUnavailable: that cannot be known now.
        """
        asked = list(dict.fromkeys(keys))
        if not asked:
            return set()
        records = await self.store.run([Get(key) for key in asked])
        pairs = zip(asked, records, strict=True)
        return {key for key, record in pairs if self.standing(key, record) is Standing.OWN}

    async def bind(self, terms: Mapping[str, timedelta | None], default: timedelta) -> set[str]:
        """Bind the handles behind these keys to the principal. Answers those that are not the principal's after it.

        A term is how long a record lives from now on. None leaves a record that is there as it is; a new one then
        lives for `default`. One round trip, and one more when a record is replaced that was not made here.

        Raises:
            StoreUnavailable: a record may not have been written.
        """
        operations: list[Operation] = []
        prefix = owner_prefix(self.principal)
        for key, term in terms.items():
            operations.append(Put(key, self._record(key), term or default, only_if_absent=True))
            operations.append(Get(key) if term is None else Renew(key, prefix, term))
        results = await self.store.run(operations)
        found = dict(zip(terms, results[1::2], strict=True))
        refused = {key for key, record in found.items() if self.standing(key, record) is not Standing.OWN}
        corrupt = {key for key in refused if self.standing(key, found[key]) is Standing.CORRUPT}
        return refused - await self._replace({key: (found[key], terms[key] or default) for key in corrupt})

    async def _replace(self, corrupt: Mapping[str, tuple[Result, timedelta]]) -> set[str]:
        """Put records of the principal in the place of others. Answers the keys where nobody came between."""
        operations = [
            Put(key, self._record(key), ttl, only_if_equal=record)
            for key, (record, ttl) in corrupt.items()
            if isinstance(record, bytes)
        ]
        written = await self.store.run(operations) if operations else []
        return {operation.key for operation, done in zip(operations, written, strict=True) if done is True}

    def _record(self, key: str) -> bytes:
        return bind(self.ring, key, self.principal)
