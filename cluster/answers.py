"""Waiting for the answers of clustering actors: who was lost, who stalls."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError

from cluster.shard_actor import WATCH, ShardNotLoaded
from reid.dist import PeerLost

ActorHandle: TypeAlias = Any
"""A Ray handle of a `ShardActor`; Ray's handles have no static types."""

_GONE = (RayActorError, ObjectLostError, ShardNotLoaded)
_NEWS_S = 5.0  # seconds in which an actor hears that one it works with is gone
_LOOK_S = 5.0  # seconds in which a living process says what it is doing


class ShardLost(RuntimeError):  # noqa: N818
    """Actors died or came back empty: send the features again under a new generation."""

    def __init__(self, shards: Sequence[int]) -> None:
        super().__init__(list(shards))
        self.shards = list(shards)

    def __str__(self) -> str:
        return (
            f"shards {self.shards} lost their rows (actor died or was restarted): send the "
            "features again with the next generation and repeat"
        )


def nodes_of(actors: Sequence[ActorHandle], timeout_s: float) -> list[str]:
    """Return the ids of the actors' nodes. Raises as `collect`."""
    calls = [(shard, actor.node_id.remote()) for shard, actor in enumerate(actors)]
    return collect(calls, what="asking for the node", nodes=(), timeout_s=timeout_s)


def collect(
    calls: Sequence[tuple[int, Any]], *, what: str, nodes: Sequence[str], timeout_s: float
) -> list[Any]:
    """Return the answers to (shard, reference) calls that do not depend on each other.

    ShardLost names the shards whose actor died or does not hold the rows; TimeoutError those, and
    their nodes, that did not answer within `timeout_s` seconds.
    """
    references = [reference for _, reference in calls]
    try:
        return list(ray.get(references, timeout=timeout_s))
    except GetTimeoutError:
        _, waiting = ray.wait(references, num_returns=len(references), timeout=0)
        late = sorted({shard for shard, reference in calls if reference in waiting})
        raise _stalled(late, what, nodes, timeout_s) from None
    except _GONE as error:
        ready, _ = ray.wait(references, num_returns=len(references), timeout=timeout_s)
        lost = {shard for shard, reference in calls if reference in ready and _is_gone(reference)}
        raise ShardLost(sorted(lost)) from error


def collect_common(
    actors: Sequence[ActorHandle],
    answers: Sequence[Any],
    *,
    what: str,
    nodes: Sequence[str],
    timeout_s: float,
) -> Any:
    """Return the first answer of actors that work together, each waiting for the others.

    That may take long; TimeoutError names the shards, and their nodes, that spent `timeout_s`
    seconds on one thing while the others waited. ShardLost as for `collect`. Either way actors that
    stall are restarted, and all others are free again.
    """
    wait_s = timeout_s
    while True:
        try:
            return ray.get(list(answers), timeout=wait_s)[0]
        except (*_GONE, PeerLost) as error:
            raise ShardLost(_let_go(actors, answers)) from error
        except GetTimeoutError:
            seconds = _seconds_at_work(actors, timeout_s)
        late = [shard for shard, spent in enumerate(seconds) if spent >= timeout_s]
        if late:
            for shard in late:
                ray.kill(actors[shard], no_restart=False)
            _let_go(actors, answers)
            raise _stalled(late, what, nodes, timeout_s)
        wait_s = timeout_s - max(seconds)


def _seconds_at_work(actors: Sequence[ActorHandle], timeout_s: float) -> list[float]:
    """Return for how long each actor has been at one thing; infinity of one that does not say."""
    asked = [actor.seconds_at_work.options(concurrency_group=WATCH).remote() for actor in actors]
    ray.wait(asked, num_returns=len(asked), timeout=min(timeout_s, _LOOK_S))
    return [_said(reference) for reference in asked]


def _said(reference: Any) -> float:
    try:
        return float(ray.get(reference, timeout=0))
    except GetTimeoutError:
        return math.inf
    except RayActorError:  # its own answer will tell
        return 0.0


def _let_go(actors: Sequence[ActorHandle], answers: Sequence[Any]) -> list[int]:
    """End what is left of common work; return the shards without rows, all if none is known.

    Who waits for a lost actor hears of it when its connections end, but in an exchange of large
    parts not everyone is connected to it: those are restarted as well.
    """
    _, waiting = ray.wait(list(answers), num_returns=len(answers), timeout=_NEWS_S)
    lost = []
    for shard, answer in enumerate(answers):
        if answer in waiting:
            ray.kill(actors[shard], no_restart=False)
        if answer in waiting or _is_gone(answer):
            lost.append(shard)
    return lost or list(range(len(actors)))


def _is_gone(reference: Any) -> bool:
    try:
        ray.get(reference)
    except _GONE:
        return True
    except Exception:  # the actor lives, and tells of its own or another's failure
        return False
    return False


def _stalled(
    late: Sequence[int], what: str, nodes: Sequence[str], timeout_s: float
) -> TimeoutError:
    names = [f"{shard} (node {nodes[shard] if nodes else 'unknown'})" for shard in late]
    return TimeoutError(
        f"{what}: no answer in {timeout_s} s from shards {', '.join(names)}; look at those nodes, "
        "or allow more time"
    )
