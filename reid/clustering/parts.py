"""A table that lies beside the rows of a pool, used as a pool of its own."""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from reid.clustering.shards import Shard, ShardPool

P = ParamSpec("P")
T = TypeVar("T")


class PartPool:
    """A `ShardPool` of `num_rows` rows that the shards of `pool` keep as `Shard`s in `state[key]`.

    Their edges need not be edges of blocks: for algorithms whose sums are exact.
    """

    def __init__(self, pool: ShardPool, key: str, *, num_rows: int) -> None:
        self.num_rows = num_rows
        self.num_features = pool.num_features
        self._pool = pool
        self._key = key

    def map(
        self, fn: Callable[Concatenate[Shard, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> list[T]:
        """Return `fn(part, *args, **kwargs)` of every part, in shard order."""
        return self._pool.map(_on_part, self._key, fn, *args, **kwargs)

    def run(
        self, fn: Callable[Concatenate[ShardPool, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `fn(self, *args, **kwargs)`: the caller already is beside the rows."""
        return fn(self, *args, **kwargs)


def _on_part(
    shard: Shard,
    key: str,
    fn: Callable[Concatenate[Shard, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    return fn(shard.state[key], *args, **kwargs)
