"""A round of extraction and clustering, step by step: what it does, and what that takes.

Legend: N images, d feature dimensions, K clusters.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from jobs.planning import rates, work
from jobs.planning.given import Fleet, Place, Workload
from jobs.planning.rates import Law

Seeding = Literal["greedy", "parallel", "hierarchy"]

SAMPLED_ROWS = 512
"""rows of the label-free scores (SAMPLE of reid.clustering.scores)"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an algorithm does, whatever it runs on.

    `operations` of the law that counts them, `passes` over the features, `messages` one after
    another, `link_bytes` through each link of the network.
    """

    name: str
    law: Literal["seeding", "lloyd", "neighbors"]
    operations: float
    passes: float
    messages: float
    link_bytes: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """A part of a round on a fleet: work in `unit`, seconds, and which part of it takes longest."""

    name: str
    work: float
    unit: str
    messages: int
    seconds: float
    limit: str


def costs(load: Workload, num_links: int) -> dict[str, Cost]:
    """Return what the variants of clustering do."""
    return {
        **_seeding_costs(load, num_links),
        **_lloyd_costs(load),
        "neighbors": _neighbor_cost(load),
    }


def _seeding_costs(load: Workload, num_links: int) -> dict[str, Cost]:
    views, clusters = load.num_views, load.num_clusters
    size = (load.num_images, load.num_features, clusters)
    coarse, _ = work.hierarchy(clusters)
    return {
        "seed_greedy": Cost(
            name="seed, greedy",
            law="seeding",
            operations=views * work.seeding_flops(*size),
            passes=clusters / work.SEEDING_BLOCK,
            messages=views * clusters,
        ),
        "seed_parallel": Cost(
            name="seed, parallel",
            law="seeding",
            operations=views * work.parallel_seeding_flops(*size),
            passes=work.PARALLEL_ROUNDS,
            messages=views * 2 * work.PARALLEL_ROUNDS,
        ),
        "seed_hierarchy": Cost(
            name="seed, hierarchy",
            law="seeding",
            operations=views * work.hierarchy_seeding_flops(*size),
            passes=2 * coarse / work.SEEDING_BLOCK,
            messages=views * coarse,
            link_bytes=load.all_bytes / num_links,  # rows go to the owners of their cells
        ),
    }


def _lloyd_costs(load: Workload) -> dict[str, Cost]:
    views, rounds = load.num_views, load.iterations
    size = (load.num_images, load.num_features, load.num_clusters)
    coarse, _ = work.hierarchy(load.num_clusters)

    def summed(clusters: float) -> float:
        """Return the bytes of float64 sums of the clusters' rows, there and back."""
        return views * rounds * 2 * 8 * clusters * load.num_features

    return {
        "lloyd_flat": Cost(
            name=f"Lloyd x {rounds}",
            law="lloyd",
            operations=views * rounds * work.lloyd_flops(*size),
            passes=rounds,
            messages=views * rounds,
            link_bytes=summed(load.num_clusters),
        ),
        "lloyd_hierarchy": Cost(
            name=f"Lloyd x {rounds}, hierarchy",
            law="lloyd",
            operations=views * rounds * work.hierarchy_lloyd_flops(*size),
            passes=2 * rounds,
            messages=views * rounds,
            link_bytes=summed(coarse),
        ),
    }


def _neighbor_cost(load: Workload) -> Cost:
    return Cost(
        name="neighbours, exact",
        law="neighbors",
        operations=work.neighbor_flops(load.num_images, load.num_features),
        passes=1 / load.num_views,
        messages=1,
        link_bytes=load.view_bytes,  # every device sees all rows, handed round
    )


def steps(load: Workload, fleet: Fleet, place: Place) -> dict[str, Step]:
    """Return every step, each variant by its name, with features stored at `place`."""
    reading = load.all_bytes / fleet.bytes_per_s(place)
    found = {"decode": _decoding(load, fleet), "extract": _extraction(load, fleet)}
    for key, cost in costs(load, fleet.num_links).items():
        law: Law = getattr(fleet.device, cost.law)
        found[key] = _step(
            cost.name,
            cost.operations,
            messages=cost.messages,
            hidden={
                "arithmetic": law(cost.operations / fleet.num_devices),
                "reading": cost.passes * reading,
            },
            added={
                "network": cost.link_bytes / rates.NETWORK_BYTES_PER_S * (fleet.num_links > 1),
                "messages": cost.messages * fleet.device.exchange_s * (fleet.num_devices > 1),
            },
        )
    return found | _core_steps(load, fleet)


def _core_steps(load: Workload, fleet: Fleet) -> dict[str, Step]:
    """Return the steps that run on processor cores whatever the devices."""
    adds = work.jaccard_adds(load.num_images, load.k1)
    rows = load.num_images + load.num_clusters
    flops = load.num_views * work.lloyd_flops(SAMPLED_ROWS, load.num_features, rows)
    return {
        "jaccard": _step(
            f"Jaccard, DBSCAN, k1 = {load.k1}",
            adds,
            unit=" adds",
            hidden={"arithmetic": rates.JACCARD_CORE(adds / fleet.num_cores)},
        ),
        "health": _step(
            "label-free scores",
            flops,
            messages=load.num_views * 2,
            hidden={"arithmetic": rates.CPU_CORE.neighbors(flops / fleet.num_cores)},
        ),
    }


def _decoding(load: Workload, fleet: Fleet) -> Step:
    return _step(
        "decode images, once",
        load.num_images,
        unit=" images",
        hidden={
            "arithmetic": load.num_images / (rates.DECODED_IMAGES_PER_S * fleet.num_cores),
            "disk": load.pixel_bytes / (rates.DISK_BYTES_PER_S * fleet.num_nodes),
        },
    )


def _extraction(load: Workload, fleet: Fleet) -> Step:
    flops = work.extraction_flops(
        load.num_images, load.backbone, height=load.height, width=load.width
    )
    return _step(
        "extract, with mirrors",
        flops,
        hidden={
            "arithmetic": fleet.device.extraction(flops / fleet.num_devices),
            "disk": load.pixel_bytes / (rates.DISK_BYTES_PER_S * fleet.num_nodes),
        },
    )


def _step(
    name: str,
    amount: float,
    *,
    unit: str = "FLOP",
    messages: float = 0,
    hidden: Mapping[str, float],
    added: Mapping[str, float] = MappingProxyType({}),
) -> Step:
    """Return a step from the seconds of its parts: of those `hidden` in each other the longest."""
    parts = {**hidden, **added}
    return Step(
        name=name,
        work=amount,
        unit=unit,
        messages=round(messages),
        seconds=max(hidden.values()) + sum(added.values()),
        limit=max(parts, key=lambda part: parts[part]),
    )


def kmeans_steps(seeding: Seeding) -> tuple[str, ...]:
    """Return the steps of a round that clusters by k-means."""
    lloyd = "lloyd_hierarchy" if seeding == "hierarchy" else "lloyd_flat"
    return "extract", f"seed_{seeding}", lloyd, "health"


DBSCAN_STEPS = ("extract", "neighbors", "jaccard", "health")
"""the steps of a round that clusters by Jaccard distance and DBSCAN"""


def total(found: Mapping[str, Step], names: Iterable[str]) -> float:
    """Return the seconds of some steps, one after another."""
    return sum(found[name].seconds for name in names)
