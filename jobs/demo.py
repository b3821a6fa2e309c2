"""The main job on built-in data: CORE-ReID V2 from one drawn camera network to another, on Ray.

    python -m jobs.demo [--storage runs] [--num-workers 1] [--num-shards 1]

Draws two worlds of little people, trains a ResNet-18 on the labels of the first, adapts it to the
second without labels, and leaves `demo/summary.json`, `demo/ranking.png`, `demo/rounds.png` and an
MLflow run in the storage folder. Killed at any point, the same command goes on.
"""

import dataclasses
import os
import shlex
import sys
from typing import Annotated

import tyro

from cluster.config import ClusterConfig
from cluster.pipeline import run
from jobs.console import console, exit_codes, progress_bars
from jobs.tables import results_table
from jobs.worlds import draw_worlds
from reid.recipes import RUNS

NAME = "demo"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Where the demo runs."""

    storage: str = "runs"
    """folder for data and runs"""
    num_workers: int = 1
    """training processes; 0 runs in this process, without Ray"""
    num_shards: int = 1
    """clustering actors"""


def place(options: Options) -> ClusterConfig:
    """Return the demo's place: everything below its storage folder, on this machine's cores."""
    cores = len(os.sched_getaffinity(0))
    return ClusterConfig(
        storage=options.storage,
        data_root=os.path.join(options.storage, "data"),
        num_workers=options.num_workers,
        num_shards=options.num_shards,
        threads_per_worker=max(1, cores // max(1, options.num_workers)),
    )


def main(options: Annotated[Options, tyro.conf.arg(name="")]) -> None:
    """Run the demo and say what it found and where it lies."""
    config, where = RUNS["core_reid_v2-demo"], place(options)
    with exit_codes(again="`make demo` goes on from the last checkpoint"), progress_bars() as show:
        worlds = (config.source, config.target)
        draw_worlds(worlds, where.data_root, height=config.height, width=config.width, show=show)
        summary = run(NAME, config, where, show=show)
    console.print(results_table(summary))
    before, after = summary["direct_transfer"]["mAP"], summary["adapted"]["mAP"]
    folder = os.path.join(options.storage, NAME)
    store = shlex.quote(f"sqlite:///{os.path.abspath(options.storage)}/mlflow.db")
    lines = (
        f"mAP on the new network: {100 * before:.1f} % before, {100 * after:.1f} % after adaptation"
        f" without labels ({100 * (after - before):+.1f} points)",
        f"pictures: {folder}/ranking.png, {folder}/rounds.png; figures: {folder}/summary.json",
        f"runs: .venv/bin/mlflow ui --backend-store-uri {store} --port 5000",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(tyro.cli(Options, args=sys.argv[1:], prog="jobs.demo", description=__doc__))
