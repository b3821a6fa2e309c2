"""A round of extraction and clustering, step by step: what it does, and what that takes.

Exchanges and their bytes are those of the algorithms of reid.clustering over actors, each of which
hears what all shards answer; tests compare them with counted ones.

Legend: N images, d feature dimensions, K clusters.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from jobs.planning import rates, work
from jobs.planning.given import Fleet, Place, Workload
from jobs.planning.rates import PowerLaw

Seeding = Literal["greedy", "parallel", "hierarchy"]

SAMPLED_ROWS = 512
"""rows of the label-free scores (SAMPLE of reid.clustering.scores)"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an algorithm does, whatever it runs on.

    `times` that what a fitted law is of is done, or `operations` in all; `passes` over the
    features; `messages` one after another; `link_bytes` through each link of the network.
    """

    name: str
    law: Literal["greedy", "parallel", "lloyd", "hierarchy", "neighbors"]
    times: float
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


def costs(load: Workload, num_actors: int) -> dict[str, Cost]:
    """Return what the variants of clustering do."""
    return {
        **_seeding_costs(load),
        **_lloyd_costs(load, num_actors),
        **_neighbor_costs(load, num_actors),
    }


def _seeding_costs(load: Workload) -> dict[str, Cost]:
    views, clusters, width = load.num_views, load.num_clusters, load.num_features
    size = (load.num_images, width, clusters)
    coarse, part = work.hierarchy(clusters)

    def drawn(number: float, times: float = 1) -> float:
        """Return the bytes of candidates that all actors hear of."""
        return views * times * number * work.num_trials(number) * width * 4

    drawn_in_rounds = views * work.PARALLEL_ROUNDS * work.PARALLEL_OVERSAMPLING * clusters
    return {
        "seed_greedy": Cost(
            name="seed, greedy",
            law="greedy",
            times=views,
            operations=views * work.seeding_flops(*size),
            passes=work.seeding_blocks(clusters),
            messages=views * work.seeding_messages(clusters),
            link_bytes=drawn(clusters),
        ),
        "seed_parallel": Cost(
            name="seed, parallel",
            law="parallel",
            times=views,
            operations=views * work.parallel_seeding_flops(*size),
            passes=work.PARALLEL_ROUNDS,
            messages=views * work.parallel_seeding_messages(clusters),
            link_bytes=drawn_in_rounds * width * 4 + drawn(clusters),
        ),
        "seed_hierarchy": Cost(
            name="seed, hierarchy",
            law="hierarchy",
            times=views * work.hierarchy_seeding_flops(*size) / work.hierarchy_unit_flops(*size),
            operations=views * work.hierarchy_seeding_flops(*size),
            passes=work.seeding_blocks(coarse) + work.seeding_blocks(part),
            messages=views * work.hierarchy_messages(clusters)[0],
            link_bytes=drawn(coarse) + drawn(part, times=coarse),
        ),
    }


def _lloyd_costs(load: Workload, num_actors: int) -> dict[str, Cost]:
    views, rounds = load.num_views, load.iterations
    size = (load.num_images, load.num_features, load.num_clusters)
    coarse, _ = work.hierarchy(load.num_clusters)
    iteration = work.hierarchy_lloyd_flops(*size)

    def summed(clusters: float, times: float) -> float:
        """Return the bytes of the sums of clusters that every shard says, at most."""
        return views * times * num_actors * clusters * (8 * load.num_features + 16)

    return {
        "lloyd_flat": Cost(
            name=f"Lloyd x {rounds}",
            law="lloyd",
            times=views * rounds,
            operations=views * rounds * work.lloyd_flops(*size),
            passes=rounds,
            messages=views * work.lloyd_messages(rounds),
            link_bytes=summed(load.num_clusters, rounds),
        ),
        "lloyd_hierarchy": Cost(
            name=f"Lloyd x {rounds}, hierarchy",
            law="hierarchy",
            times=views * rounds * iteration / work.hierarchy_unit_flops(*size),
            operations=views * rounds * iteration,
            passes=2 * rounds,
            messages=views * rounds * work.hierarchy_messages(load.num_clusters)[1],
            link_bytes=summed(coarse + load.num_clusters, rounds),
        ),
        "mend": Cost(
            name="mend cells (optional)",
            law="lloyd",
            times=views * 2,
            operations=views * 2 * work.lloyd_flops(*size),
            passes=2,
            messages=views * work.lloyd_messages(1),
            link_bytes=summed(load.num_clusters, 1),
        ),
    }


def _neighbor_costs(load: Workload, num_actors: int) -> dict[str, Cost]:
    rows, width = load.num_images, load.num_features
    every, probed = work.neighbor_flops(rows, width), work.probed_flops(rows, width)
    share = work.neighbor_share(num_actors)
    return {
        "neighbors": Cost(
            name="neighbours, exact",
            law="neighbors",
            times=share / work.neighbor_share(1),
            operations=share * every,
            passes=1 / load.num_views,
            messages=work.neighbor_messages(rows, num_actors),
            link_bytes=2 * work.feature_bytes(rows, width, 4),  # both passes of tiles
        ),
        "neighbors_probed": Cost(
            name="probed neighbours, unbuilt",
            law="neighbors",
            times=probed / every / work.neighbor_share(1),
            operations=probed,
            passes=1 / load.num_views,
            messages=1,
            link_bytes=work.feature_bytes(rows, width, 4),
        ),
    }


def steps(load: Workload, fleet: Fleet, place: Place) -> dict[str, Step]:
    """Return every step, each variant by its name, with features stored at `place`."""
    found = {"decode": _decoding(load, fleet), "extract": _extraction(load, fleet)}
    for key, cost in costs(load, fleet.num_devices).items():
        found[key] = _clustering(cost, load, fleet, place)
    return found | _core_steps(load, fleet)


def _clustering(cost: Cost, load: Workload, fleet: Fleet, place: Place) -> Step:
    law, workers = getattr(fleet.device, cost.law, None), fleet.num_devices
    if law is None:  # built for processor cores only
        law, workers = rates.NEIGHBORS_CORE, fleet.num_cores
    size = (load.num_images, load.num_features, load.num_clusters)
    if isinstance(law, PowerLaw):
        arithmetic = cost.times * law(*size) / workers
    else:
        arithmetic = law(cost.operations / workers)
    return _step(
        cost.name,
        cost.operations,
        messages=cost.messages,
        hidden={
            "arithmetic": arithmetic,
            "reading": cost.passes * load.all_bytes / fleet.bytes_per_s(place),
        },
        added={
            "network": cost.link_bytes / rates.NETWORK_BYTES_PER_S * (fleet.num_links > 1),
            "messages": cost.messages * fleet.exchange_s,
        },
    )


def _core_steps(load: Workload, fleet: Fleet) -> dict[str, Step]:
    """Return the steps that run on processor cores whatever the devices."""
    adds = work.jaccard_adds(load.num_images, load.k1)
    size = (load.num_images, load.num_features, load.num_clusters)
    jaccard = (
        rates.JACCARD_CORE(*size) * adds / work.jaccard_adds(load.num_images, work.MEASURED_K1)
    )
    rows = load.num_images + load.num_clusters
    flops = load.num_views * work.lloyd_flops(SAMPLED_ROWS, load.num_features, rows)
    return {
        "jaccard": _step(
            f"Jaccard, DBSCAN, k1 = {load.k1}",
            adds,
            unit=" adds",
            hidden={"arithmetic": jaccard / fleet.num_cores},
        ),
        "health": _step(
            "label-free scores",
            flops,
            messages=load.num_views * 2,
            hidden={"arithmetic": rates.DISTANCES_CORE(flops / fleet.num_cores)},
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
