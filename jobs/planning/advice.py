"""Which variant to use at a size, and why: storage, seeding, neighbours."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jobs.planning import rates
from jobs.planning.estimate import Seeding, Step, kmeans_steps, steps, total
from jobs.planning.given import Fleet, Place, Workload
from jobs.planning.words import amount, digits, duration
from reid.clustering.hierarchy import FLAT_CLUSTERS
from reid.clustering.parallel import GREEDY_CLUSTERS

EXACT_NEIGHBORS_UP_TO = 5_000_000
"""rows up to which all distances between rows are worth working out"""
PCA_FEATURES = 256
"""dimensions after a principal component analysis"""
WORTHWHILE = 1.5
"""how many times quicker k-means must become for an analysis to be advised"""

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
    names = kmeans_steps(seeding)[1:]
    clustering = total(found, names)
    if clustering > found["extract"].seconds and stored.num_features > PCA_FEATURES:
        small = steps(replace(stored, num_features=PCA_FEATURES), fleet, place)
        times = clustering / total(small, names)
        if times > WORTHWHILE:
            reasons.append(
                f"k-means takes longer than extraction: PCA to {PCA_FEATURES} dimensions would "
                f"make it about {digits(times, 2)}x quicker (compare neighbor_agreement before and "
                "after)"
            )
    messages = sum(found[name].messages for name in names)
    if messages * fleet.exchange_s > clustering / 2:
        reasons.append(
            f"k-means mostly waits for {messages:,} exchanges among {fleet.num_devices} actors, "
            f"{duration(fleet.exchange_s)} each: use fewer actors"
        )
    reasons.append(_rates(stored, fleet, seeding))
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
    if load.num_clusters > FLAT_CLUSTERS:
        flat, levels = (total(found, kmeans_steps(kind)[1:3]) for kind in ("greedy", "hierarchy"))
        return "hierarchy", (
            f"hierarchy: {load.num_clusters:,} clusters are more than {FLAT_CLUSTERS:,}; seeding "
            f"and Lloyd in two levels take {duration(levels)}, flat {duration(flat)}, but no row "
            "leaves its coarse cluster"
        )
    greedy, parallel = (duration(found[f"seed_{kind}"].seconds) for kind in ("greedy", "parallel"))
    if load.num_clusters > GREEDY_CLUSTERS:
        return "parallel", (
            f"parallel: {load.num_clusters:,} clusters are more than {GREEDY_CLUSTERS:,}; it takes "
            f"{parallel}, greedy {greedy}"
        )
    return (
        "greedy",
        f"greedy: {greedy} of seeding for the best first centres (parallel: {parallel})",
    )


def _neighbors(load: Workload, found: Mapping[str, Step]) -> str:
    took = duration(found["neighbors"].seconds)
    if load.num_images <= EXACT_NEIGHBORS_UP_TO:
        return f"DBSCAN: exact neighbours, {took}"
    return (
        f"DBSCAN: exact neighbours grow with the square of the images and take {took}; above "
        f"{EXACT_NEIGHBORS_UP_TO:,} images prefer k-means, or build an approximate index "
        f"({duration(found['neighbors_probed'].seconds)}) and measure its recall"
    )


def _rates(load: Workload, fleet: Fleet, seeding: Seeding) -> str:
    """Return which rates were measured, and how far from where they are used."""
    laws = {"neighbours": rates.NEIGHBORS_CORE, "Jaccard": rates.JACCARD_CORE}
    if not fleet.num_gpus:
        lloyd = {} if seeding == "hierarchy" else {"Lloyd": rates.LLOYD_CORE}
        laws = {seeding: getattr(rates.CPU_CORE, seeding), **lloyd, **laws}
    size = (load.num_images, load.num_features, load.num_clusters)
    beyond = {name: law.beyond(*size) for name, law in laws.items()}
    told = ", ".join(f"{name} {digits(times, 2)}x" for name, times in beyond.items())
    return (
        f"rates measured ({rates.MEASURED_ON}) and used so many times beyond the largest measured "
        f"size: {told}; all others are data sheets and estimates"
    )
