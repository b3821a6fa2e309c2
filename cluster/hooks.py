"""What surrounds the loop in a run: labels committed to storage, states saved, reports sent."""

import io
import logging
import time
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from cluster import checkpoints, labels, metrics, uploads
from cluster.links import Link
from cluster.storage import Folder
from cluster.uploads import BEST
from reid import dist
from reid.checkpoint import RunState, to_bytes
from reid.clustering import ShardPool
from reid.clustering.guards import check_features, check_labels
from reid.clustering.health import health
from reid.data.steps import ImageStore, ListDraw
from reid.evaluate import Evaluation
from reid.extract import features, rank_rows
from reid.fit import Labelling
from reid.recipes.contract import Recipe
from reid.types import PseudoLabels, Report

log = logging.getLogger(__name__)


def ranking_file(round: int) -> str:
    """Return the name of the file that keeps a round's rankings: `ap` (Q,), `top` (Q,k)."""
    return f"rankings/round={round:04d}.npz"


def best_round(run: Folder) -> int | None:
    """Return the round with the highest mAP on the target's test split, if any was scored."""
    history = run / "history"
    parts = [history.read_json(name) for name in history.names()]
    scored = [(part["metrics"]["mAP"], part["round"]) for part in parts if part["metrics"]]
    return max(scored)[1] if scored else None


class RunHooks:
    """The hooks of one training process."""

    def __init__(
        self,
        run: Folder,
        link: Link,
        *,
        pixels: ImageStore,
        truth: NDArray[np.int64],
        camid: NDArray[np.int64],
        device: torch.device,
        num_rounds: int,
        keep_best: bool,
    ) -> None:
        self.run, self.link, self.keep_best = run, link, keep_best
        self.pixels, self.device = pixels, device
        self.truth, self.camid = truth, camid
        self.round, self.num_rounds = 0, num_rounds
        self.answered: str | None = None

    def label(self, recipe: Recipe, round: int) -> Labelling:
        """Return the round's committed labels; extract and cluster first where there are none.

        A round is a pure function of (weights, round, seed), so labels found in storage are this
        round's, whoever wrote them.
        """
        self.round = round
        if not self.link.agree(lambda: labels.committed(self.run, round) is not None):
            self._extract_and_cluster(recipe, round)
        labelling = labels.committed(self.run, round)
        assert labelling is not None, f"round {round} was committed and is gone"
        return labelling

    def evaluated(self, round: int, found: Evaluation) -> None:
        """Keep each query's average precision and first results, for pictures."""
        if dist.rank() == 0:
            array = io.BytesIO()
            np.savez(array, ap=found.scores.ap, top=found.top)
            self.run.write(ranking_file(round), array.getvalue())

    def report(self, report: Report) -> None:
        """Keep the report beside the labels, from where the driver sends it to MLflow."""
        self.round = report.round + 1
        if dist.rank() == 0:
            uploads.keep(self.run, report)
            metrics.show_report(report, run=self.run.name)
        self.link.report(report)

    def save(self, state: RunState) -> None:
        """Keep the state, and apart from the others when its round scored best so far."""
        # The best one first: who is killed in between repeats the round, and writes both again.
        if self.keep_best and state.step == 0 and best_round(self.run) == state.round - 1:
            self.run.write(BEST, to_bytes(state))
        checkpoints.save(self.run, state)

    def progress(self, what: str, done: int, total: int, *, note: str = "") -> None:
        """Show how far a part of a round is."""
        self.link.progress(f"round {self.round + 1}/{self.num_rounds}: {what}", done, total, note)

    def hurried(self) -> bool:
        """Whether a machine of the group was given notice since the last save: then save now.

        One notice is answered once; training goes on until the machine is gone.
        """
        notice = self.link.notice()
        new = notice is not None and notice != self.answered
        if new:
            log.warning("round %d: %s; saving now", self.round, notice)
        self.answered = notice
        return new

    def _extract_and_cluster(self, recipe: Recipe, round: int) -> None:
        batch_size, num_rows = recipe.config.extract_batch, len(self.pixels)
        rows = rank_rows(num_rows, batch_size=batch_size, rank=dist.rank(), world=dist.world_size())
        started = time.perf_counter()
        mine = features(
            recipe,
            self.pixels,
            rows=rows,
            device=self.device,
            progress=lambda done, total: self.progress("extract", done, total),
        )
        extracted = time.perf_counter()
        seconds = {"extract": extracted - started}

        def solve(pools: Mapping[str, ShardPool]) -> None:
            self.progress("cluster", 0, 1)
            started = time.perf_counter()
            found = _clustered(recipe, pools, round=round)
            clustered = time.perf_counter()
            seconds["exchange"] = started - extracted  # and waiting for the slowest rank
            figures = self._health(found, pools, round=round)
            seconds["cluster"] = clustered - started
            seconds["health"] = time.perf_counter() - clustered
            labels.commit(self.run, round, Labelling(labels=found, seconds=seconds, health=figures))
            self.progress("cluster", 1, 1, note=_note(figures))

        self.link.cluster(mine, rows=rows, num_rows=num_rows, round=round, solve=solve)

    def _health(
        self,
        found: Mapping[str, PseudoLabels],
        pools: Mapping[str, ShardPool],
        *,
        round: int,
    ) -> dict[str, dict[str, float]]:
        """Return the figures of each view, here because the rows are still in the pools."""
        before = labels.committed(self.run, round - 1) if round else None
        return {
            view: health(
                value,
                pool=pools[view],
                camid=self.camid,
                truth=self.truth,
                previous=before.labels[view].labels if before else None,
            )
            for view, value in found.items()
        }


def _clustered(
    recipe: Recipe, pools: Mapping[str, ShardPool], *, round: int
) -> dict[str, PseudoLabels]:
    """Return the recipe's labels between the guard rails: ValueError for what cannot train."""
    names = {view: f"round {round}, view {view}" for view in pools}
    for view, pool in pools.items():
        check_features(pool, name=names[view])
    found = recipe.label(pools, round=round)
    # A list draws single images too, as classes of their own: no batch wants for any.
    drawn = {d.labels: 0 if isinstance(d, ListDraw) else d.num_identities for d in recipe.draws}
    for view, value in found.items():
        labels_of = value.named(view)
        for name in [name for name in labels_of if name in drawn] or [view]:
            wanted = drawn.get(name, 2)
            check_labels(labels_of[name], name=names[view], num_identities=wanted)
    return found


def _note(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return a few words on the first view's clusters."""
    first = next(iter(figures.values()))
    note = f"{first['num_clusters']:.0f} clusters, {first['num_outliers']:.0f} outliers"
    return f"{note}, silhouette {first['silhouette']:.2f}" if "silhouette" in first else note
