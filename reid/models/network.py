"""The network of one global feature, and CORE-ReID's with parts; what networks return.

Legend: B images, H x W pixels, C channels of the backbone, h x w positions of its map, K classes,
D dimensions of one view (C here), E of the embedding.

Neither network asks whether it is training: only its BatchNorm layers behave differently then.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reid.models.attention import ECAB
from reid.models.backbones import Backbone
from reid.models.heads import BNNeck, DynamicClassifier, classifier
from reid.models.pooling import GeM, gap, gap_gmp, part_pool
from reid.models.weights import seeded
from reid.precision import full_precision

PARTS = ("top", "bottom")
"""The strips of a map, from top to bottom."""

PoolingName = Literal["gap", "gap_gmp", "gem"]
"""Mean, mean plus maximum, generalised mean of a map."""

_POOLINGS: Mapping[str, Callable[[Tensor], Tensor]] = {"gap": gap, "gap_gmp": gap_gmp}


@dataclass(frozen=True, kw_only=True)
class NetOutput:
    """What a network says about a batch.

    `map` the backbone's map; `views` what metric losses compare; `embedding` what retrieval
    compares, not yet of unit length; `logits` before softmax, of the global view, (B,0) from a
    network without classifier; `part_logits` those of parts that have classifiers of their own;
    `gates` attention, where it is asked for.
    """

    map: Float[Tensor, "B C h w"]
    views: Mapping[str, Float[Tensor, "B D"]]
    embedding: Float[Tensor, "B E"]
    logits: Float[Tensor, "B K"]
    part_logits: Mapping[str, Float[Tensor, "B K"]] = field(default_factory=dict)
    gates: Mapping[str, Float[Tensor, "B C 1 1"]] = field(default_factory=dict)


class GlobalNet(nn.Module):
    """Backbone, pooling, BatchNorm neck, classifier: one feature of the whole image.

    The embedding is the feature after the neck; scaled to unit length it is also what SpCL's and
    Cluster-Contrast's memories are trained with. `view` says which feature `views["global"]`
    is, the one that metric losses compare: the pooled one "before_neck" (source pre-training, MMT)
    or the embedding "after_neck" (PPLR). Source: core_reid spec 1b, spcl_inclr spec 0.

    `pooling` is the mean, mean plus maximum, or the learned `GeM`. Without `num_classes` there is
    no classifier, and logits are (B,0); with `dynamic_classes` it is the most classes of a
    `DynamicClassifier`.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int | None,
        *,
        seed: int,
        pooling: PoolingName = "gap",
        view: Literal["before_neck", "after_neck"] = "before_neck",
        dynamic_classes: bool = False,
    ) -> None:
        super().__init__()
        channels = backbone.num_channels
        self.view = view
        self.classifies = num_classes is not None
        self.backbone = backbone
        self.pool: Callable[[Tensor], Tensor] = GeM() if pooling == "gem" else _POOLINGS[pooling]
        self.neck = BNNeck(channels)
        if num_classes is not None:
            build = DynamicClassifier if dynamic_classes else classifier
            with seeded(seed):
                self.classifier: nn.Linear = build(channels, num_classes)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> NetOutput:
        """Return map, feature, embedding and logits of a batch."""
        feature_map = self.backbone(images)
        features = self.pool(feature_map)
        embedding = self.neck(features)
        return NetOutput(
            map=feature_map,
            views={"global": features if self.view == "before_neck" else embedding},
            embedding=embedding,
            logits=self.classifier(embedding) if self.classifies else embedding[:, :0],
        )


class PartHead(nn.Module):
    """The feature BN(FC([mean; max])) of one strip. FC starts from Kaiming's fan-out normal."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(2 * channels, channels)
        nn.init.kaiming_normal_(self.reduction.weight, mode="fan_out")
        nn.init.zeros_(self.reduction.bias)
        self.neck = BNNeck(channels)

    def forward(
        self, average: Float[Tensor, "B C"], maximum: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B C"]:
        """Return the strip's feature from its mean and maximum."""
        reduced = self.reduction(torch.cat([average, maximum], dim=1))
        features: Tensor = self.neck(full_precision(reduced))
        return features


class PartNet(nn.Module):
    """Backbone with a global view and one view per strip: student and teacher of CORE-ReID.

    Views: `global` = BN(mean + max) of the map; `top`, `bottom` = BN(FC([mean; max])) of each half.
    Logits belong to the global view; the embedding is the three views side by side (E = 3C).
    Source: core_reid spec 1c. Everything but the backbone is fresh, its weights drawn from `seed`.

    With `attention`, the output holds the strips' gates, so that gradients reach them through this
    module's own forward (which a distributed wrapper needs). Without it nothing uses their blocks,
    which stay as drawn. `hidden_layers` is that of the ECAB: 5 in CORE-ReID, 1 in LF2.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        seed: int,
        attention: bool = False,
        hidden_layers: int = 5,
    ) -> None:
        super().__init__()
        channels = backbone.num_channels
        self.outputs_gates = attention
        self.backbone = backbone
        self.neck = BNNeck(channels)
        with seeded(seed):
            self.parts = nn.ModuleDict({part: PartHead(channels) for part in PARTS})
            self.attention = nn.ModuleDict(
                {part: ECAB(channels, hidden_layers=hidden_layers) for part in PARTS}
            )
            self.classifier = classifier(channels, num_classes)
        self.attention.requires_grad_(attention)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> NetOutput:
        """Return map, views, embedding, logits and, with `attention`, gates of a batch.

        Raises:
            ValueError: the map has one row only.
        """
        feature_map = self.backbone(images)
        pooled = _pool_parts(feature_map)
        views = {"global": self.neck(gap_gmp(feature_map))}
        views |= {part: head(*pooled[part]) for part, head in self.parts.items()}
        return NetOutput(
            map=feature_map,
            views=views,
            embedding=torch.cat(list(views.values()), dim=1),
            logits=self.classifier(views["global"]),
            gates=self._gates(pooled) if self.outputs_gates else {},
        )

    def _gates(self, pooled: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        gates = {}
        for part, block in self.attention.items():
            assert isinstance(block, ECAB)
            gates[part] = block.from_pooled(*pooled[part])
        return gates


def _pool_parts(feature_map: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return {part: (mean (B,C), max (B,C))}."""
    average, maximum = part_pool(feature_map, len(PARTS))
    return {part: (average[:, i], maximum[:, i]) for i, part in enumerate(PARTS)}
