"""Clustering actors among themselves: each runs the whole algorithm, and `map` is one exchange.

A Ray call costs milliseconds, an exchange over the actors' own connections a fraction of one;
seeding takes thousands. Every actor works out the driver's part of the algorithm for itself, which
is the same arithmetic on the same parts, so all of them hold the same result.
"""

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

from cluster.star import Star
from reid.clustering.shards import Shard, ShardPool

P = ParamSpec("P")
T = TypeVar("T")


class Clock:
    """For how long a process has been at one thing; other threads may read it."""

    def __init__(self) -> None:
        self._since: float | None = None

    def seconds(self) -> float:
        """Return the seconds since it began with what it does now; 0 when it does nothing."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Do things in the block, the first from now on."""
        self.next()
        try:
            yield
        finally:
            self.rest()

    def next(self) -> None:
        """Begin with the next thing."""
        self._since = time.monotonic()

    def rest(self) -> None:
        """Wait for others."""
        self._since = None


class GroupPool:
    """A `ShardPool` seen from one of its actors, which are the processes of its group.

    Without a star the actor is alone.
    """

    def __init__(
        self,
        shard: Shard,
        star: Star | None,
        clock: Clock,
        *,
        num_rows: int,
        num_features: int,
    ) -> None:
        self.num_rows = num_rows
        self.num_features = num_features
        self._shard, self._star, self._clock = shard, star, clock

    def map(
        self, fn: Callable[Concatenate[Shard, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> list[T]:
        """Return `fn(shard, *args, **kwargs)` of every shard, in shard order.

        An error of `fn` on any shard is raised in every actor. Raises PeerLost.
        """
        self._clock.next()
        if self._star is None:
            return [fn(self._shard, *args, **kwargs)]
        mine: tuple[bool, Any]
        try:
            mine = True, fn(self._shard, *args, **kwargs)
        except Exception as error:
            mine = False, error
        data = pickle.dumps(mine, protocol=pickle.HIGHEST_PROTOCOL)
        self._clock.rest()
        parts = self._star.all_gather(data)
        self._clock.next()
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
