"""Estimate memory and time of a round of extraction and clustering, for any size and fleet.

    python -m jobs.plan --images 100e6 --gpus 64 --clusters 1e6
    python -m jobs.plan --images 12936 --gpus 0 --nodes 1 --cores 2

Tables and advice are printed, and the same as JSON on standard output. Work is counted by formula;
rates are measured or estimated as jobs/planning/rates.py says, and docs/scale.md tells how far they
are stretched. A factor of two either way is to be expected, more where a rate is used far beyond
what was measured; what it is good for is which variant fits, and what grows how.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import tyro
from rich.table import Table

from jobs.console import console, exit_codes
from jobs.planning import work
from jobs.planning.advice import PLACES, Advice, advise
from jobs.planning.estimate import DBSCAN_STEPS, kmeans_steps, total
from jobs.planning.given import Fleet, Workload
from jobs.planning.words import amount, duration

IMAGES_PER_CLUSTER = 20
"""as in published settings: 18 of Market-1501, 22 of MSMT17"""
GPUS_PER_NODE = 8
GB = 1e9
NUMBER_BYTES = {"float32": 4, "bfloat16": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How much there is, and what it runs on."""

    images: float
    """training images, such as 12936 or 100e6"""
    clusters: float | None = None
    """clusters of k-means; None: one for 20 images"""
    features: int = 2048
    """dimensions of a feature"""
    views: int = 1
    """clusterings a round (CORE-ReID: 3)"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """how features are stored: 4 or 2 bytes a number"""
    iterations: int = 20
    """iterations of Lloyd a clustering"""
    k1: int = 30
    """neighbours of the Jaccard distance"""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = "resnet50"
    """network that extracts"""
    height: int = 256
    """image height in pixels"""
    width: int = 128
    """image width in pixels"""
    gpus: int = 8
    """GPUs (H200) over all nodes; 0: processor cores do everything"""
    nodes: int | None = None
    """nodes; None: one for 8 GPUs, at least 1"""
    cores: int = 96
    """processor cores of a node"""
    gpu_memory_gb: float = 141.0
    """memory of a GPU, GB"""
    host_memory_gb: float = 2000.0
    """memory of a node, GB"""


def whole(name: str, value: float) -> int:
    """Return a count given as a number; ValueError where it is none."""
    if not math.isfinite(value) or value != round(value):
        raise ValueError(f"--{name} is {value}; give a whole number, such as 12936 or 1e6")
    return round(value)


def asked(options: Options) -> tuple[Workload, Fleet]:
    """Return what the options describe; ValueError where that cannot be."""
    images = whole("images", options.images)
    clusters = options.clusters
    load = Workload(
        num_images=images,
        num_features=options.features,
        num_clusters=(
            max(images // IMAGES_PER_CLUSTER, 2)
            if clusters is None
            else whole("clusters", clusters)
        ),
        number_bytes=NUMBER_BYTES[options.precision],
        num_views=options.views,
        iterations=options.iterations,
        k1=options.k1,
        backbone=options.backbone,
        height=options.height,
        width=options.width,
    )
    nodes = options.nodes
    fleet = Fleet(
        num_gpus=options.gpus,
        num_nodes=max(-(-options.gpus // GPUS_PER_NODE), 1) if nodes is None else nodes,
        cores_per_node=options.cores,
        gpu_memory=options.gpu_memory_gb * GB,
        host_memory=options.host_memory_gb * GB,
    )
    return load, fleet


def memory(load: Workload, fleet: Fleet, advice: Advice) -> list[dict[str, Any]]:
    """Return what lies where: bytes in all, and of one GPU or node."""
    stored, actors = advice.stored, fleet.num_devices
    images, clusters, width = load.num_images, float(load.num_clusters), stored.num_features
    coarse, part = work.hierarchy(clusters)
    summed = max(coarse, part) if advice.seeding == "hierarchy" else clusters
    entries = work.jaccard_entries(images, load.k1) * work.SPARSE_ENTRY_BYTES
    shares = {"gpu": fleet.num_gpus, "host": fleet.num_nodes, "files": fleet.num_nodes}

    def row(what: str, where: str, size: float, parts: int) -> dict[str, Any]:
        return {"what": what, "where": where, "bytes": size, "bytes_each": size / parts}

    def copies(what: str, size: float) -> dict[str, Any]:
        return row(what, "each actor", size * actors, actors)

    built = work.feature_bytes(images, load.num_features, 4 + 1) * load.num_views
    return [
        row("decoded images", "disk", load.pixel_bytes, fleet.num_nodes),
        row("features as asked", "", load.all_bytes, fleet.num_links),
        row("features as advised", PLACES[advice.place], stored.all_bytes, shares[advice.place]),
        row("float32 rows, 8-bit codes (built)", "actors", built, actors),
        copies("centres", clusters * width * 4),
        copies("sums of clusters, of all shards", actors * summed * (width * 8 + 16)),
        copies("labels", images * 8.0 * load.num_views),
        copies("neighbour lists", images * load.k1 * 12.0),
        copies("encodings, by row and by column", 2 * entries),
    ]


def memory_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of what lies where."""
    table = Table(title="Memory")
    for column in ("what", "where"):
        table.add_column(column)
    for column in ("in all", "each"):
        table.add_column(column, justify="right")
    for row in rows:
        sizes = (amount(row[key], "B") for key in ("bytes", "bytes_each"))
        table.add_row(row["what"], row["where"], *sizes)
    return table


