"""How a training process reaches what surrounds it: clustering pool, controller, screen.

`LocalLink` is a single process with everything at hand. `RayLink` is one rank of a Ray Train group.
"""

import dataclasses
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from jaxtyping import Float32
from torch import Tensor

from cluster import metrics
from cluster.answers import ActorHandle, ShardLost
from cluster.shard_actor import Token
from cluster.shards import RayShardPool, send_features
from reid import dist
from reid.clustering import ShardPool, split
from reid.types import Report

T = TypeVar("T")
Solve = Callable[[Mapping[str, ShardPool]], None]
Progress = Callable[[str, int, int, str], None]
"""Called with (what, done, total, note)."""

log = logging.getLogger(__name__)

MAX_GENERATIONS = 5
"""how often a round's features are sent before lost shards end the run"""
RESTART_PAUSE_S = 2.0
"""seconds Ray gets to restart an actor, doubled at each sending"""


class Link(Protocol):
    """What a training process may ask of its surroundings; every rank calls in step."""

    def agree(self, compute: Callable[[], T]) -> T:
        """Return rank 0's small JSON value on every rank; the others wait without the device."""
        ...

    def cluster(
        self,
        features: Mapping[str, Float32[Tensor, "n D"]],
        *,
        rows: range,
        num_rows: int,
        round: int,
        solve: Solve,
    ) -> None:
        """Spread this rank's rows over the pool and let rank 0 solve; return when it has."""
        ...

    def report(self, report: Report) -> None:
        """Tell those who watch the run that a stretch of training is over (all ranks meet)."""
        ...

    def notice(self) -> str | None:
        """Return what was heard of machines that will be taken away, the same on every rank."""
        ...

    def progress(self, what: str, done: int, total: int, note: str) -> None:
        """Show how far the work is."""
        ...


@dataclass(frozen=True, kw_only=True)
class LocalLink:
    """One process: shards in memory."""

    num_shards: int
    show: Progress
    listen: Callable[[Report], None] | None = None

    def agree(self, compute: Callable[[], T]) -> T:
        """Return the value."""
        return compute()

    def cluster(
        self,
        features: Mapping[str, Float32[Tensor, "n D"]],
        *,
        rows: range,
        num_rows: int,
        round: int,
        solve: Solve,
    ) -> None:
        """Solve over local shards."""
        assert len(rows) == num_rows
        solve({view: split(matrix, self.num_shards) for view, matrix in features.items()})

    def report(self, report: Report) -> None:
        """Tell the listener; what is kept in the run's folder is all there is to know."""
        if self.listen is not None:
            self.listen(report)

    def notice(self) -> str | None:
        """Return None: nobody tells a process on its own."""
        return None

    def progress(self, what: str, done: int, total: int, note: str) -> None:
        """Show how far the work is."""
        self.show(what, done, total, note)


@dataclass(frozen=True, kw_only=True)
class RayLink:
    """One rank of a Ray Train worker group; actors and the progress board belong to the driver."""

    actors: list[ActorHandle]
    board: Any
    timeout_s: float

    def agree(self, compute: Callable[[], T]) -> T:
        """Return rank 0's value on every rank, through an actor: no collective is outstanding."""
        from ray.train import collective

        value = compute() if dist.rank() == 0 else None
        agreed: T = collective.broadcast_from_rank_zero(value)
        return agreed

    def cluster(
        self,
        features: Mapping[str, Float32[Tensor, "n D"]],
        *,
        rows: range,
        num_rows: int,
        round: int,
        solve: Solve,
    ) -> None:
        """Send rows to the actors that own them and solve on rank 0, again when a shard is lost.

        Every rank keeps its features until the round is solved, so a lost shard costs a new sending
        under a new generation and no result changes.
        """
        for generation in range(MAX_GENERATIONS):
            token = (round, self.agree(_new_generation))
            sent = self._send(features, rows=rows, num_rows=num_rows, token=token)
            everyone_sent = bool(dist.all_gather_rows(torch.tensor([sent])).all())
            pools = self._pools(features, num_rows=num_rows, token=token)
            solved = everyone_sent and self.agree(partial(_solved, solve, pools))
            if dist.rank() == 0:
                metrics.show_pool(num_actors=len(self.actors), sendings=generation + 1)
            if solved:
                return
            log.warning("round %d: shards were lost in sending %d", round, generation + 1)
            time.sleep(RESTART_PAUSE_S * 2**generation)
        raise RuntimeError(
            f"shards were lost in {MAX_GENERATIONS} sendings of round {round}'s features; look at "
            "the nodes of the clustering actors, or give them more memory"
        )

    def report(self, report: Report) -> None:
        """Hand the report to the controller, for its callbacks (all ranks meet here)."""
        import ray.train

        ray.train.report(dataclasses.asdict(report) if dist.rank() == 0 else {})

    def notice(self) -> str | None:
        """Return which nodes Ray will lose and when, from rank 0, through an actor."""
        import ray.train

        found = ray.train.get_preemption_info()
        if found is None:
            return None
        nodes = ", ".join(found.preempted_node_ids)
        return f"ranks {found.preempted_ranks} on {nodes} will be gone by {found.deadline_ms} ms"

    def progress(self, what: str, done: int, total: int, note: str) -> None:
        """Tell the driver's board, from rank 0, without waiting."""
        if dist.rank() == 0:
            self.board.show.remote(what, done, total, note)

    def _send(
        self,
        features: Mapping[str, Float32[Tensor, "n D"]],
        *,
        rows: range,
        num_rows: int,
        token: Token,
    ) -> bool:
        try:
            for view, matrix in features.items():
                send_features(
                    self.actors,
                    view,
                    token,
                    num_rows=num_rows,
                    start=rows.start,
                    features=matrix,
                    timeout_s=self.timeout_s,
                )
        except ShardLost:
            return False
        return True

    def _pools(
        self, features: Mapping[str, Float32[Tensor, "n D"]], *, num_rows: int, token: Token
    ) -> dict[str, ShardPool]:
        return {
            view: RayShardPool(
                self.actors,
                view,
                num_rows=num_rows,
                num_features=matrix.shape[1],
                token=token,
                timeout_s=self.timeout_s,
            )
            for view, matrix in features.items()
        }


def _solved(solve: Solve, pools: Mapping[str, ShardPool]) -> bool:
    try:
        solve(pools)
    except ShardLost:
        return False
    return True


def _new_generation() -> int:
    """Return a number no earlier sending had, also not one before a restart of the workers."""
    return secrets.randbits(40)
