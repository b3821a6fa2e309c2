import math

import pytest
import torch

from reid.losses import (
    accuracy_weights,
    smoothed_cross_entropy,
    soft_cross_entropy,
    weighted_cross_entropy,
)


def loop_reference(logits, labels, smoothing):
    """Cross entropy with (1 - eps) onehot + eps / K (arXiv 1512.00567, section 7)."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        for k, value in enumerate(row):
            target = (1 - smoothing) * (k == label) + smoothing / len(row)
            total -= target * (value - log_sum)
    return total / len(logits)


def batch():
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(6, 5, generator=generator), torch.tensor([0, 4, 4, 2, 1, 0])


def test_released_loss_and_gradient(golden):
    arrays = golden("label_smooth_ce")
    logits = torch.from_numpy(arrays["logits"]).requires_grad_()
    loss = smoothed_cross_entropy(
        logits, torch.from_numpy(arrays["labels"]), smoothing=float(arrays["epsilon"])
    )
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(arrays["loss"]), abs=1e-5)
    torch.testing.assert_close(logits.grad, torch.from_numpy(arrays["grad"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_matches_loops(smoothing):
    logits, labels = batch()
    expected = loop_reference(logits, labels, smoothing)
    loss = smoothed_cross_entropy(logits, labels, smoothing=smoothing)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_smoothing_is_a_tenth_unless_said():
    logits, labels = batch()
    assert float(smoothed_cross_entropy(logits, labels)) == pytest.approx(
        loop_reference(logits, labels, 0.1), rel=1e-5
    )


def test_gradients():
    logits, labels = batch()
    assert torch.autograd.gradcheck(
        lambda x: smoothed_cross_entropy(x, labels), logits.double().requires_grad_()
    )


def test_bfloat16_logits_are_not_rounded_again():
    logits, labels = batch()
    loss = smoothed_cross_entropy(logits.bfloat16(), labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, smoothed_cross_entropy(logits.bfloat16().float(), labels))


@pytest.mark.parametrize("smoothing", [-0.1, 1.5])
def test_smoothing_outside_0_to_1_is_refused(smoothing):
    with pytest.raises(ValueError, match=f"between 0 and 1, got {smoothing}"):
        smoothed_cross_entropy(*batch(), smoothing=smoothing)


def test_released_soft_loss_and_gradient(golden):
    arrays = golden("soft_cross_entropy")
    logits = torch.from_numpy(arrays["logits"]).requires_grad_()
    loss = soft_cross_entropy(logits, torch.from_numpy(arrays["teacher_logits"]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(arrays["loss"]), abs=1e-5)
    torch.testing.assert_close(logits.grad, torch.from_numpy(arrays["grad"]), rtol=0, atol=1e-5)


def probabilities(row):
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def teacher():
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(1))


def test_soft_matches_loops():
    logits, _ = batch()
    expected = 0.0
    for row, target in zip(logits.tolist(), teacher().tolist(), strict=True):
        for p, t in zip(probabilities(row), probabilities(target), strict=True):
            expected -= t * math.log(p) / len(logits)
    assert float(soft_cross_entropy(logits, teacher())) == pytest.approx(expected, rel=1e-5)


def test_soft_gradients_reach_the_student_only():
    logits, _ = batch()
    assert torch.autograd.gradcheck(
        lambda x: soft_cross_entropy(x, teacher().double()), logits.double().requires_grad_()
    )
    logits.requires_grad_()
    taught = teacher().requires_grad_()
    soft_cross_entropy(logits, taught).backward()
    assert taught.grad is None


def test_weighted_matches_loops():
    logits, labels = batch()
    weights = torch.tensor([0.0, 1.0, 0.5, 0.25, 2.0, 0.1])
    expected = sum(
        -w * math.log(probabilities(row)[y])
        for row, y, w in zip(logits.tolist(), labels.tolist(), weights.tolist(), strict=True)
    ) / len(logits)
    loss = weighted_cross_entropy(logits, labels, weights)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert torch.autograd.gradcheck(
        lambda x: weighted_cross_entropy(x, labels, weights.double()),
        logits.double().requires_grad_(),
    )


def test_losses_of_bfloat16_logits_are_float32():
    logits, labels = batch()
    rounded, taught = logits.bfloat16(), teacher().bfloat16()
    weights = torch.ones(6, dtype=torch.bfloat16)
    for loss, exact in (
        (soft_cross_entropy(rounded, taught), soft_cross_entropy(rounded.float(), taught.float())),
        (
            weighted_cross_entropy(rounded, labels, weights),
            weighted_cross_entropy(rounded.float(), labels, weights.float()),
        ),
    ):
        assert loss.dtype == torch.float32
        assert torch.equal(loss, exact)


def rows(*, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 8, generator=generator)


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.hypot(*a) / math.hypot(*b)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_accuracy_weights_match_loops(scale):
    student, taught, centers = rows(seed=2), rows(seed=3), 5 * rows(seed=4)[:4]
    weights = accuracy_weights(student, taught, centers, scale=scale)
    for found, f, g in zip(weights.tolist(), student.tolist(), taught.tolist(), strict=True):
        p = probabilities([scale * cosine(f, v) for v in centers.tolist()])
        t = probabilities([scale * cosine(g, v) for v in centers.tolist()])
        divergence = sum(b * math.log(b / a) for a, b in zip(p, t, strict=True))
        assert found == pytest.approx(math.exp(-divergence), rel=1e-4)


def test_accuracy_weights_have_a_scale_of_20_and_no_gradient():
    student, taught, centers = rows(seed=2).requires_grad_(), rows(seed=3), rows(seed=4)
    weights = accuracy_weights(student, taught, centers)
    assert not weights.requires_grad
    assert torch.equal(weights, accuracy_weights(student, taught, centers, scale=20.0))


def test_networks_that_agree_have_weight_one_and_others_less():
    same = rows(seed=2)
    assert torch.equal(accuracy_weights(same, 3 * same, same), torch.ones(6))
    others = accuracy_weights(same, rows(seed=3), same)
    assert bool(((others >= 0) & (others < 1)).all())


def test_certain_networks_that_contradict_each_other_have_a_finite_weight():
    centers = torch.eye(8)
    weights = accuracy_weights(centers, centers.flip(0), centers, scale=1e4)
    assert torch.equal(weights, torch.zeros(8))


def test_accuracy_weights_under_autocast_are_computed_in_float32():
    student, taught, centers = rows(seed=2), rows(seed=3), rows(seed=4)
    exact = accuracy_weights(student, taught, centers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(accuracy_weights(student, taught, centers), exact)
