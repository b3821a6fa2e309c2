"""MMT against its formulas, recomputed from what the networks say; eps of the first round."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import DBSCAN

from reid.clustering import jaccard_distance, split
from reid.models import GlobalNet, resnet
from reid.recipes import Sizes, build
from reid.recipes.mmt import MMTConfig
from reid.types import OUTLIER, Batch, PseudoLabels

K, C = 8, 512
LABELS = torch.tensor([0, 0, 3, 3, 5, 5, 7, 7])


@pytest.fixture
def make(tiny_configs, make_recipe):
    def go(method="mmt", **changes):
        recipe = make_recipe(replace(tiny_configs[method], **changes))
        recipe.networks.train()
        return recipe

    return go


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images, second = torch.randn((2, 8, 3, 32, 16), generator=generator)
    zeros = torch.zeros(8, dtype=torch.int64)
    labels = {"global": LABELS}
    return Batch(images=images, second=second, index=torch.arange(8), labels=labels, camid=zeros)


def outputs(recipe, given: Batch, rows: slice = slice(None)):
    """Return (features before the neck, logits) of S1, S2, T1, T2: each has a view of its own."""
    found = []
    with torch.no_grad():  # outputs in training mode do not depend on running statistics
        for pair in (recipe.student, recipe.teacher):
            for net, images in zip(pair.nets, (given.images, given.second), strict=True):
                out = net(images[rows])
                found.append((out.map.double().mean((2, 3)), out.logits.double()))
    return found


def hardest(features):
    """Return each anchor's farthest positive and nearest negative row."""
    distance = torch.cdist(features, features)
    same = LABELS[:, None] == LABELS
    positive = distance.masked_fill(~same, -1).argmax(1)
    return positive, distance.masked_fill(same, torch.inf).argmin(1)


def ratio(features, positive, negative):
    """Return e^d_an / (e^d_ap + e^d_an) of each anchor."""
    near = (features - features[positive]).norm(dim=1).exp()
    far = (features - features[negative]).norm(dim=1).exp()
    return far / (near + far)


