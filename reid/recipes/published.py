"""What a paper says of a run, kept beside the run for docs/model_zoo.md."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from reid.models.backbones import BackboneName

IBN_WEIGHTS = "resnet50_ibn_a.pth"
"""ResNet-50 IBN-a's ImageNet weights, as its authors release them: a file, torchvision has none."""

Row = tuple[str, str, int, BackboneName, float, float, str]
"""(source, target, clusters, backbone, mAP, rank-1, where): a line of a paper's table."""


def of_row(row: Row, *, initial: str) -> dict[str, Any]:
    """Return the fields of the run that a line of a table stands for; `initial`: its start."""
    source, target, num_clusters, backbone, *_ = row
    return {
        "source": source,
        "target": target,
        "initial": initial,
        "num_clusters": num_clusters,
        "backbone": backbone,
    }


@dataclass(frozen=True, kw_only=True)
class Published:
    """Scores on the target's test split in percent, with as many decimals as were printed."""

    mAP: float  # noqa: N815  the field's own spelling
    rank1: float
    where: str
    """where they stand: a table, or a chart they were read from (about +-0.2)"""


def pair_name(
    method: str, source: str, target: str, *, backbone: BackboneName, usual: BackboneName
) -> str:
    """Return METHOD-SOURCE-TARGET, and the backbone behind it where it is not the usual one."""
    return f"{method}-{source}-{target}" + ("" if backbone == usual else f"-{backbone}")


def figures(method: str, rows: Iterable[Row], *, usual: BackboneName) -> dict[str, Published]:
    """Return {run's name: its figures} of a table's lines."""
    return {
        pair_name(method, source, target, backbone=backbone, usual=usual): Published(
            mAP=score, rank1=rank1, where=where
        )
        for source, target, _, backbone, score, rank1, where in rows
    }
