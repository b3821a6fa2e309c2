"""The network of PPLR and INCLR: a global feature and horizontal parts, each with its classifier.

Legend: B images, H x W pixels, C channels of the backbone, K classes.
"""

from jaxtyping import Float
from torch import Tensor, nn

from reid.models.backbones import Backbone
from reid.models.heads import BNNeck, DynamicClassifier
from reid.models.network import NetOutput
from reid.models.pooling import gap, part_gap
from reid.models.weights import seeded


class BranchNet(nn.Module):
    """Mean pooling of the whole map and of `num_parts` strips, each with a neck and a classifier.

    Views: `global`, `part0` (top), `part1`, ...: BN(mean), C wide, not normalised. The same vectors
    are compared by metric losses, clustered, and classified. `logits` are those of the global view,
    `part_logits` those of each part. The embedding is the global view alone, as PPLR retrieves;
    INCLR weighs all views into a distance, from `views`. Source: Cho et al., PPLR (arXiv
    2203.14675), section 3.1; spcl_inclr spec 3.4 and 4.2.

    Each classifier is a `DynamicClassifier` of at most `max_classes`.
    """

    def __init__(
        self,
        backbone: Backbone,
        max_classes: int,
        *,
        seed: int,
        num_parts: int = 3,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_parts = num_parts
        with seeded(seed):
            self.necks = nn.ModuleDict(
                {view: BNNeck(backbone.num_channels) for view in branch_views(num_parts)}
            )
            self.classifiers = nn.ModuleDict(
                {view: DynamicClassifier(backbone.num_channels, max_classes) for view in self.necks}
            )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> NetOutput:
        """Return map, views, embedding and logits of a batch.

        Raises:
            ValueError: the map has fewer rows than parts.
        """
        feature_map = self.backbone(images)
        pooled = [gap(feature_map), *part_gap(feature_map, self.num_parts).unbind(1)]
        branches = zip(self.necks.items(), pooled, strict=True)
        views: dict[str, Tensor] = {view: neck(features) for (view, neck), features in branches}
        logits: dict[str, Tensor] = {view: self.classifiers[view](views[view]) for view in views}
        return NetOutput(
            map=feature_map,
            views=views,
            embedding=views["global"],
            logits=logits.pop("global"),
            part_logits=logits,
        )

    @property
    def neck(self) -> nn.Module:
        """Return the global view's neck."""
        return self.necks["global"]

    def classifier(self, view: str) -> nn.Linear:
        """Return a view's classifier, for `reset_from_centers_`."""
        layer = self.classifiers[view]
        assert isinstance(layer, nn.Linear)
        return layer


def branch_views(num_parts: int) -> tuple[str, ...]:
    """Return the names of a `BranchNet`'s views, the global one first."""
    return ("global", *(f"part{part}" for part in range(num_parts)))
