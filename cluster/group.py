"""Clustering actors among themselves: each runs the whole algorithm, and `map` is one exchange.

A Ray call costs milliseconds, an exchange over the actors' own connections a fraction of one;
seeding takes thousands. Every actor works out the driver's part of the algorithm for itself, which
is the same arithmetic on the same parts, so all of them hold the same result.
"""

import pickle
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from cluster.star import Star
from reid.clustering.shards import Shard, ShardPool

P = ParamSpec("P")
T = TypeVar("T")


class GroupPool:
    """A `ShardPool` seen from one of its actors, which are the processes of its group."""

    def __init__(self, shard: Shard, star: Star, *, num_rows: int, num_features: int) -> None:
        self.num_rows = num_rows
        self.num_features = num_features
        self._shard, self._star = shard, star

    def map(
        self, fn: Callable[Concatenate[Shard, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> list[T]:
        """Return `fn(shard, *args, **kwargs)` of every shard, in shard order.

        An error of `fn` on any shard is raised in every actor. Raises PeerLost.
        """
        mine: tuple[bool, Any]
        try:
            mine = True, fn(self._shard, *args, **kwargs)
        except Exception as error:
            mine = False, error
        parts = self._star.all_gather(pickle.dumps(mine, protocol=pickle.HIGHEST_PROTOCOL))
        results = [pickle.loads(part) for part in parts]
        for fine, value in results:
            if not fine:
                raise value
        return [value for _, value in results]

    def run(
        self, fn: Callable[Concatenate[ShardPool, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `fn(self, *args, **kwargs)`: this is beside the rows."""
        return fn(self, *args, **kwargs)
