"""All methods on the built-in worlds under one budget, and what parts of them buy.

    python -m jobs.benchmark methods --seeds 3
    python -m jobs.benchmark methods --worlds person --only spcl mmt --ablations --at-once 8
    python -m jobs.benchmark methods --only core_reid_v2 --vary "core_reid_v2 --batches three"

A network has as many updates in every run, the source stage it starts from included. Each run is a
process of its own, whose memory and processor time are told; finished runs are kept in the storage
folder, so a stopped benchmark goes on.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from cluster.storage import Folder
from jobs import train
from jobs.benchmarks.methods_cases import (
    BOUND,
    DIRECT,
    SOURCE,
    WORLDS,
    Run,
    World,
    cases_of,
    run_of,
    source_run,
    stages_of,
)
from jobs.benchmarks.methods_figure import draw
from jobs.benchmarks.timing import memory_kib
from jobs.console import Show, console
from jobs.tables import percent, spread
from jobs.worlds import draw_worlds
from reid.recipes import RUNS

PROCESS = "process.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """All methods on the built-in worlds under one budget."""

    seeds: int = 3
    """runs of each case, with seeds 1, 2, ..."""
    worlds: tuple[World, ...] = ("person", "vehicle")
    """kinds of things to find again"""
    only: tuple[str, ...] = ()
    """methods to run, by the names of their demo runs; all unless given"""
    ablations: bool = False
    """also run methods with one part off or changed"""
    vary: tuple[str, ...] = ()
    """variants of your own, each a quoted text: a method and options of its run"""
    source_rounds: int = 5
    """rounds of 60 updates of the source stage; vehicles have three times as many"""
    rounds: int = 8
    """rounds of 60 updates behind the source stage (vehicles: three times as many); methods without
    a source stage have both"""
    storage: str = "runs/methods"
    """folder for data and runs"""
    threads: int = 1
    """of a run"""
    at_once: int = 1
    """runs at a time; each takes its threads and about 3 GiB of memory"""
    json: str | None = None
    """file to write the rows to"""
    figure: str | None = None
    """PNG file to draw scores, rounds and parts in; `methods.png` in the storage unless given"""


def measure(options: Options, *, show: Show) -> list[dict[str, Any]]:
    """Run every case; return one row a world, seed and case."""
    least = {"seeds": 1, "source_rounds": 2, "rounds": 1, "threads": 1, "at_once": 1}
    for field, limit in least.items():
        if getattr(options, field) < limit:
            raise ValueError(f"{field} is {getattr(options, field)}; it must be at least {limit}")
    cases = cases_of(options.only, ablations=options.ablations, vary=options.vary)
    places = [(world, seed) for world in options.worlds for seed in range(1, options.seeds + 1)]
    sources, runs = {}, {}
    for at in places:
        times = WORLDS[at[0]].times
        first, then = times * options.source_rounds, times * options.rounds
        sources[at] = source_run(*at, rounds=first)
        runs[at] = [run_of(*at, case, source_rounds=first, rounds=then) for case in (BOUND, *cases)]
    wanted = [run for at in places for run in (sources[at], *runs[at])]
    for run in wanted:
        train.parse(arguments_of(options, run))  # a wrong option ends here
    for world in options.worlds:
        pair, data = WORLDS[world], os.path.join(options.storage, "data")
        names = (pair.source, pair.target)
        draw_worlds(names, data, height=pair.height, width=pair.width, show=show)
    found = summaries_of(options, wanted, show=show)
    rows = []
    for at in places:
        direct = found[sources[at]]["direct_transfer"]
        whole = {run.case.name: found[run]["adapted"] for run in runs[at]}
        for run in (sources[at], *runs[at]):
            method = whole.get(run.case.method) if run.case.changes else None
            rows.append(row_of(run, found[run], direct=direct, method=method))
    draw(rows, Path(options.figure or os.path.join(options.storage, "methods.png")))
    return rows


def summaries_of(options: Options, runs: Sequence[Run], *, show: Show) -> dict[Run, dict[str, Any]]:
    """Make runs, and those they start from, some at a time; return their summaries."""
    stages = stages_of(runs)
    total = sum(map(len, stages))
    found: dict[Run, dict[str, Any]] = {}
    with ThreadPoolExecutor(options.at_once) as threads:
        for stage in stages:
            show("methods", len(found), total, f"{len(stage)} to come, {options.at_once} at a time")
            coming = {threads.submit(trained, options, run): run for run in stage}
            try:
                for future in as_completed(coming):
                    run = coming[future]
                    found[run] = future.result()
                    show("methods", len(found), total, run.name)
                    score = percent(found[run]["rounds"][-1]["mAP"])
                    console.print(f"{run.name}: {score} % mAP", markup=False, highlight=False)
            except BaseException:  # runs that have begun come to their end, others do not begin
                threads.shutdown(wait=False, cancel_futures=True)
                raise
    return found


def arguments_of(options: Options, run: Run) -> list[str]:
    """Return a run as the words of `jobs.train`."""
    named = f"{run.case.method}-demo"
    pair = WORLDS[run.world]
    given = {
        "name": run.name,
        "seed": str(run.seed),
        "source": pair.target if RUNS[named].source == RUNS[named].target else pair.source,
        "target": pair.target,
        "height": str(pair.height),
        "width": str(pair.width),
        "num-rounds": str(run.rounds),
        "eval-every-rounds": "1",
        "cluster.num-workers": "0",
        "cluster.threads-per-worker": str(options.threads),
        "cluster.storage": options.storage,
        "cluster.data-root": os.path.join(options.storage, "data"),
    }
    for field, start in run.starts:
        given[field.replace("_", "-")] = os.path.join(options.storage, start.name)
    words = [word for key, value in given.items() for word in (f"--{key}", value)]
    return [named, *words, *run.case.changes]  # of an option given twice the last one counts


def trained(options: Options, run: Run) -> dict[str, Any]:
    """Return the summary of a run, made by a process of its own, with its `peak_mib` and `cpu_s`.

    The processor time of a run that was stopped and went on is that of its last part.
    """
    summary, process = finished(arguments_of(options, run))
    folder = Folder(options.storage) / run.name
    if folder.exists(PROCESS):  # it had been made before
        process = folder.read_json(PROCESS)
    else:
        folder.write_json(PROCESS, process)
    return {**summary, **process}


def finished(arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, float]]:
    """Run `jobs.train` in a process of its own; return its summary, `peak_mib` and `cpu_s`."""
    command = [sys.executable, "-m", "jobs.benchmarks.methods", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(arguments)
        raise RuntimeError(f"`jobs.train {words}` ended with {done.returncode}: {done.stderr}")
    summary, process = done.stdout.splitlines()[-2:]
    return json.loads(summary), json.loads(process)


def row_of(
    run: Run,
    summary: Mapping[str, Any],
    *,
    direct: Mapping[str, float],
    method: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Return a run's row; `ari` is of the last round that has one.

    Gains are over direct transfer and over the first round. `buys` is what a variant lacks: its
    whole method's mAP minus its own. `curve` is [round, mAP], the source stage's rounds counted.
    """
    before = run.starts[0][1].rounds if run.starts else 0
    scores = summary["adapted"] or summary["direct_transfer"]
    rounds = summary["rounds"]
    agreements = [row["ari"] for row in rounds if row["ari"] is not None]
    return {
        "world": run.world,
        "case": DIRECT if run.case == SOURCE else run.case.name,
        "seed": run.seed,
        "config_hash": summary["config_hash"],
        "mAP": scores["mAP"],
        "rank1": scores["rank1"],
        "gain": scores["mAP"] - direct["mAP"],
        "gain_of_rounds": scores["mAP"] - next(r["mAP"] for r in rounds if r["mAP"] is not None),
        "buys": None if method is None else method["mAP"] - scores["mAP"],
        "curve": [[before + r["round"] + 1, r["mAP"]] for r in rounds if r["mAP"] is not None],
        "round_s": statistics.mean(sum(row["seconds"].values()) for row in rounds),
        "cpu_s": summary["cpu_s"],
        "peak_mib": summary["peak_mib"],
        "ari": agreements[-1] if agreements else None,
    }


