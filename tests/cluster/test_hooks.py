"""Where labels are made: guard rails before and after, figures beside them, all in storage."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from torch import Tensor, nn

from cluster.hooks import RunHooks
from cluster.links import LocalLink
from cluster.shards import RayShardPool, send_features, start_actors
from cluster.storage import Folder
from reid.clustering import ShardPool, kmeans, split
from reid.clustering.guards import check_features
from reid.clustering.health import FIGURES, health
from reid.data.steps import Draw, ListDraw
from reid.recipes import RUNS
from reid.recipes.contract import RunConfig, Sizes
from reid.types import OUTLIER, PseudoLabels

NUM_IMAGES, NUM_CAMERAS = 48, 3
TRUTH = np.arange(NUM_IMAGES) // 6
Shown = list[tuple[str, int, int, str]]


class Pixels:
    """Images of one colour: those of an identity alike."""

    height = width = 2

    def __len__(self) -> int:
        return NUM_IMAGES

    def read(self, rows: np.ndarray) -> np.ndarray:
        images = np.full((len(rows), 2, 2, 3), 40, dtype=np.uint8)
        images[np.arange(len(rows)), :, :, TRUTH[rows] % 3] = 80 + 20 * TRUTH[rows, None, None]
        return images


def never(*_: object, **__: object) -> None:
    raise AssertionError("labelling calls this")


@dataclass
class Method:
    """A recipe whose labels are given."""

    labels: np.ndarray
    scale: float = 1.0
    asked: int = 0
    draws: tuple[Draw, ...] = (
        Draw(name="x", table="target", labels="global", num_identities=8, num_instances=2),
    )

    views: tuple[str, ...] = ("global",)
    networks: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    student: Any = None
    sizes: Sizes = Sizes(num_identities=0, num_images=NUM_IMAGES)
    embed: Any = never
    begin_round: Any = never
    losses: Any = never
    after_step: Any = never

    @property
    def config(self) -> RunConfig:
        return RUNS["core_reid_v2-demo"]

    def features(self, images: Tensor) -> dict[str, Tensor]:
        return {"global": self.scale * images.mean(dim=(2, 3))}

    def label(self, pools: Mapping[str, ShardPool], *, round: int) -> dict[str, PseudoLabels]:
        self.asked += 1
        features = np.concatenate(pools["global"].map(lambda shard: shard.features))
        centers = np.zeros((self.labels.max() + 1, 3), dtype=np.float32)
        for label in range(len(centers)):
            centers[label] = features[self.labels == label].mean(axis=0)
        return {"global": PseudoLabels(labels=self.labels, centers=centers)}


@pytest.fixture
def shown() -> Shown:
    return []


@pytest.fixture
def label(tmp_path: Path, shown: Shown) -> Callable[..., Any]:
    """Return `label(recipe, round)` of hooks in this process."""
    hooks = RunHooks(
        Folder(str(tmp_path)),
        LocalLink(num_shards=2, show=lambda *line: shown.append(line)),
        pixels=Pixels(),
        truth=TRUTH,
        camid=np.arange(NUM_IMAGES) % NUM_CAMERAS,
        device=torch.device("cpu"),
        num_rounds=2,
        keep_best=False,
    )
    return hooks.label


def test_figures_are_committed_with_the_labels(label: Callable[..., Any], shown: Shown) -> None:
    first = label(Method(TRUTH), 0)
    figures = first.health["global"]
    assert figures.keys() == FIGURES.keys() - {"stability"}
    assert figures["ari"] == figures["nmi"] == figures["purity"] == 1
    assert figures["camera_mixing"] == pytest.approx(1)
    assert figures["silhouette"] > 0.9
    assert first.seconds["health"] > 0
    assert shown[-1][:3] == ("round 1/2: cluster", 1, 1)
    assert shown[-1][3].startswith("8 clusters, 0 outliers, silhouette")
    merged = TRUTH // 2
    second = label(Method(merged), 1)
    assert 0 < second.health["global"]["stability"] < 1


def test_labels_that_are_there_are_not_made_again(label: Callable[..., Any]) -> None:
    label(Method(TRUTH), 0)
    again = Method(TRUTH)
    np.testing.assert_array_equal(label(again, 0).labels["global"].labels, TRUTH)
    assert again.asked == 0


def test_dead_features_stop_before_they_are_clustered(label: Callable[..., Any]) -> None:
    method = Method(TRUTH, scale=0)
    with pytest.raises(ValueError, match="round 0, view global: all 48 features are zero"):
        label(method, 0)
    assert method.asked == 0


def test_labels_that_cannot_train_are_not_committed(label: Callable[..., Any]) -> None:
    nothing = Method(np.full(NUM_IMAGES, OUTLIER))
    with pytest.raises(ValueError, match="round 0, view global: all 48 images are outliers"):
        label(nothing, 0)
    assert label(Method(TRUTH), 0).health["global"]["num_clusters"] == 8


def test_images_alone_can_train_where_lists_draw_them(
    label: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    draw = ListDraw(
        name="x", table="target", labels="global/images", num_identities=8, num_instances=2
    )

    class Listed(Method):
        def label(self, pools: Mapping[str, ShardPool], *, round: int) -> dict[str, PseudoLabels]:
            alone = super().label(pools, round=round)["global"]
            extras = {"images": np.arange(NUM_IMAGES)}
            return {"global": replace(alone, extras=extras)}

    nothing = np.full(NUM_IMAGES, OUTLIER)
    with caplog.at_level(logging.WARNING):
        found = label(Listed(nothing, draws=(draw,)), 0)
    assert found.health["global"]["num_clusters"] == 0
    assert not caplog.text


def test_a_batch_with_more_identities_than_clusters_is_told(
    label: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        label(Method(TRUTH % 7), 0)
    assert "7 of 7 clusters have two images or more and a batch draws 8" in caplog.text


@pytest.mark.ray
def test_figures_and_guards_are_the_same_over_actors(
    ray_cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    features = np.random.default_rng(0).standard_normal((3000, 32)).astype(np.float32)
    features[1700] = 0
    result = kmeans(split(features, 1), 20, seed=0)
    found = PseudoLabels(labels=result.labels, centers=result.centers)
    size = {"num_rows": 3000, "timeout_s": 60.0}
    actors = start_actors(2, num_cpus=0.5)
    try:
        send_features(actors, "x", (0, 0), start=0, features=features, **size)
        pool = RayShardPool(actors, "x", num_features=32, token=(0, 0), **size)
        assert health(found, pool=pool) == health(found, pool=split(features, 1))
        check_features(pool, name="x")
    finally:
        for actor in actors:
            ray.kill(actor)
    assert "x: 1 of 3000 features are zero, row 1700 the first" in caplog.text