def different_teachers_(recipe):
    """Move the teachers away from their students, so that it matters which one teaches."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in recipe.teacher.parameters():
            value.mul_(1 + 0.1 * torch.randn(value.shape, generator=generator))


@pytest.mark.parametrize(("soft_identity", "soft_triplet"), [(0.5, 0.8), (0.3, 0.6)])
def test_losses_are_the_formula(soft_identity, soft_triplet, make):
    recipe = make(soft_identity=soft_identity, soft_triplet=soft_triplet, smoothing=0.2)
    (draw,) = recipe.draws
    assert (draw.name, draw.table, draw.labels, draw.views) == ("target", "target", "global", 2)
    different_teachers_(recipe)
    with torch.no_grad():
        for net in (*recipe.student.nets, *recipe.teacher.nets):
            net.classifier.weight.mul_(100)  # fresh ones smooth all targets alike
    given = batch(0)
    terms = recipe.losses({"target": given})
    s1, s2, t1, t2 = outputs(recipe, given)
    expected = dict.fromkeys(("id", "triplet", "soft_id", "soft_triplet"), 0.0)
    target = 0.8 * F.one_hot(LABELS, K) + 0.2 / K
    for (features, logits), (taught, teaching) in ((s1, t2), (s2, t1)):
        log = logits.log_softmax(1)
        rows = hardest(features)
        t, aim = ratio(features, *rows), ratio(taught, *rows)
        expected["id"] -= (1 - soft_identity) * (target * log).sum(1).mean()
        expected["soft_id"] -= soft_identity * (teaching.softmax(1) * log).sum(1).mean()
        expected["triplet"] -= (1 - soft_triplet) * t.log().mean()
        soft = aim * t.log() + (1 - aim) * (1 - t).log()
        expected["soft_triplet"] -= soft_triplet * soft.mean()
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(float(value), rel=1e-3, abs=1e-5), name


def test_defaults_are_the_published_ones():
    config = MMTConfig(initial="a", second_initial="b")
    assert (config.soft_identity, config.soft_triplet, config.smoothing) == (0.5, 0.8, 0.1)
    assert (config.num_identities, config.num_instances, config.norm_group) == (16, 4, 16)
    assert (config.num_rounds, config.steps_per_round, config.ema_momentum) == (40, 400, 0.999)
    assert config.optim.optimizer_reset
    assert config.starts == {"initial": "a", "second_initial": "b"}


def test_a_batch_is_normalised_in_groups(make):
    recipe = make(norm_group=4)
    given = batch(0)
    whole = outputs(recipe, given)
    parts = [outputs(recipe, given, half) for half in (slice(4), slice(4, 8))]
    for net, (features, logits) in enumerate(whole):
        for value, place in ((features, 0), (logits, 1)):
            expected = torch.cat([part[net][place] for part in parts])
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    plain = outputs(make(), given)
    assert not torch.allclose(plain[0][0], whole[0][0], atol=1e-3)


def test_the_students_start_apart(make):
    first, second = make().student.nets
    assert not torch.equal(first.backbone.conv1.weight, second.backbone.conv1.weight)
    first, second = make().teacher.nets
    assert not torch.equal(first.backbone.conv1.weight, second.backbone.conv1.weight)


@pytest.mark.parametrize("method", ["mmt", "mmt_dbscan", "inclr"])
def test_global_necks_come_with_the_source_networks_unless_fresh(method, tiny_configs):
    config = replace(tiny_configs[method], norm_group=4)
    sources = [
        GlobalNet(resnet(config.backbone, weights=None, last_stride=1, seed=i), None, seed=i)
        for i in (1, 2)
    ]
    for value, net in enumerate(sources, start=3):
        net.neck.running_mean.fill_(value)
    starts = dict(zip(config.starts, (net.state_dict() for net in sources), strict=True))
    for neck, expected in (("source", (3.0, 4.0)), ("fresh", (0.0, 0.0))):
        sizes = Sizes(num_identities=0, num_images=64)
        made = build(replace(config, neck=neck), sizes=sizes, starts=starts)
        for pair in (made.student, made.teacher):
            for net, value in zip(pair.nets, expected, strict=True):
                assert set(net.neck.running_mean.tolist()) == {value}
                for name, other in net.named_buffers():
                    if name.startswith("necks.part") and name.endswith("running_mean"):
                        assert not other.any()


def test_both_teachers_follow_with_a_growing_momentum_and_keep_their_statistics(make):
    recipe = make(ema_momentum=0.6)
    recipe.losses({"target": batch(0)})
    for step, momentum in ((0, 0.0), (1, 0.5), (9, 0.6)):  # min(1 - 1/(t+1), 0.6)
        with torch.no_grad():
            for value in (*recipe.student.parameters(), *recipe.student.buffers()):
                value.add_(1)
        before = {n: v.clone() for n, v in recipe.teacher.state_dict().items()}
        recipe.after_step(step=step)
        for name, value in recipe.student.named_parameters():
            expected = momentum * before[name] + (1 - momentum) * value
            found = recipe.teacher.get_parameter(name)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        for name, value in recipe.teacher.named_buffers():
            assert torch.equal(value, before[name])


def centers(count):
    return np.random.default_rng(0).normal(size=(count, C)).astype(np.float32)


@pytest.mark.parametrize(("method", "count"), [("mmt", K), ("mmt_dbscan", 5)])
def test_a_round_starts_from_unit_centres_in_all_four_classifiers(method, count, make):
    recipe = make(method)
    extras = {"eps": np.array(0.125)} if method == "mmt_dbscan" else {}
    found = PseudoLabels(labels=np.arange(64) % count, centers=centers(count), extras=extras)
    recipe.begin_round({"global": found})
    expected = F.normalize(torch.from_numpy(found.centers))
    for net in (*recipe.student.nets, *recipe.teacher.nets):
        torch.testing.assert_close(net.classifier.weight[:count], expected)
    given = batch(0)
    given.labels["global"].clamp_(max=count - 1)
    assert {out.logits.shape for out in recipe.student(given.images, given.second)} == {(8, count)}


def test_features_are_the_mean_of_both_teachers_and_retrieval_asks_one(make):
    recipe = make()
    recipe.networks.eval()
    images = batch(3).images
    sides = (images, images.flip(3))
    with torch.no_grad():
        each = [[F.normalize(net(side).embedding) for side in sides] for net in recipe.teacher.nets]
        features, embedding = recipe.features(images), recipe.embed(images)
        other = make(inference="second")
        other.networks.eval()
        second = other.embed(images)
    assert tuple(features) == recipe.views == ("global",)
    mean = sum(each[0] + each[1]) / 4
    torch.testing.assert_close(features["global"], F.normalize(mean))
    torch.testing.assert_close(embedding, F.normalize(sum(each[0])))
    torch.testing.assert_close(second, F.normalize(sum(each[1])))


def rows(count: int, seed: int) -> np.ndarray:
    """Return unit rows in overlapping groups."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(12, 16))[rng.integers(12, size=count)] + rng.normal(size=(count, 16))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def dense(features: np.ndarray) -> np.ndarray:
    stored = jaccard_distance(features, k1=20, k2=6, definition="zhong").tocoo()
    distance = np.ones(stored.shape, dtype=np.float32)
    distance[stored.row, stored.col] = stored.data
    return distance