def table_of(rows: Sequence[dict[str, Any]]) -> Group:
    """Return a table a world: mean and spread (standard deviation) of each case over seeds.

    In points of mAP: the gain over direct transfer of the same seed, that over the case's own first
    round, and what the part that a variant lacks buys. Times are medians: a run that was stopped
    and went on tells too little.
    """
    worlds = dict.fromkeys(row["world"] for row in rows)
    return Group(*(_table(world, [r for r in rows if r["world"] == world]) for world in worlds))


def _table(world: str, rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=f"built-in worlds, {world} A to B, ResNet-18 from scratch")
    shares = {
        "mAP %": "mAP",
        "gain": "gain",
        "over round 1": "gain_of_rounds",
        "part buys": "buys",
        "rank-1 %": "rank1",
    }
    table.add_column("case", no_wrap=True)
    for column in (*shares, "s a round", "CPU s", "MiB", "ARI"):
        table.add_column(column, justify="right")
    for case in dict.fromkeys(row["case"] for row in rows):
        mine = [row for row in rows if row["case"] == case]
        agreement = [row["ari"] for row in mine if row["ari"] is not None]
        table.add_row(
            case,
            *(spread([r[key] for r in mine if r[key] is not None]) for key in shares.values()),
            f"{statistics.median(row['round_s'] for row in mine):.1f}",
            f"{statistics.median(row['cpu_s'] for row in mine):.0f}",
            f"{max(row['peak_mib'] for row in mine):.0f}",
            f"{statistics.mean(agreement):.2f}" if agreement else "",
        )
    return table


def main(arguments: Sequence[str]) -> None:
    """Do what `jobs.train` does; print its peak memory (MiB) and processor time (s) after it."""
    train.main(arguments)
    print(json.dumps({"peak_mib": memory_kib("VmHWM") / 1024, "cpu_s": time.process_time()}))


if __name__ == "__main__":
    main(sys.argv[1:])
