"""The methods, one file each, and the named runs a person can type."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from reid.checkpoint import RunState
from reid.models import load_weights
from reid.override import override
from reid.recipes import core_reid_v2, mean_teacher, source
from reid.recipes.contract import Recipe, RunConfig
from reid.recipes.core_reid_v2 import CoreReIDV2, CoreReIDV2Config
from reid.recipes.mean_teacher import MeanTeacher, MeanTeacherConfig
from reid.recipes.source import Source, SourceConfig

AnyConfig = SourceConfig | CoreReIDV2Config | MeanTeacherConfig

RUNS: dict[str, AnyConfig] = {**source.RUNS, **core_reid_v2.RUNS, **mean_teacher.RUNS}
"""Every named run: the one place where a method's name becomes a thing."""

METHODS = {
    "source": SourceConfig,
    "core_reid_v2": CoreReIDV2Config,
    "mean_teacher": MeanTeacherConfig,
}


def method_of(config: AnyConfig) -> str:
    """Return the method's name."""
    return next(name for name, kind in METHODS.items() if isinstance(config, kind))


def build(
    config: AnyConfig,
    *,
    num_identities: int | None = None,
    backbone: Mapping[str, Any] | None = None,
) -> Recipe:
    """Return the recipe of a config, on the CPU.

    Supervised recipes need `num_identities`, the others the pre-trained `backbone` weights.
    """
    if isinstance(config, SourceConfig):
        assert num_identities is not None
        return Source(config, num_identities=num_identities)
    assert backbone is not None
    if isinstance(config, CoreReIDV2Config):
        return CoreReIDV2(config, backbone=backbone)
    return MeanTeacher(config, backbone=backbone)


def from_flat(kind: str, values: Mapping[str, Any]) -> AnyConfig:
    """Return the config that `override.flatten` flattened; `kind` is its class's name.

    Raises ValueError for a class or field this version does not have.
    """
    for config in RUNS.values():
        if type(config).__name__ == kind:
            break
    else:
        raise ValueError(f"no method has a config called {kind}")
    try:
        for path, value in values.items():
            config = override(config, path, tuple(value) if isinstance(value, list) else value)
    except KeyError as error:
        raise ValueError(f"the config was made by another version: {error.args[0]}") from None
    return replace(config)


def restore(state: RunState) -> Recipe:
    """Return the recipe of a checkpoint with its weights, on the CPU, ready to embed.

    Raises ValueError when the checkpoint does not fit this version's networks.
    """
    config = from_flat(state.kind, state.config)
    if isinstance(config, SourceConfig):
        num_identities = len(state.networks["student.classifier.weight"])
        recipe = build(replace(config, weights=None), num_identities=num_identities)
    else:
        recipe = build(config, backbone=below(state.networks, "teacher.backbone."))
    load_weights(recipe.networks, state.networks)
    recipe.networks.eval()
    return recipe


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


__all__ = [
    "METHODS",
    "RUNS",
    "AnyConfig",
    "Recipe",
    "RunConfig",
    "below",
    "build",
    "from_flat",
    "method_of",
    "restore",
]
