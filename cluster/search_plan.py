"""What a search is asked for, what it must keep when it goes on, and how much fits on a cluster."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from cluster.config import ClusterConfig
from cluster.pipeline import described
from cluster.search_space import Parameter
from cluster.search_trials import Objective
from cluster.storage import Folder
from reid.override import differences, override_all
from reid.recipes import RunConfig

SETTINGS = "search.json"
HEAD_BYTES = 1
"""of memory: what a trial's own process reserves beside its workers, for Tune takes no nothing"""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to search, and how."""

    name: str
    """folder of the search in the storage"""
    config: RunConfig
    where: ClusterConfig
    """of each trial"""
    space: tuple[Parameter, ...]
    num_trials: int = 20
    objective: Objective = "silhouette"
    max_concurrent: int | None = None
    """trials at a time; None: as many as the cluster holds"""
    grace_rounds: int | None = None
    """rounds that every trial may train; None: a quarter of all"""
    reduction: int = 2
    """at each rung, about one in so many trials goes on to so many times as many rounds"""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        if self.num_trials < 1:
            raise ValueError(f"trials is {self.num_trials}; give at least 1")
        if self.reduction < 2:
            raise ValueError(f"reduction is {self.reduction}; give 2 or more")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ValueError(f"max_concurrent is {self.max_concurrent}; give at least 1")
        if self.grace_rounds is not None and not 1 <= self.grace_rounds <= self.config.num_rounds:
            raise ValueError(
                f"grace_rounds is {self.grace_rounds}; give 1 to {self.config.num_rounds}, the "
                "run's rounds"
            )
        if self.where.max_workers is not None:
            raise ValueError(
                "a search counts how many trials fit by the workers of each: leave out max_workers"
            )
        if self.objective != "oracle" and not self.config.clusters:
            raise ValueError(
                f"objective is {self.objective}, a figure of clusters, which a "
                f"{type(self.config).__name__} does not make; give --objective oracle"
            )

    @property
    def folder(self) -> Folder:
        """Where the search lies."""
        return Folder(self.where.storage) / self.name

    @property
    def grace(self) -> int:
        """Rounds that every trial may train."""
        return self.grace_rounds or max(1, self.config.num_rounds // 4)


def settings(asked: Search) -> dict[str, Any]:
    """Return what a search must have in common with the one it goes on with."""
    return {
        "space": " ".join(str(parameter) for parameter in asked.space),
        "objective": asked.objective,
        "grace_rounds": asked.grace,
        "reduction": asked.reduction,
        **described(asked.config),
    }


def refuse_other(asked: Search) -> None:
    """Raise ValueError when another search lives in the folder."""
    if not asked.folder.exists(SETTINGS):
        return
    changed = differences(settings(asked), asked.folder.read_json(SETTINGS))
    if changed:
        raise ValueError(
            f"{asked.folder.uri} holds another search ({'; '.join(changed)}); give --name for a "
            "new one, or the old values to go on with that one"
        )


def needs(where: ClusterConfig) -> dict[str, float]:
    """Return what a trial takes of the cluster: workers and clustering actors, or one process."""
    if where.num_workers:
        return {"CPU": where.needed_cpus, "GPU": where.needed_gpus}
    return {"CPU": where.cpus_per_worker, "GPU": float(where.use_gpu)}


def reserved(where: ClusterConfig) -> tune.PlacementGroupFactory:
    """Return what Tune reserves for a trial's own process.

    With workers that process only waits: they and the clustering actors reserve what they need
    themselves, outside of Tune's placement group.
    """
    if where.num_workers:
        return tune.PlacementGroupFactory([{"memory": HEAD_BYTES}])
    return tune.PlacementGroupFactory([needs(where)])


def capacity(asked: Search, *, say: Callable[[str], None]) -> int:
    """Return how many trials the connected cluster holds at a time, and say so.

    ValueError when it does not hold one.
    """
    have, takes = ray.cluster_resources(), needs(asked.where)
    fits = {name: have.get(name, 0.0) / amount for name, amount in takes.items() if amount}
    amounts = " and ".join(
        f"{amount:g} of {have.get(name, 0.0):g} {name}s" for name, amount in takes.items() if amount
    )
    held = math.floor(min(fits.values(), default=math.inf) + 1e-6) if fits else asked.num_trials
    if held < 1:
        raise ValueError(
            f"a trial takes {amounts} of the Ray cluster; add nodes, or lower "
            "--cluster.num-workers, --cluster.num-shards or the CPUs and GPUs of each"
        )
    number = min(held, asked.max_concurrent or held, asked.num_trials)
    say(f"each trial takes {amounts}: {number} at a time")
    return number


def edges(asked: Search) -> list[RunConfig]:
    """Return the configs that differ from the run's own in where backbones come from."""
    paths = {"backbone", *asked.config.starts}
    return [
        override_all(asked.config, {parameter.path: value})
        for parameter in asked.space
        if parameter.path in paths
        for value in parameter.edges
    ]
