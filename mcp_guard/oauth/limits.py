"""Limits of the authorization server: buckets in the store, and the seconds to wait when one is empty."""

import math
from typing import cast

from mcp_guard.oauth.settings import Rate
from mcp_guard.secret import digest
from mcp_guard.stores.base import Bucket, Level, Spend, Store

PREFIX = "mcp:oauth:limit:"


def bucket(name: str, rate: Rate, of: str = "") -> Bucket:
    """The bucket called `name` of one address, user or client; what it is of goes into the key as a digest."""
    return Bucket(f"{PREFIX}{name}:{digest(of)}", rate.count, rate.period)


async def seconds_to_wait(store: Store, *buckets: Bucket) -> int | None:
    """Take one unit from each bucket. None when all had one; else how long to wait, in whole seconds, at least 1.

    Raises:
        StoreUnavailable: the limit is not known, so the request does not go on.
    """
    (levels,) = await store.run([Spend(buckets)])
    waits = [level.retry_after for level in cast("tuple[Level, ...]", levels) if not level.allowed]
    return max(1, math.ceil(max(waits).total_seconds())) if waits else None
