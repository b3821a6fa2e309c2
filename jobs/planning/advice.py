"""Which variant to use at a size, and why: storage, seeding, neighbours."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jobs.planning.estimate import Seeding, Step, kmeans_steps, steps, total
from jobs.planning.given import Fleet, Place, Workload
from jobs.planning.words import amount, duration

HIERARCHY_FROM = 50_000
"""clusters above which two levels are advised"""
EXACT_NEIGHBORS_UP_TO = 5_000_000
"""rows up to which all distances between rows are worth working out"""
PCA_FEATURES = 256
"""dimensions after a principal component analysis"""
WORTHWHILE = 2.0
"""how many times quicker `parallel` must be to be preferred to the exact greedy draw"""

PLACES = {"gpu": "GPU memory", "host": "host memory", "files": "memory-mapped files"}


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to use: the workload with its features as they are best stored, and where; seeding.

    `steps` are all steps in that storage; `reasons` are sentences.
    """

    stored: Workload
    place: Place
    seeding: Seeding
    steps: Mapping[str, Step]
    reasons: tuple[str, ...]


def advise(load: Workload, fleet: Fleet) -> Advice:
    """Return what to use for a workload on a fleet, with the reasons."""
    stored, place, storage = _storage(load, fleet)
    found = steps(stored, fleet, place)
    seeding, why = _seeding(stored, found)
    reasons = [storage, why, _neighbors(stored, found)]
    clustering = total(found, kmeans_steps(seeding)[1:])
    if clustering > found["extract"].seconds and stored.num_features > PCA_FEATURES:
        share = stored.num_features / PCA_FEATURES
        reasons.append(
            f"k-means takes longer than extraction: PCA to {PCA_FEATURES} dimensions would make it "
            f"about {share:.0f}x quicker (compare neighbor_agreement before and after)"
        )
    return Advice(stored=stored, place=place, seeding=seeding, steps=found, reasons=tuple(reasons))


def _storage(load: Workload, fleet: Fleet) -> tuple[Workload, Place, str]:
    """Return the first storage that fits: as asked, then bfloat16, then PCA; then slower places."""
    half = replace(load, number_bytes=2)
    small = replace(half, num_features=min(load.num_features, PCA_FEATURES))
    best: Place = "gpu" if fleet.num_gpus else "host"
    asked = f"{amount(load.all_bytes, 'B')} of features"
    if load.all_bytes <= fleet.room(best):
        return load, best, f"features as asked: {asked} fit in {PLACES[best]}"
    too_much = f"{asked} do not fit in the {amount(fleet.room(best), 'B')} of {PLACES[best]}"
    for stored, name in ((half, "bfloat16"), (small, f"PCA to {PCA_FEATURES}, bfloat16")):
        if stored.all_bytes <= fleet.room(best):
            size = amount(stored.all_bytes, "B")
            return stored, best, f"features as {name} ({size}): {too_much}"
    place: Place = "host" if load.all_bytes <= fleet.room("host") else "files"
    return load, place, f"features in {PLACES[place]}: {too_much}, not even after PCA"


def _seeding(load: Workload, found: Mapping[str, Step]) -> tuple[Seeding, str]:
    """Return the seeding to use and why."""
    if load.num_clusters > HIERARCHY_FROM:
        flat, levels = (total(found, kmeans_steps(kind)[1:3]) for kind in ("greedy", "hierarchy"))
        return "hierarchy", (
            f"hierarchy: {load.num_clusters:,} clusters are more than {HIERARCHY_FROM:,}; seeding "
            f"and Lloyd in two levels take {duration(levels)}, flat {duration(flat)}, but no row "
            "leaves its coarse cluster"
        )
    seeds = {kind: found[f"seed_{kind}"].seconds for kind in ("greedy", "parallel")}
    longest = seeds["greedy"] > found["extract"].seconds
    if longest and seeds["greedy"] > WORTHWHILE * seeds["parallel"]:
        return "parallel", (
            f"parallel: greedy seeding ({duration(seeds['greedy'])}, limited by "
            f"{found['seed_greedy'].limit}) would take longer than extraction, parallel takes "
            f"{duration(seeds['parallel'])}"
        )
    return "greedy", (
        f"greedy: {duration(seeds['greedy'])} of seeding for the best first centres (parallel: "
        f"{duration(seeds['parallel'])})"
    )


def _neighbors(load: Workload, found: Mapping[str, Step]) -> str:
    took = duration(found["neighbors"].seconds)
    if load.num_images <= EXACT_NEIGHBORS_UP_TO:
        return f"DBSCAN: exact neighbours, {took}"
    return (
        f"DBSCAN: exact neighbours grow with the square of the images and take {took}; above "
        f"{EXACT_NEIGHBORS_UP_TO:,} images prefer k-means, or an approximate index whose recall is "
        "measured"
    )
