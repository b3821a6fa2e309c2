import math

import pytest
import torch

from reid.losses import batch_hard_triplet, soft_softmax_triplet, softmax_triplet


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


def hardest_rows(features, labels):
    """Return each row's farthest row of its label and nearest row of another."""
    rows, labels = features.tolist(), labels.tolist()
    found = []
    for anchor, label in zip(rows, labels, strict=True):
        distances = [math.dist(anchor, row) for row in rows]
        same = [i for i, y in enumerate(labels) if y == label]
        other = [i for i, y in enumerate(labels) if y != label]
        found.append((max(same, key=distances.__getitem__), min(other, key=distances.__getitem__)))
    return found


def distances_to(features, pairs):
    rows = features.tolist()
    return [
        (math.dist(rows[i], rows[p]), math.dist(rows[i], rows[n])) for i, (p, n) in enumerate(pairs)
    ]


def soft_reference(features, teacher_features, labels):
    """Mean of -(t' log t + (1 - t') log(1 - t)), triplets mined by the student."""
    pairs, losses = hardest_rows(features, labels), []
    for (d_p, d_n), (t_p, t_n) in zip(
        distances_to(features, pairs), distances_to(teacher_features, pairs), strict=True
    ):
        ours = math.exp(d_n) / (math.exp(d_p) + math.exp(d_n))
        target = math.exp(t_n) / (math.exp(t_p) + math.exp(t_n))
        losses.append(-target * math.log(ours) - (1 - target) * math.log(1 - ours))
    return sum(losses) / len(losses)


def margin_reference(features, labels, margin):
    pairs = distances_to(features, hardest_rows(features, labels))
    return sum(max(0.0, margin + d_p - d_n) for d_p, d_n in pairs) / len(pairs)


def teacher(seed=7):
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(seed))


def test_released_soft_loss_and_gradient(golden):
    arrays = golden("soft_softmax_triplet")
    features = torch.from_numpy(arrays["features"]).requires_grad_()
    taught = torch.from_numpy(arrays["teacher_features"]).requires_grad_()
    loss = soft_softmax_triplet(features, taught, torch.from_numpy(arrays["labels"]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(arrays["loss"]), abs=1e-5)
    torch.testing.assert_close(features.grad, torch.from_numpy(arrays["grad"]), rtol=0, atol=1e-5)
    assert taught.grad is None


def test_released_margin_loss_and_gradient(golden):
    arrays = golden("triplet_margin")
    features = torch.from_numpy(arrays["features"]).requires_grad_()
    labels = torch.from_numpy(arrays["labels"])
    loss = batch_hard_triplet(features, labels, margin=float(arrays["margin"]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(arrays["loss"]), abs=1e-5)
    torch.testing.assert_close(features.grad, torch.from_numpy(arrays["grad"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_soft_matches_loops(seed):
    features, labels = batch(seed=seed)
    expected = soft_reference(features, teacher(), labels)
    loss = soft_softmax_triplet(features, teacher(), labels)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("margin", [0.0, 0.3, 5.0])
def test_margin_matches_loops(margin):
    features, labels = batch()
    features[:3] += 2  # so that one label needs no push at small margins
    loss = batch_hard_triplet(features, labels, margin=margin)
    assert float(loss) == pytest.approx(margin_reference(features, labels, margin), rel=1e-5)


def test_margin_is_three_tenths_unless_said():
    features, labels = batch()
    expected = margin_reference(features, labels, 0.3)
    assert float(batch_hard_triplet(features, labels)) == pytest.approx(expected, rel=1e-5)


def soft(features, labels):
    return soft_softmax_triplet(features, teacher()[: len(labels)].to(features.dtype), labels)


@pytest.mark.parametrize("loss", [soft, batch_hard_triplet])
def test_other_forms_share_mining_gradients_and_precision(loss):
    features, labels = batch()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), features.double().requires_grad_())
    exact = loss(features, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(features, labels), exact)
    rounded = loss(features.bfloat16(), labels)
    assert rounded.dtype == torch.float32


@pytest.mark.parametrize("loss", [soft, batch_hard_triplet])
@pytest.mark.parametrize("given", [(3, 3, 3, 3), (0, 1, 2, 3), (0, 0, 1, 1)])
def test_other_forms_are_zero_without_negatives_and_finite_on_equal_rows(loss, given):
    labels = torch.tensor(given)
    features = torch.ones(4, 5, requires_grad=True)
    value = loss(features, labels)
    value.backward()
    assert (float(value.detach()) == 0) == (len(set(given)) == 1)
    assert bool(features.grad.isfinite().all())
