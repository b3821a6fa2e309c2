"""PPLR against its formulas, recomputed from what the network says."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from reid.clustering import DBSCANConfig, cross_agreement, jaccard_dbscan, split
from reid.recipes import RUNS
from reid.recipes.pplr import PPLRConfig
from reid.types import OUTLIER, Batch, PseudoLabels

K, C, N = 4, 512, 64
VIEWS = ("global", "part0", "part1")
LABELS = torch.tensor([0, 0, 1, 1, 1, 3, 3, 3])
CAMID = torch.tensor([0, 1, 0, 0, 2, 1, 1, 2])
INDEX = torch.tensor([5, 9, 63, 0, 2, 33, 34, 35])
TIGHT = DBSCANConfig(k1=6, k2=2, eps=0.4)
PROXY_OF = np.array([[0, 0], [0, 1], [1, 0], [1, 2], [2, 0], [3, 1], [3, 2]])


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def found(*, aware=False, camera=False):
    """Return a round's labels with extras drawn at random."""
    rng = np.random.Generator(np.random.Philox(7))
    labels = {}
    for seed, view in enumerate(VIEWS):
        extras = {"proxies": drawn(len(PROXY_OF), C, seed=50 + seed).numpy()} if camera else {}
        if view == "global":
            extras["agreement"] = rng.random((N, 2)).astype(np.float32)
            extras["aware"] = np.array(aware)
            extras |= {"proxy_of": PROXY_OF} if camera else {}
        labels[view] = PseudoLabels(
            labels=np.arange(N) % K, centers=drawn(K, C, seed=seed).numpy(), extras=extras
        )
    return labels


@pytest.fixture
def make(tiny_configs, make_recipe):
    def go(labels=None, **changes):
        recipe = make_recipe(replace(tiny_configs["pplr"], **changes))
        if labels is not None:
            recipe.begin_round(labels)
        recipe.networks.train()
        return recipe

    return go


def batch():
    images = drawn(8, 3, 32, 16, seed=0)
    return Batch(images=images, index=INDEX, labels={"global": LABELS}, camid=CAMID)


def output(recipe):
    with torch.no_grad():  # in training mode: outputs do not depend on running statistics
        return recipe.student(batch().images)


def softmax(logits):
    values = np.exp(logits - logits.max())
    return values / values.sum()


