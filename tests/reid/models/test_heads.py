import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reid.models import (
    BNNeck,
    DynamicClassifier,
    classifier,
    ema_copy,
    load_weights,
    reset_from_centers_,
    seeded,
)


def random_rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_neck_standardises_each_channel_and_trains_its_weight_only():
    features = 3 + 2 * torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    neck = BNNeck(5)
    expected = (features - features.mean(0)) / torch.sqrt(features.var(0, unbiased=False) + 1e-5)
    torch.testing.assert_close(neck(features), expected, rtol=1e-5, atol=1e-5)
    assert {n for n, p in neck.named_parameters() if p.requires_grad} == {"weight"}
    assert float(neck.bias.abs().max()) == 0


def test_fresh_classifier():
    with seeded(0):
        layer = classifier(256, 100)
    assert layer.bias is None
    assert layer.weight.shape == (100, 256)
    assert float(layer.weight.detach().std()) == pytest.approx(0.001, rel=0.02)
    with seeded(0):
        assert torch.equal(classifier(256, 100).weight, layer.weight)


def test_classifier_rows_become_unit_centres():
    centers = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    layer = classifier(6, 4)
    weight = layer.weight
    reset_from_centers_(layer, centers)
    assert layer.weight is weight
    assert weight.requires_grad
    for row, center in zip(weight.tolist(), centers.tolist(), strict=True):
        length = sum(value * value for value in center) ** 0.5
        assert row == pytest.approx([value / length for value in center], abs=1e-6)


def test_centres_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(5, 6\) do not fit a classifier of \(4, 6\)"):
        reset_from_centers_(classifier(6, 4), torch.ones(5, 6))


def test_a_dynamic_classifier_is_a_plain_one_of_the_rounds_classes():
    with seeded(0):
        layer = DynamicClassifier(6, 9)
    assert layer.bias is None
    features = random_rows(4, 6, seed=1)
    assert layer(features).shape == (4, 0)  # before the first round
    untouched = layer.weight.detach().clone()
    for count, seed in ((7, 2), (3, 3), (9, 4)):
        centers = random_rows(count, 6, seed=seed)
        plain = classifier(6, count)
        reset_from_centers_(plain, centers)
        reset_from_centers_(layer, centers)
        assert layer.num_classes == count
        torch.testing.assert_close(layer(features), plain(features))
        if count == 7:
            assert torch.equal(layer.weight[7:], untouched[7:])


def test_unused_rows_get_a_gradient_of_zero():
    layer = DynamicClassifier(6, 9)
    reset_from_centers_(layer, random_rows(4, 6))
    features, labels = random_rows(8, 6, seed=1), torch.arange(8) % 4
    F.cross_entropy(layer(features), labels).backward()
    plain = classifier(6, 4)
    reset_from_centers_(plain, random_rows(4, 6))
    F.cross_entropy(plain(features), labels).backward()
    torch.testing.assert_close(layer.weight.grad[:4], plain.weight.grad)
    assert torch.equal(layer.weight.grad[4:], torch.zeros(5, 6))


def test_the_number_of_classes_travels_in_strict_state_dictionaries_and_copies():
    layer = nn.Sequential(DynamicClassifier(6, 9))
    reset_from_centers_(layer[0], random_rows(4, 6))
    state = layer.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    loaded, read = nn.Sequential(DynamicClassifier(6, 9)), nn.Sequential(DynamicClassifier(6, 9))
    loaded.load_state_dict(state)
    load_weights(read, state)
    for other in (loaded, read, ema_copy(layer)):
        assert other[0].num_classes == 4
        assert torch.equal(other(random_rows(3, 6)), layer(random_rows(3, 6)))
    with pytest.raises(RuntimeError, match="extra_state"):
        loaded.load_state_dict({"0.weight": state["0.weight"]})


def test_more_clusters_than_a_dynamic_classifier_holds_are_refused():
    layer = DynamicClassifier(6, 9)
    with pytest.raises(ValueError, match=r"10 clusters .* at most 9 .* larger max_classes"):
        reset_from_centers_(layer, random_rows(10, 6))
    with pytest.raises(ValueError, match=r"\(4, 5\) do not fit a classifier of \(9, 6\)"):
        reset_from_centers_(layer, random_rows(4, 5))
    assert layer.num_classes == 0
