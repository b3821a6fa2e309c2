import math

import pytest
import torch

from reid.losses import softmax_triplet


def loop_reference(features, labels):
    """Mean over anchors of -log(e^d_an / (e^d_ap + e^d_an)) (arXiv 2001.01526, Eq. 7)."""
    rows, labels, losses = features.tolist(), labels.tolist(), []
    for anchor, label in zip(rows, labels, strict=True):
        to_same = [math.dist(anchor, r) for r, y in zip(rows, labels, strict=True) if y == label]
        to_other = [math.dist(anchor, r) for r, y in zip(rows, labels, strict=True) if y != label]
        positive, negative = math.exp(max(to_same)), math.exp(min(to_other))
        losses.append(-math.log(negative / (positive + negative)))
    return sum(losses) / len(losses)


def batch(*, seed=0, labels=(0, 0, 0, 1, 1, 2, 2, 2)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(labels), 5, generator=generator), torch.tensor(labels)


def test_released_loss_and_gradient(golden):
    arrays = golden("softmax_triplet")
    features = torch.from_numpy(arrays["features"]).requires_grad_()
    loss = softmax_triplet(features, torch.from_numpy(arrays["labels"]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(arrays["loss"]), abs=1e-5)
    torch.testing.assert_close(features.grad, torch.from_numpy(arrays["grad"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_matches_loops(seed):
    features, labels = batch(seed=seed)
    expected = loop_reference(features, labels)
    assert float(softmax_triplet(features, labels)) == pytest.approx(expected, rel=1e-5)


def test_an_anchor_alone_with_its_label_is_its_own_positive():
    features, labels = batch(labels=(0, 1, 1, 2))
    features.requires_grad_()
    loss = softmax_triplet(features, labels)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(
        loop_reference(features.detach(), labels), rel=1e-5
    )
    assert bool(features.grad.isfinite().all())


def test_a_batch_of_one_label_gives_zero_with_a_graph():
    features, labels = batch(labels=(3, 3, 3, 3))
    features.requires_grad_()
    loss = softmax_triplet(features, labels)
    assert float(loss.detach()) == 0
    loss.backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_equal_rows_have_a_finite_gradient():
    features = torch.ones(4, 3, requires_grad=True)
    loss = softmax_triplet(features, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(2))
    assert bool(features.grad.isfinite().all())


def test_gradients():
    features, labels = batch()
    assert torch.autograd.gradcheck(
        lambda x: softmax_triplet(x, labels), features.double().requires_grad_()
    )


def test_order_of_the_batch_does_not_matter():
    features, labels = batch()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        softmax_triplet(features[order], labels[order]), softmax_triplet(features, labels)
    )


def test_distances_far_from_the_origin_do_not_cancel():
    features, labels = batch()
    expected = loop_reference(features.double(), labels)
    moved = softmax_triplet(features.double() + 1e5, labels)
    assert float(moved) == pytest.approx(expected, rel=1e-5)


def test_autocast_and_bfloat16_are_computed_in_float32():
    features, labels = batch()
    exact = softmax_triplet(features, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(softmax_triplet(features, labels), exact)
    rounded = features.bfloat16()
    loss = softmax_triplet(rounded, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, softmax_triplet(rounded.float(), labels))
