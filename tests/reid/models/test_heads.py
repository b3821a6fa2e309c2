import pytest
import torch

from reid.models import BNNeck, classifier, reset_from_centers_, seeded


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
