"""What more workers give, and what a round costs the driver: one run by several numbers of workers.

    python -m jobs.benchmark workers [--address HOST:PORT]

The batch, and so the work of a round, is the same for any number of workers, which share it.
Efficiency is what a worker does against the one alone: images a second of whole rounds (extract,
exchange, cluster, train; without scoring), by the number of workers. Workers beyond the machine's
cores cannot be efficient; `possible` is what as many cores would give at most.

The driver's figures are those of this process, from round to round: bytes over its connections
(which it asks for progress four times a second) and memory, its own and what it maps of Ray's
object store. They must not grow with the images: features and labels go past it.
"""

import dataclasses
import itertools
import os
import re
import statistics
import subprocess
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from cluster.config import ClusterConfig
from cluster.pipeline import run
from jobs.benchmarks.timing import memory_kib
from jobs.console import Show
from jobs.worlds import draw_world
from reid.data.synthetic import WorldConfig
from reid.recipes import RUNS, RunConfig

PARTS = ("extract", "exchange", "cluster", "train")
SOURCE = "source-demo"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Throughput of 1, 2, 3 workers with the shares of a round's parts; the driver's own costs."""

    workers: tuple[int, ...] = (1, 2, 3)
    """numbers of workers, for the first number of images"""
    images: tuple[int, ...] = (1024, 4096)
    """numbers of training images, for the first number of workers"""
    rounds: int = 4
    """rounds of a run; the first, in which processes warm up, is not counted"""
    steps: int = 12
    """steps a round"""
    height: int = 64
    """image height, pixels; the width is half of it"""
    num_shards: int = 1
    """clustering actors"""
    address: str | None = None
    """address of a running Ray cluster; None starts one on this machine"""
    tracking_uri: str | None = None
    """MLflow store; None: sqlite in the storage folder"""
    storage: str = "runs/workers"
    """folder for data and runs, shared by all nodes; finished runs are not measured again"""
    json: str | None = None
    """file to write the rows to"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriverUse:
    """What the driver has used when a round ends: bytes over its connections, memory in KiB."""

    num_bytes: int
    own_kib: int
    mapped_kib: int


class Meter:
    """Notes the driver's use at the end of every round, told by the progress it is shown."""

    def __init__(self, show: Show) -> None:
        self._show, self._connections = show, dict[str, int]()
        self.rounds: dict[str, DriverUse] = {}

    def show(self, what: str, done: int, total: int, note: str) -> None:
        """Show progress, and take note of a round's last."""
        self._show(what, done, total, note)
        self._connections |= connections()
        if what.endswith(": train") and done >= total:
            self.rounds[what] = DriverUse(
                num_bytes=sum(self._connections.values()),
                own_kib=memory_kib("RssAnon"),
                mapped_kib=memory_kib("RssShmem"),
            )

    def a_round(self) -> dict[str, float | None]:
        """Return what a round adds: the medians over all but the first."""
        uses = list(self.rounds.values())
        pairs = list(itertools.pairwise(uses[1:]))
        if not pairs:
            return {"driver_kib": None, "driver_own_kib": None, "driver_mapped_kib": None}
        return {
            "driver_kib": statistics.median(b.num_bytes - a.num_bytes for a, b in pairs) / 1024,
            "driver_own_kib": statistics.median(b.own_kib - a.own_kib for a, b in pairs),
            "driver_mapped_kib": statistics.median(b.mapped_kib - a.mapped_kib for a, b in pairs),
        }


