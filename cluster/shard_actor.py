"""One clustering actor: it holds a shard of each view and runs functions on it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import numpy as np
import ray
from jaxtyping import Float32

from cluster.group import Clock, GroupPool
from cluster.star import Star
from reid import dist
from reid.clustering.shards import Shard, ShardPool

P = ParamSpec("P")
T = TypeVar("T")

Token: TypeAlias = tuple[int, int]
"""(round, generation): generation counts the times the features of a round were sent."""

WATCH = "watch"
"""Ray's concurrency group of the calls that are answered beside the others."""


class ShardNotLoaded(RuntimeError):  # noqa: N818 (a state, as in ShardLost)
    """The actor does not hold all rows of the key and token it was asked for."""


@dataclass
class _Loading:
    """One shard on its way in: `arrived` (n,) tells which rows are there."""

    token: Token
    bounds: tuple[int, int]
    shard: Shard
    arrived: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PoolInfo:
    """What the actors of a pool are told of it: the view, the table, where they meet."""

    key: str
    token: Token
    num_shards: int
    num_rows: int
    num_features: int
    address: tuple[str, int]
    timeout_s: float


class ShardActor:
    """Holds one shard per key (view) and runs functions on it.

    Calls run one after another, but for `seconds_at_work` when it is called in the group `WATCH`.
    """

    def __init__(self) -> None:
        self._clock = Clock()
        self._loadings: dict[str, _Loading] = {}
        self._meetings: dict[tuple[Token, int], Any] = {}
        self._joined: tuple[Token, int] | None = None
        self._star: Star | None = None

    def node_id(self) -> str:
        """Return the id of the node the actor runs on."""
        return str(ray.get_runtime_context().get_node_id())

    def seconds_at_work(self) -> float:
        """Return for how long the actor has been at one thing; 0 when it waits for others."""
        return self._clock.seconds()

    def load(
        self,
        key: str,
        token: Token,
        bounds: tuple[int, int],
        first: int,
        chunk: Float32[np.ndarray, "m D"],
    ) -> None:
        """Copy the table rows from `first` on into the shard of rows `bounds`.

        The first chunk of another token (or other bounds: the same rows over more actors) replaces
        whatever the key held. Chunks come in any order and may be repeated.
        """
        loading = self._loadings.get(key)
        if loading is None or (loading.token, loading.bounds) != (token, bounds):
            start, stop = bounds
            rows = np.empty((stop - start, chunk.shape[1]), dtype=np.float32)
            arrived = np.zeros(stop - start, dtype=bool)
            loading = _Loading(token, bounds, Shard(start, rows), arrived)
            self._loadings[key] = loading
        low = first - loading.shard.start
        loading.shard.features[low : low + len(chunk)] = chunk
        loading.arrived[low : low + len(chunk)] = True

    def apply(
        self,
        key: str,
        token: Token,
        fn: Callable[Concatenate[Shard, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Return `fn(shard, *args, **kwargs)`.

        ShardNotLoaded unless the complete rows of `key` arrived under `token`.
        """
        with self._clock.at_work():
            return fn(self._shard(key, token), *args, **kwargs)

    def meet(self, token: Token, size: int) -> tuple[str, int]:
        """Return where the `size` actors that hold the rows of `token` meet: in this one."""
        host = ray.util.get_node_ip_address()
        if (token, size) not in self._meetings:
            self._meetings = {(token, size): dist.open_meeting(host)}
        return host, self._meetings[token, size].port

    def run(
        self,
        about: PoolInfo,
        rank: int,
        fn: Callable[Concatenate[ShardPool, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T | None:
        """Return `fn(pool, *args, **kwargs)`, as shard `rank` of the pool; None from all but 0.

        All the pool's actors must be asked, each for its rank, and several pools in one order.
        """
        shard = self._shard(about.key, about.token).for_algorithm()
        sizes = {"num_rows": about.num_rows, "num_features": about.num_features}
        star = self._join(about, rank) if about.num_shards > 1 else None
        with self._clock.at_work():
            result = fn(GroupPool(shard, star, self._clock, **sizes), *args, **kwargs)
        return result if rank == 0 else None

    def _join(self, about: PoolInfo, rank: int) -> Star:
        """Return the connections to the pool's other actors, which last as long as its token."""
        size = about.num_shards
        if self._star is None or self._joined != (about.token, size):
            if self._star is not None:
                self._star.close()
            # Twice: who stalls is for the caller to find out, who knows them all.
            at: Any = {"rank": rank, "size": size, "timeout_s": 2 * about.timeout_s}
            store = dist.join(about.address, **at)
            self._star = Star(store, ray.util.get_node_ip_address(), **at)
            self._joined = about.token, size
        return self._star

    def _shard(self, key: str, token: Token) -> Shard:
        loading = self._loadings.get(key)
        if loading is None or loading.token != token:
            held = "nothing" if loading is None else f"token {loading.token}"
            raise ShardNotLoaded(f"shard of {key!r} was asked for token {token} and holds {held}")
        if not loading.arrived.all():
            missing = int((~loading.arrived).sum())
            raise ShardNotLoaded(f"shard of {key!r}, token {token}, still lacks {missing} rows")
        return loading.shard
