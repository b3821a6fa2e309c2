import math

import pytest
import torch

from reid.losses import smoothed_cross_entropy


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