def connections() -> dict[str, int]:
    """Return the bytes, both ways, over each TCP connection of this process; none without `ss`."""
    try:
        command = ["ss", "--no-header", "--tcp", "--info", "--processes", "--numeric", "--oneline"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    found = {}
    for line in listed.splitlines():
        if f"pid={os.getpid()}," in line:
            ends = " ".join(line.split()[3:5])
            moved = re.findall(r"bytes_(?:sent|received):(\d+)", line)
            found[ends] = sum(int(number) for number in moved)
    return found


def measure(options: Options, *, show: Show) -> list[dict[str, Any]]:
    """Run every case; return one row each."""
    cases = [(number, options.images[0]) for number in options.workers]
    cases += [(options.workers[0], images) for images in options.images[1:]]
    rows = [_row(number, images, options, show=show) for number, images in cases]
    alone = {row["images"]: row["images_per_s"] for row in rows if row["workers"] == 1}
    cores = len(os.sched_getaffinity(0))
    for row in rows:
        one = alone.get(row["images"])
        row["efficiency"] = None if one is None else row["images_per_s"] / one / row["workers"]
        row["possible"] = min(row["workers"], cores) / row["workers"]
    return rows


def _row(workers: int, images: int, options: Options, *, show: Show) -> dict[str, Any]:
    place = ClusterConfig(
        storage=os.path.join(options.storage, f"images{images}"),
        data_root=os.path.join(options.storage, f"images{images}", "data"),
        num_workers=workers,
        num_shards=options.num_shards,
        # As reserved: there may be fewer cores than processes, which the figures tell.
        cpus_per_worker=0.1,
        cpus_per_shard=0.1,
        threads_per_worker=1,
        loader="torch",
        address=options.address,
        tracking_uri=options.tracking_uri,
        node_metrics_s=0,
    )
    _draw(place.data_root, images, options, show=show)
    small = {"height": options.height, "width": options.height // 2, "num_identities": 12}
    brief = {**small, "num_rounds": 1, "steps_per_round": 2, "eval_every_rounds": 1}
    alone = dataclasses.replace(place, num_workers=0)
    run(SOURCE, _changed(SOURCE, brief), alone, show=show)
    config = _changed(
        "core_reid_v2-demo",
        {
            **small,
            "num_rounds": options.rounds,
            "steps_per_round": options.steps,
            "eval_every_rounds": options.rounds,
            "num_clusters": max(12, images // 32),
            "initial": f"{place.storage}/{SOURCE}",
        },
    )
    meter = Meter(show)
    summary = run(f"workers{workers}", config, place, show=meter.show)
    rounds = [row["seconds"] for row in summary["rounds"][1:]]
    seconds = {part: statistics.median(row[part] for row in rounds) for part in PARTS}
    whole = sum(seconds.values())
    batch = config.num_identities * config.num_instances
    return {
        "workers": workers,
        "images": images,
        "round_s": whole,
        "images_per_s": (images + options.steps * batch) / whole,
        **{f"{part}_share": value / whole for part, value in seconds.items()},
        **meter.a_round(),
    }


def _changed(name: str, changes: Mapping[str, Any]) -> RunConfig:
    return dataclasses.replace(RUNS[name], **changes)


def _draw(data_root: str, images: int, options: Options, *, show: Show) -> None:
    """Write both worlds, with so many training images, unless they are there."""
    for domain in ("a", "b"):
        config = WorldConfig(
            domain=domain, height=options.height, width=options.height // 2,
            num_train_identities=images // 32, num_train_images=images,
            num_test_identities=8, num_distractors=8, num_junk=4,
        )  # fmt: skip
        draw_world(f"synthetic_{domain}", data_root, config, show=show)


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Return a line for each run: throughput, efficiency, shares, the driver's use."""
    table = Table(title="workers: whole rounds, shares of their parts; the driver's part a round")
    for column in ("workers", "images", "round s", "images/s", "efficiency", "possible"):
        table.add_column(column, justify="right")
    for column in (*PARTS, "driver KiB moved", "memory KiB", "mapped KiB"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["workers"]),
            str(row["images"]),
            f"{row['round_s']:.1f}",
            f"{row['images_per_s']:.0f}",
            _percent(row["efficiency"]),
            _percent(row["possible"]),
            *(_percent(row[f"{part}_share"]) for part in PARTS),
            *(_whole(row[f"driver_{what}"]) for what in ("kib", "own_kib", "mapped_kib")),
        )
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
