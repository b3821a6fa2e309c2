"""Where a method's backbones come from."""

from reid.models import Backbone, load_weights, resnet
from reid.recipes.contract import Backbones, RunConfig


def first_backbone(
    config: RunConfig, backbones: Backbones, start: str | None = None, *, seed: int | None = None
) -> Backbone:
    """Return a run's backbone with its first weights: those of the start, a field of the config.

    Without a start it has `config.weights`; `seed` is the config's unless given. A start without
    weights is drawn at random, for checkpoints, which bring all weights themselves.
    Raises ValueError for weights of another network.
    """
    backbone = resnet(
        config.backbone,
        weights=config.weights if start is None else None,
        last_stride=config.stride,
        seed=config.seed if seed is None else seed,
    )
    if start is not None and start in backbones:
        load_weights(backbone, backbones[start])
    return backbone
