"""Accuracy on the built-in worlds over seeds.

    python -m jobs.benchmark demo --seeds 3

For each seed: direct transfer, CORE-ReID V2, the plain mean teacher under the same budget (same
start, rounds, updates and batch) and the supervised upper bound. Finished runs are kept in the
storage folder, so a stopped benchmark goes on.
"""

import dataclasses
import json
import os
import statistics
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from cluster.config import ClusterConfig
from cluster.pipeline import run
from jobs.console import Show
from jobs.demo import draw_worlds
from jobs.tables import percent
from reid.override import override
from reid.recipes import RUNS, RunConfig

SUPERVISED, DIRECT, BASELINE, OURS = "supervised", "direct transfer", "mean_teacher", "core_reid_v2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Direct transfer, adaptation, mean teacher and supervised bound on the built-in worlds."""

    seeds: int = 3
    """runs of each case, with seeds 1, 2, ..."""
    set: tuple[str, ...] = ()
    """changes of the CORE-ReID V2 run as PATH=VALUE, such as fusion=released"""
    variant: str = ""
    """name of the changed run; needed with --set"""
    storage: str = "runs/benchmark"
    """folder for data and runs"""
    num_workers: int = 0
    """training processes; 0 trains in this process, without Ray"""
    json: str | None = None
    """file to write the rows to"""


def change(config: RunConfig, assignments: Sequence[str]) -> RunConfig:
    """Return the config with PATH=VALUE assignments made; values are JSON or else text."""
    for assignment in assignments:
        path, _, text = assignment.partition("=")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        try:
            config = override(config, path, value)
        except KeyError as error:
            raise ValueError(error.args[0]) from None
    return config


def measure(options: Options, *, show: Show) -> list[dict[str, Any]]:
    """Run every case; return one row a case and seed."""
    if options.set and not options.variant:
        raise ValueError("--set changes the run: give the changed run a name with --variant")
    place = ClusterConfig(
        storage=options.storage,
        data_root=os.path.join(options.storage, "data"),
        num_workers=options.num_workers,
        threads_per_worker=len(os.sched_getaffinity(0)),
    )
    draw_worlds(place.data_root, height=64, width=32, show=show)
    ours = change(RUNS["core_reid_v2-demo"], options.set)
    rows = []
    for seed in range(1, options.seeds + 1):

        def finish(name: str, config: RunConfig, seed: int = seed) -> dict[str, Any]:
            return run(f"{name}-seed{seed}", override(config, "seed", seed), place, show=show)

        source = finish("source", RUNS["source-demo"])
        initial = f"{options.storage}/source-seed{seed}"
        name = f"{OURS}-{options.variant}" if options.variant else OURS
        adapted = finish(name, override(ours, "initial", initial))
        cases = [(DIRECT, source, "direct_transfer"), (name, adapted, "adapted")]
        if not options.variant:
            plain = override(RUNS["mean_teacher-demo"], "initial", initial)
            cases.append((BASELINE, finish(BASELINE, plain), "adapted"))
            bound = finish(SUPERVISED, RUNS["supervised-demo"])
            cases.append((SUPERVISED, bound, "direct_transfer"))
        rows += [
            {
                "case": case,
                "seed": seed,
                "config_hash": summary["config_hash"],
                "mAP": summary[key]["mAP"],
                "gain": summary[key]["mAP"] - source["direct_transfer"]["mAP"],
                "rank1": summary[key]["rank1"],
                "seconds": summary["wall_seconds"],
                "mAP_of_rounds": [row["mAP"] for row in summary["rounds"]],
            }
            for case, summary, key in cases
        ]
    return rows


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """Return mean and spread (standard deviation) of each case over seeds.

    A gain is the distance to direct transfer of the same seed, in points.
    """
    table = Table(title="built-in worlds, person A to B, ResNet-18 from scratch, 64x32")
    for column in ("case", "mAP % by seed", "mAP %", "gain", "least gain", "rank-1 %", "s"):
        table.add_column(
            column, justify="left" if column == "case" else "right", no_wrap=column == "case"
        )
    for case in dict.fromkeys(row["case"] for row in rows):
        mine = [row for row in rows if row["case"] == case]
        table.add_row(
            case,
            " ".join(percent(row["mAP"]) for row in mine),
            spread([row["mAP"] for row in mine]),
            spread([row["gain"] for row in mine]),
            percent(min(row["gain"] for row in mine)),
            spread([row["rank1"] for row in mine]),
            f"{statistics.mean(row['seconds'] for row in mine):.0f}",
        )
    return table


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation in percent."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{percent(statistics.mean(values))} ± {percent(deviation)}"