def published_eps(distance: np.ndarray, share: float) -> float:
    upper = distance[np.triu_indices(len(distance), 1)]
    upper = np.sort(upper[upper > 0])
    return float(upper[: int(np.round(share * len(upper)))].mean(dtype=np.float64))


def test_eps_is_found_in_the_first_round_and_kept(make):
    recipe = make("mmt_dbscan", k1=20, k2=6, min_samples=4, eps_share=0.02)
    first, second = rows(300, 0), rows(300, 1)
    found = recipe.label({"global": split(first, 1)}, round=0)["global"]
    eps = published_eps(dense(first), 0.02)
    assert float(found.extras["eps"]) == pytest.approx(eps, rel=1e-6)
    again = recipe.label({"global": split(first, 1)}, round=0)["global"]
    assert float(again.extras["eps"]) == float(found.extras["eps"])
    recipe.begin_round({"global": replace(found, centers=centers(found.num_clusters))})
    later = recipe.label({"global": split(second, 1)}, round=1)["global"]
    assert float(later.extras["eps"]) == float(found.extras["eps"])
    assert published_eps(dense(second), 0.02) != pytest.approx(eps, rel=1e-4)
    for features, result in ((first, found), (second, later)):
        search = DBSCAN(eps=float(result.extras["eps"]), min_samples=4, metric="precomputed")
        expected = search.fit_predict(dense(features))
        np.testing.assert_array_equal(result.labels, expected)
        assert result.num_clusters > 1
        assert (expected == OUTLIER).any()
        for cluster, center in enumerate(result.centers):
            mean = features[expected == cluster].mean(axis=0)
            np.testing.assert_allclose(center, mean, rtol=1e-5, atol=1e-6)
    state = recipe.networks.state_dict()
    other = make("mmt_dbscan")
    assert float(other.memory["eps"]) == 0
    other.networks.load_state_dict(state)
    assert float(other.memory["eps"]) == float(found.extras["eps"])


@pytest.mark.parametrize("method", ["mmt", "mmt_dbscan"])
def test_labels_do_not_depend_on_the_shards(method, make):
    recipe = make(method, num_clusters=K, k1=20, k2=6, min_samples=4, eps_share=1.6e-3)
    features = rows(2500, 0)  # three blocks
    whole = recipe.label({"global": split(features, 1)}, round=3)["global"]
    shared = recipe.label({"global": split(features, 3)}, round=3)["global"]
    np.testing.assert_array_equal(whole.labels, shared.labels)
    np.testing.assert_array_equal(whole.centers, shared.centers)
    assert dict(whole.extras) == dict(shared.extras)
    assert whole.num_clusters > 1


def test_settings_that_cannot_train_are_refused(make):
    with pytest.raises(ValueError, match="min_samples is 0"):
        make("mmt_dbscan", min_samples=0)
    with pytest.raises(ValueError, match="num_clusters is 1"):
        make(num_clusters=1)
    with pytest.raises(ValueError, match="eps_share is 0"):
        make("mmt_dbscan", eps_share=0.0)
    with pytest.raises(ValueError, match="k1 is 2 and k2 is 3"):
        make("mmt_dbscan", k1=2, k2=3)
    recipe = make("mmt_dbscan", k1=20, k2=6, max_clusters=2)
    with pytest.raises(ValueError, match=r"max_clusters is 2; give --max-clusters \d+ or more"):
        recipe.label({"global": split(rows(300, 0), 1)}, round=0)
    make().config.check_target(K)
    with pytest.raises(ValueError, match="only 7 training images"):
        make().config.check_target(7)
    make("mmt_dbscan").config.check_target(7)