def triplet(features):
    rows, losses = features.double(), []
    for i, own in enumerate(LABELS):
        distance = [float((rows[i] - row).norm()) for row in rows]
        farthest = max(d for d, y in zip(distance, LABELS, strict=True) if y == own)
        nearest = min(d for d, y in zip(distance, LABELS, strict=True) if y != own)
        losses.append(math.log1p(math.exp(farthest - nearest)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("aware", [False, True])
def test_losses_are_the_formula(aware, make):
    labels = found(aware=aware)
    recipe = make(labels, onehot_weight=0.3, smoothing=0.2)
    terms, out = recipe.losses({"target": batch()}), output(recipe)
    whole, parts = 0.0, 0.0
    for i, y in enumerate(LABELS.tolist()):
        agreement = labels["global"].extras["agreement"][INDEX[i]].astype(np.float64)
        q = softmax(out.logits[i].double().numpy())
        by_part = [softmax(out.part_logits[part][i].double().numpy()) for part in VIEWS[1:]]
        onehot = np.eye(K)[y]
        mixed = sum(a * p for a, p in zip(softmax(agreement), by_part, strict=True))
        whole -= (0.3 * onehot + 0.7 * mixed) @ np.log(q) / len(LABELS)
        for share, p in zip(agreement, by_part, strict=True):
            if aware:
                uniform = np.full(K, 1 / K)
                divergence = uniform @ np.log(uniform / p)
                loss = share * -np.log(p[y]) + (1 - share) * divergence
            else:
                loss = -(0.8 * onehot + 0.2 / K) @ np.log(p)
            parts += loss / 2 / len(LABELS)
    assert terms.keys() == {"id", "id/parts", "triplet"}
    assert terms["id"].item() == pytest.approx(whole, rel=1e-4)
    assert terms["id/parts"].item() == pytest.approx(parts, rel=1e-4)
    assert terms["triplet"].item() == pytest.approx(triplet(out.views["global"]), rel=1e-4)


def contrast(features, proxies):
    """Mean over rows: -mean log share of the positives among them and all other clusters'."""
    total = 0.0
    for feature, y, camera in zip(
        features.double().numpy(), LABELS.tolist(), CAMID.tolist(), strict=True
    ):
        unit = feature / np.linalg.norm(feature)
        rows = proxies.astype(np.float64) / np.linalg.norm(proxies, axis=1, keepdims=True)
        scores = np.exp(rows @ unit / 0.07)
        positive = [s for s, (k, c) in zip(scores, PROXY_OF, strict=True) if k == y and c != camera]
        negative = [s for s, (k, _) in zip(scores, PROXY_OF, strict=True) if k != y]
        if positive:
            everything = sum(positive) + sum(negative)
            total -= np.mean([math.log(s / everything) for s in positive])
    return total / len(features)


def test_the_camera_term_is_the_formula(make):
    labels = found(camera=True)
    recipe = make(labels, camera_weight=0.5)
    term, out = recipe.losses({"target": batch()})["camera"], output(recipe)
    whole, *parts = (contrast(out.views[v], labels[v].extras["proxies"]) for v in VIEWS)
    assert term.item() == pytest.approx(0.5 * (whole + sum(parts) / 2), rel=1e-4)


def test_a_round_begins_with_unit_centres_and_as_many_classes(make):
    labels = found(aware=True, camera=True)
    recipe = make(labels, camera_weight=0.5)
    for view in VIEWS:
        layer = recipe.student.classifier(view)
        expected = torch.nn.functional.normalize(torch.from_numpy(labels[view].centers))
        torch.testing.assert_close(layer.weight[:K].detach(), expected)
        assert layer.num_classes == K
        np.testing.assert_array_equal(
            recipe.memory[f"proxies_{view}"].numpy(), labels[view].extras["proxies"]
        )
    extras = labels["global"].extras
    np.testing.assert_array_equal(recipe.memory["agreement"].numpy(), extras["agreement"])
    np.testing.assert_array_equal(recipe.memory["proxy_of"].numpy(), PROXY_OF)
    assert bool(recipe.memory["aware"])
    assert output(recipe).logits.shape == (8, K)


def features():
    rng = np.random.Generator(np.random.Philox(3))
    means = rng.normal(size=(10, 32))
    rows = means[rng.integers(10, size=N)]
    views = {}
    for view in VIEWS:
        noisy = rows + 0.5 * rng.normal(size=rows.shape)
        noisy[:4] = rng.normal(size=(4, 32))  # like no other
        views[view] = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    return views


@pytest.mark.parametrize("num_shards", [1, 2])
def test_labels_and_what_is_found_besides(num_shards, make):
    rows, camid = features(), np.arange(N) % 3
    recipe = make(camera_weight=0.5, aals_from=2, agreement_neighbors=6, dbscan=TIGHT)
    recipe.know_cameras(camid)
    pools = {view: split(value, num_shards) for view, value in rows.items()}
    labels = recipe.label(pools, round=1)
    assert tuple(labels) == VIEWS
    expected = jaccard_dbscan(split(rows["global"], 1), recipe.config.dbscan).labels
    assert (expected == OUTLIER).any()
    assert expected.max() > 1
    proxy_of = sorted({(k, c) for k, c in zip(expected, camid, strict=True) if k != OUTLIER})
    for view, value in labels.items():
        np.testing.assert_array_equal(value.labels, expected)
        means = [rows[view][expected == k].mean(0) for k in range(expected.max() + 1)]
        np.testing.assert_allclose(value.centers, means, rtol=1e-5, atol=1e-6)
        proxies = [rows[view][(expected == k) & (camid == c)].mean(0) for k, c in proxy_of]
        np.testing.assert_allclose(value.extras["proxies"], proxies, rtol=1e-5, atol=1e-6)
    extras = labels["global"].extras
    np.testing.assert_array_equal(extras["proxy_of"], proxy_of)
    parts = np.stack([rows["part0"], rows["part1"]], axis=2)
    agreement = cross_agreement(rows["global"], parts, k=6).astype(np.float32)
    np.testing.assert_array_equal(extras["agreement"], agreement)
    assert not extras["aware"]
    assert recipe.label(pools, round=2)["global"].extras["aware"]


def test_without_a_weight_cameras_are_not_asked_for(make):
    recipe = make()
    recipe.know_cameras(np.arange(N) % 3)
    pools = {view: split(value, 1) for view, value in features().items()}
    labels = recipe.label(pools, round=0)
    assert set(labels["global"].extras) == {"agreement", "aware"}
    assert not labels["part0"].extras


def test_more_clusters_than_there_is_room_for_are_refused(make):
    recipe = make(max_clusters=2)
    pools = {view: split(value, 1) for view, value in features().items()}
    with pytest.raises(ValueError, match=r"max_clusters is 2; give --max-clusters \d+ or more"):
        recipe.label(pools, round=0)


def test_retrieval_sees_the_global_view_alone(make):
    recipe = make()
    recipe.networks.eval()
    images = drawn(3, 3, 32, 16, seed=4)
    with torch.no_grad():
        before = recipe.embed(images)
        for view in VIEWS[1:]:
            recipe.student.necks[view].weight.mul_(-1)
        assert torch.equal(recipe.embed(images), before)
        assert torch.equal(recipe.features(images)["global"], before)
        recipe.student.necks["global"].running_mean.add_(1)
        assert not torch.equal(recipe.embed(images), before)


def test_named_runs_are_the_published_settings():
    market, veri = RUNS["pplr-market1501"], RUNS["pplr-veri776-camera"]
    assert isinstance(market, PPLRConfig)
    assert (market.height, market.width, market.num_parts, market.norm_group) == (384, 128, 3, 16)
    assert (market.num_identities, market.num_instances) == (16, 4)
    assert (market.dbscan.eps, market.camera_weight) == (0.5, 0.0)
    assert (veri.num_identities, veri.num_instances, veri.height, veri.width) == (8, 8, 256, 256)
    assert (veri.dbscan.eps, veri.camera_weight) == (0.7, 0.5)
    assert RUNS["pplr-msmt17-camera"].camera_weight == 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_parts": 0}, "num_parts is 0"),
        ({"agreement_neighbors": 0}, "agreement_neighbors is 0"),
        ({"onehot_weight": 1.5}, "onehot_weight is 1.5"),
        ({"smoothing": -0.1}, "smoothing is -0.1"),
        ({"camera_weight": -1.0}, "camera_weight is -1"),
    ],
)
def test_settings_that_cannot_train_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PPLRConfig(**values)
