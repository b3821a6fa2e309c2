"""How a method's networks begin: their backbones, and what their BatchNorms share."""

from torch import nn

from reid.models import Backbone, below, convert_ghost_norm_, load_weights, resnet
from reid.recipes.contract import RunConfig, Starts


def first_backbone(
    config: RunConfig, starts: Starts, start: str | None = None, *, seed: int | None = None
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
    if start is not None and start in starts:
        load_weights(backbone, below(starts[start], "backbone."))
    return backbone


def group_norms_(net: nn.Module, config: RunConfig) -> None:
    """Let a network's BatchNorms share statistics within the config's groups of images.

    Published figures were made by several GPUs of one process, each with statistics of its own:
    groups of 16 to 64 images (spcl_inclr spec, section 0; core_reid spec, section 1c).
    """
    if config.norm_group is not None:
        convert_ghost_norm_(net, group=config.norm_group)
