"""The methods, one file each, and the named runs a person can type."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reid.checkpoint import RunState
from reid.models import load_weights
from reid.override import override_all
from reid.recipes import (
    cluster_contrast,
    core_reid_v1_runs,
    core_reid_v2_runs,
    inclr_runs,
    lf2_runs,
    mean_teacher,
    mmt_runs,
    pplr_runs,
    source_runs,
    spcl_runs,
)
from reid.recipes.contract import MEMORY, NO_STARTS, Method, Recipe, RunConfig, Sizes, Starts

METHODS: dict[str, Method] = {
    "source": source_runs.METHOD,
    "core_reid_v2": core_reid_v2_runs.METHOD,
    "core_reid_v1": core_reid_v1_runs.METHOD,
    "lf2": lf2_runs.METHOD,
    "mean_teacher": mean_teacher.METHOD,
    "mmt": mmt_runs.METHOD,
    "inclr": inclr_runs.METHOD,
    "spcl": spcl_runs.METHOD,
    "cluster_contrast": cluster_contrast.METHOD,
    "pplr": pplr_runs.METHOD,
}
"""Every method: the one place where a name becomes a thing."""

RUNS: dict[str, RunConfig] = {
    name: run for method in METHODS.values() for name, run in method.runs.items()
}
"""Every named run."""


def method_of(config: RunConfig) -> str:
    """Return the method's name."""
    return next(name for name, method in METHODS.items() if type(config) is method.config)


def build(config: RunConfig, *, sizes: Sizes, starts: Starts = NO_STARTS) -> Recipe:
    """Return the recipe of a config with its first weights, on the CPU.

    `starts` are the weights of `config.starts`. Raises ValueError when they do not fit.
    """
    return METHODS[method_of(config)].recipe(config, sizes=sizes, starts=starts)


def from_flat(kind: str, values: Mapping[str, Any]) -> RunConfig:
    """Return the config that `override.flatten` flattened; `kind` is its class's name.

    Raises ValueError for a class or field this version does not have.
    """
    for config in RUNS.values():
        if type(config).__name__ == kind:
            break
    else:
        raise ValueError(f"no method has a config called {kind}")
    try:
        stored = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return override_all(config, stored)
    except KeyError as error:
        raise ValueError(f"the config was made by another version: {error.args[0]}") from None


def restore(state: RunState) -> Recipe:
    """Return the recipe of a checkpoint with its weights, on the CPU, ready to embed.

    Raises ValueError when the checkpoint does not fit this version's networks.
    """
    config = replace(from_flat(state.kind, state.config), weights=None)
    recipe = build(config, sizes=Sizes(**state.sizes))
    load_weights(recipe.networks, state.networks, resized=(MEMORY,))
    recipe.networks.eval()
    return recipe


__all__ = [
    "METHODS",
    "RUNS",
    "Method",
    "Recipe",
    "RunConfig",
    "Sizes",
    "Starts",
    "build",
    "from_flat",
    "method_of",
    "restore",
]
