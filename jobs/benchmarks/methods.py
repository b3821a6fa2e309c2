"""All methods on the built-in worlds under one budget, and what parts of them are worth.

    python -m jobs.benchmark methods --seeds 3
    python -m jobs.benchmark methods --worlds person --only spcl mmt --ablations

A run has as many updates in all, the source stage it starts from included. Each is a process of its
own, whose memory and processor time are told; finished runs are kept in the storage folder, so a
stopped benchmark goes on.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Group
from rich.table import Table

from jobs import train
from jobs.benchmarks.demo import spread
from jobs.benchmarks.timing import memory_kib
from jobs.console import Show
from jobs.demo import draw_worlds
from reid.recipes import RUNS

World = Literal["person", "vehicle"]
WORLDS: Mapping[World, tuple[str, str, int, int]] = {
    "person": ("synthetic_a", "synthetic_b", 64, 32),
    "vehicle": ("synthetic_vehicle_a", "synthetic_vehicle_b", 48, 48),
}
"""Source, target, height and width: about as many pixels, so that an update costs the same."""

DIRECT, SUPERVISED = "direct transfer", "supervised"

ABLATIONS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "core_reid_v2, half the clusters": ("core_reid_v2", {"num-clusters": "125"}),
    "core_reid_v2, twice the clusters": ("core_reid_v2", {"num-clusters": "500"}),
    "core_reid_v1, no ECAB": ("core_reid_v1", {"no-ecab": ""}),
    "core_reid_v1, no BMFN": ("core_reid_v1", {"no-bmfn": ""}),
    "lf2, no fusion": ("lf2", {"fusion": "none"}),
    "mmt, no soft terms": ("mmt", {"soft-identity": "0", "soft-triplet": "0"}),
    "inclr, no accuracy weights": ("inclr", {"accuracy": "0"}),
    "inclr, no teaching by the other": ("inclr", {"no-mmt-soft": ""}),
    "spcl, no reliability criterion": ("spcl", {"no-self-paced": ""}),
    "spcl, rows kept over rounds (published)": ("spcl", {"memory": "kept"}),
    "spcl, memory momentum 0": ("spcl", {"memory-momentum": "0"}),
    "spcl, memory momentum 0.8": ("spcl", {"memory-momentum": "0.8"}),
    "cluster_contrast, memory momentum 0.9": ("cluster_contrast", {"memory-momentum": "0.9"}),
    "pplr, labels not refined by parts": ("pplr", {"onehot-weight": "1"}),
    "pplr, parts not smoothed by agreement": ("pplr", {"aals-from": "1000"}),
}
"""A method's run with one part of it off or changed: the options of `jobs.train`."""


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
    source_rounds: int = 5
    """rounds of 60 updates of the source stage"""
    rounds: int = 8
    """rounds of 60 updates behind the source stage; methods without one have both"""
    storage: str = "runs/methods"
    """folder for data and runs"""
    threads: int = 1
    """of a run"""
    json: str | None = None
    """file to write the rows to"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A run to be made: its name in the table, the named run it is, what is changed."""

    name: str
    method: str
    changes: Mapping[str, str] = dataclasses.field(default_factory=dict)


def cases_of(options: Options) -> list[Case]:
    """Return the methods asked for, and their ablations. ValueError for an unknown one."""
    known = [name.removesuffix("-demo") for name in RUNS if name.endswith("-demo")]
    methods = [name for name in known if name not in ("source", SUPERVISED)]
    if unknown := set(options.only) - set(methods):
        raise ValueError(f"there is no method {sorted(unknown)[0]!r}; known are {methods}")
    chosen = [name for name in methods if not options.only or name in options.only]
    cases = [Case(name=name, method=name) for name in chosen]
    if options.ablations:
        cases += [
            Case(name=name, method=method, changes=changes)
            for name, (method, changes) in ABLATIONS.items()
            if method in chosen
        ]
    return cases


def measure(options: Options, *, show: Show) -> list[dict[str, Any]]:
    """Run every case; return one row a world, case and seed."""
    cases = cases_of(options)
    total = len(options.worlds) * options.seeds * (len(cases) + 2)
    rows: list[dict[str, Any]] = []
    for world in options.worlds:
        _, _, height, width = WORLDS[world]
        data = os.path.join(options.storage, "data")
        draw_worlds(data, height=height, width=width, subject=world, show=show)
        for seed in range(1, options.seeds + 1):
            show("methods", len(rows), total, f"{world}, seed {seed}: source")
            rounds = {"num-rounds": str(options.source_rounds)}
            source = trained(options, world, seed, Case(name="source", method="source"), rounds)
            direct = source["direct_transfer"]
            rows.append(row_of(world, DIRECT, seed, source, direct, direct))
            rounds = {"num-rounds": str(options.source_rounds + options.rounds)}
            bound = trained(options, world, seed, Case(name=SUPERVISED, method=SUPERVISED), rounds)
            rows.append(row_of(world, SUPERVISED, seed, bound, bound["direct_transfer"], direct))
            for case in cases:
                show("methods", len(rows), total, f"{world}, seed {seed}: {case.name}")
                summary = trained(options, world, seed, case, starting(options, world, seed, case))
                rows.append(row_of(world, case.name, seed, summary, summary["adapted"], direct))
    show("methods", total, total, "")
    return rows