def time_table(advice: Advice, fleet: Fleet) -> Table:
    """Return the table of steps; those of the advised rounds are bold."""
    table = Table(title=f"A round without training, on {fleet.num_devices} x {fleet.device.name}")
    table.add_column("step")
    for column in ("work", "messages", "time"):
        table.add_column(column, justify="right")
    table.add_column("limit")
    used = {*kmeans_steps(advice.seeding), *DBSCAN_STEPS, "decode"}
    for name, step in advice.steps.items():
        table.add_row(
            *(step.name, amount(step.work, step.unit), f"{step.messages:,}"),
            *(duration(step.seconds), step.limit),
            style="bold" if name in used else "dim",
        )
    table.add_section()
    for name, seconds in totals(advice).items():
        table.add_row(f"round: {name}", "", "", duration(seconds), "", style="bold")
    return table


def totals(advice: Advice) -> dict[str, float]:
    """Return the seconds of a round, by how it clusters; training not counted."""
    return {
        "k-means": total(advice.steps, kmeans_steps(advice.seeding)),
        "Jaccard, DBSCAN": total(advice.steps, DBSCAN_STEPS),
    }


def main(options: Options) -> None:
    """Estimate, print."""
    with exit_codes():
        load, fleet = asked(options)
        advice = advise(load, fleet)
    rows = memory(load, fleet, advice)
    console.print(
        f"images: {load.num_images:,}, clusters: {load.num_clusters:,}, views: {load.num_views}, "
        f"dimensions: {load.num_features}",
        highlight=False,
    )
    console.print(memory_table(rows))
    console.print(time_table(advice, fleet))
    for reason in advice.reasons:
        console.print(f"* {reason}", markup=False, highlight=False, soft_wrap=True)
    result = {
        "workload": dataclasses.asdict(load),
        "fleet": dataclasses.asdict(fleet),
        "advice": {
            "seeding": advice.seeding,
            "place": advice.place,
            "num_features": advice.stored.num_features,
            "number_bytes": advice.stored.number_bytes,
            "reasons": advice.reasons,
        },
        "memory": rows,
        "steps": {name: dataclasses.asdict(step) for name, step in advice.steps.items()},
        "seconds": totals(advice),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(tyro.cli(Options, args=sys.argv[1:], prog="jobs.plan", description=__doc__))
