"""The Ray version of `reid.clustering.shards`: shards live in actors, which `map` calls in turn.

`run` sends a whole algorithm to the actors, where `map` is an exchange among them (`group.py`).

Actors are stateful and Ray restarts them empty. So every call carries a token, (round, generation):
an actor that does not hold the complete rows of exactly that token refuses to compute. The caller
sees `ShardLost`, sends the features again under the next generation and repeats the clustering.
One actor holds one shard of each view; views may be clustered from several threads at once.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import ray
from jaxtyping import Float32
from ray.exceptions import RayError

from cluster.answers import ActorHandle, collect, collect_common, nodes_of
from cluster.shard_actor import WATCH, PoolInfo, ShardActor, Token
from reid.clustering.shards import Shard, ShardPool, as_rows, shard_bounds

P = ParamSpec("P")
T = TypeVar("T")

_CHUNK_BYTES = 64 << 20  # Ray moves objects of 1 to 256 MB best
_SHARED_BYTES = 100_000  # larger arguments go into the object store: once, not once per actor


def start_actors(
    num_shards: int,
    *,
    num_cpus: float = 1,
    num_gpus: float = 0,
    labels: Mapping[str, str] | None = None,
    max_restarts: int = 3,
    timeout_s: float = 120,
) -> list[ActorHandle]:
    """Start `num_shards` shard actors on the connected Ray cluster and wait until they answer.

    They belong to the calling process and end with it. `labels` are those of the nodes they may be
    on. TimeoutError, telling what was asked for and what the cluster has, when they are not all up
    after `timeout_s` seconds.
    """
    # DEFAULT: inside a Tune trial an actor would else be put into the trial's placement group,
    # where there is no room for it. No task retries: a repeated call would meet an empty actor.
    decorate = ray.remote(
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        max_restarts=max_restarts,
        max_task_retries=0,
        scheduling_strategy="DEFAULT",
        label_selector=dict(labels) if labels else None,
        concurrency_groups={WATCH: 1},
    )
    remote = decorate(ShardActor)
    actors = [remote.remote() for _ in range(num_shards)]
    answers = [actor.node_id.remote() for actor in actors]
    ready, waiting = ray.wait(answers, num_returns=num_shards, timeout=timeout_s)
    if waiting:
        stop_actors(actors)
        raise TimeoutError(
            f"{len(ready)} of {num_shards} shard actors started in {timeout_s} s; each asks for "
            f"{num_cpus} CPUs and {num_gpus} GPUs{_on(labels)}, the cluster has "
            f"{ray.cluster_resources()}, free {ray.available_resources()}: start fewer or wait for "
            "nodes"
        )
    try:
        ray.get(answers)  # what could not be made has answered too
    except RayError:
        stop_actors(actors)
        raise
    return actors


def _on(labels: Mapping[str, str] | None) -> str:
    named = ", ".join(f"{name}={value}" for name, value in (labels or {}).items())
    return f" on nodes labelled {named}" if named else ""


def stop_actors(actors: Sequence[ActorHandle]) -> None:
    """End actors that `start_actors` started."""
    for actor in actors:
        ray.kill(actor)


def send_features(
    actors: Sequence[ActorHandle],
    key: str,
    token: Token,
    *,
    num_rows: int,
    start: int,
    features: Any,
    timeout_s: float,
) -> None:
    """Send the table rows from `start` on straight to the actors that own them, and wait for that.

    `features` (m,D) are a rank's consecutive rows, array or tensor of any float type; `num_rows` is
    the size of the whole table, of which every row must be sent once by some rank. Shards without
    rows are completed by the rank that sends row 0. ValueError as for `as_rows` and for rows beyond
    the table; ShardLost and TimeoutError as for `RayShardPool.map`.
    """
    rows = as_rows(features, start=start)
    if start < 0 or start + len(rows) > num_rows:
        raise ValueError(f"rows {start} to {start + len(rows)} are outside a table of {num_rows}")
    nodes = nodes_of(actors, timeout_s)
    bounds = shard_bounds(num_rows, len(actors))
    calls = [
        (shard, actors[shard].load.remote(key, token, bounds[shard], first, chunk))
        for shard, first, chunk in _chunks(bounds, start, rows)
    ]
    collect(calls, what=f"loading {key!r}", nodes=nodes, timeout_s=timeout_s)


def _chunks(
    bounds: Sequence[tuple[int, int]], start: int, rows: Float32[np.ndarray, "m D"]
) -> Iterator[tuple[int, int, Float32[np.ndarray, "c D"]]]:
    """Cut rows that begin at table row `start` by owning shard: (shard, first row, rows)."""
    step = max(1, _CHUNK_BYTES // (4 * rows.shape[1]))
    for shard, (begin, end) in enumerate(bounds):
        if begin == end and start == 0:
            yield shard, begin, rows[:0]
        stop = min(end, start + len(rows))
        for first in range(max(begin, start), stop, step):
            yield shard, first, rows[first - start : min(first + step, stop) - start]


class RayShardPool:
    """A `ShardPool` over actors: the rows that `send_features` sent under one key and token.

    Pools of several keys over the same actors may be used from different threads at once, and so
    may `run` of one: the actors work out one algorithm after another.
    """

    def __init__(
        self,
        actors: Sequence[ActorHandle],
        key: str,
        *,
        num_rows: int,
        num_features: int,
        token: Token,
        timeout_s: float,
    ) -> None:
        self.num_rows = num_rows
        self.num_features = num_features
        self._actors = actors
        self._key = key
        self._token = token
        self._timeout_s = timeout_s
        self._node_ids: Sequence[str] = ()

    def map(
        self, fn: Callable[Concatenate[Shard, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> list[T]:
        """Return `fn(shard, *args, **kwargs)` of every shard, in shard order.

        ShardLost names the shards whose actor died or no longer holds the rows. TimeoutError names
        those (and their nodes) that did not answer within `timeout_s` seconds. Errors of `fn` pass.
        """
        self._node_ids = self._node_ids or nodes_of(self._actors, self._timeout_s)
        shared_args = [_share(value) for value in args]
        shared_kwargs = {name: _share(value) for name, value in kwargs.items()}
        calls = [
            (shard, actor.apply.remote(self._key, self._token, fn, *shared_args, **shared_kwargs))
            for shard, actor in enumerate(self._actors)
        ]
        what = f"{fn.__name__} of {self._key!r}"
        return collect(calls, what=what, nodes=self._node_ids, timeout_s=self._timeout_s)

    def run(
        self, fn: Callable[Concatenate[ShardPool, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `fn(pool, *args, **kwargs)`, run by all actors, `map` being their exchange.

        Raises as `map`, but `timeout_s` is for what a shard does between two exchanges. Afterwards
        the actors take part under the next generation only; those that stalled are restarted.
        """
        self._node_ids = self._node_ids or nodes_of(self._actors, self._timeout_s)
        size = len(self._actors)
        asked: dict[str, Any] = {"nodes": self._node_ids, "timeout_s": self._timeout_s}
        meeting = [(0, self._actors[0].meet.remote(self._token, size))]
        about = PoolInfo(
            key=self._key,
            token=self._token,
            num_shards=size,
            num_rows=self.num_rows,
            num_features=self.num_features,
            address=collect(meeting, what="meeting", **asked)[0],
            timeout_s=self._timeout_s,
        )
        shared_args = [_share(value) for value in args]
        shared_kwargs = {name: _share(value) for name, value in kwargs.items()}
        with _ASKING:  # several views: every actor must meet them in one order
            answers = [
                actor.run.remote(about, shard, fn, *shared_args, **shared_kwargs)
                for shard, actor in enumerate(self._actors)
            ]
        what = f"{fn.__name__} of {self._key!r}"
        result: T = collect_common(self._actors, answers, what=what, **asked)
        return result


_ASKING = threading.Lock()


def _share(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.nbytes > _SHARED_BYTES:
        return ray.put(value)
    return value