def starting(options: Options, world: World, seed: int, case: Case) -> dict[str, str]:
    """Return where a method's run starts and how many rounds that leaves it."""
    starts = RUNS[f"{case.method}-demo"].starts
    if not starts:
        return {"num-rounds": str(options.source_rounds + options.rounds)}
    begin: dict[str, str] = {}
    first: dict[str, str] = {}
    for number, field in enumerate(starts):
        own = 1000 * number + seed  # a second start has a seed of its own and begins with the first
        rounds = {"num-rounds": str(options.source_rounds), **first}
        trained(options, world, own, Case(name="source", method="source"), rounds)
        folder = os.path.join(options.storage, run_name(world, "source", own))
        begin[field.replace("_", "-")] = folder
        first = first or {"initial": folder}
    return {**begin, "num-rounds": str(options.rounds)}


def run_name(world: World, case: str, seed: int) -> str:
    """Return the folder of a run below the storage."""
    return f"{world}-{case.replace(', ', '-').replace(' ', '_')}-seed{seed}"


def trained(
    options: Options, world: World, seed: int, case: Case, changes: Mapping[str, str]
) -> dict[str, Any]:
    """Return the summary of a run, made by a process of its own, with its `peak_mib` and `cpu_s`.

    The processor time of a run that was stopped and went on is that of its last part.
    """
    name = run_name(world, case.name, seed)
    kept = Path(options.storage, name, "process.json")
    run = f"{case.method}-demo"
    source, target, height, width = WORLDS[world]
    given = {
        "name": name,
        "seed": str(seed),
        "source": target if RUNS[run].source == RUNS[run].target else source,
        "target": target,
        "height": str(height),
        "width": str(width),
        "eval-every-rounds": "1",
        "cluster.num-workers": "0",
        "cluster.threads-per-worker": str(options.threads),
        "cluster.storage": options.storage,
        "cluster.data-root": os.path.join(options.storage, "data"),
        **changes,
        **case.changes,
    }
    words = [word for key, value in given.items() for word in (f"--{key}", value) if word]
    summary, process = finished([run, *words])
    if kept.exists():  # it had been made before
        process = json.loads(kept.read_text(encoding="utf-8"))
    else:
        kept.write_text(json.dumps(process), encoding="utf-8")
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
    world: World,
    case: str,
    seed: int,
    summary: Mapping[str, Any],
    scores: Mapping[str, float],
    direct: Mapping[str, float],
) -> dict[str, Any]:
    """Return a run's row; `ari` is of the last round that has one."""
    rounds = summary["rounds"]
    agreements = [row["ari"] for row in rounds if row["ari"] is not None]
    return {
        "world": world,
        "case": case,
        "seed": seed,
        "config_hash": summary["config_hash"],
        "mAP": scores["mAP"],
        "rank1": scores["rank1"],
        "gain": scores["mAP"] - direct["mAP"],
        "gain_of_rounds": scores["mAP"] - next(r["mAP"] for r in rounds if r["mAP"] is not None),
        "round_s": statistics.mean(sum(row["seconds"].values()) for row in rounds),
        "cpu_s": summary["cpu_s"],
        "peak_mib": summary["peak_mib"],
        "ari": agreements[-1] if agreements else None,
    }


def table_of(rows: Sequence[dict[str, Any]]) -> Group:
    """Return a table a world: mean and spread (standard deviation) of each case over seeds.

    Gains are in points: over direct transfer of the same seed, and over the case's own first round.
    """
    worlds = dict.fromkeys(row["world"] for row in rows)
    return Group(*(_table(world, [r for r in rows if r["world"] == world]) for world in worlds))


def _table(world: str, rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=f"built-in worlds, {world} A to B, ResNet-18 from scratch")
    columns = ("mAP %", "gain", "over round 1", "rank-1 %", "s a round", "CPU s", "MiB", "ARI")
    table.add_column("case", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for case in dict.fromkeys(row["case"] for row in rows):
        mine = [row for row in rows if row["case"] == case]
        agreement = [row["ari"] for row in mine if row["ari"] is not None]
        table.add_row(
            case,
            spread([row["mAP"] for row in mine]),
            spread([row["gain"] for row in mine]),
            spread([row["gain_of_rounds"] for row in mine]),
            spread([row["rank1"] for row in mine]),
            f"{statistics.mean(row['round_s'] for row in mine):.1f}",
            f"{statistics.mean(row['cpu_s'] for row in mine):.0f}",
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
