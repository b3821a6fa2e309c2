import math

import pytest
import torch

from reid.losses import agreement_label_smoothing, part_guided_refinement

B, K, P = 6, 5, 3
LABELS = torch.tensor([0, 4, 4, 2, 1, 0])


def draws():
    generator = torch.Generator().manual_seed(0)
    return {
        "logits": 3 * torch.randn(B, K, generator=generator),
        "part_logits": 3 * torch.randn(B, K, P, generator=generator),
        "agreement": torch.rand(B, P, generator=generator),
    }


def probabilities(row):
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def smoothing_reference(logits, labels, agreement):
    """Mean of c CE + (1 - c) KL(u || q)."""
    total = 0.0
    for row, y, c in zip(logits.tolist(), labels.tolist(), agreement.tolist(), strict=True):
        q = probabilities(row)
        divergence = sum(1 / len(q) * math.log(1 / len(q) / share) for share in q)
        total += c * -math.log(q[y]) + (1 - c) * divergence
    return total / len(logits)


def refinement_reference(logits, part_logits, labels, agreement, onehot_weight):
    """Mean of -sum_k target_k log q_k, the target mixed from the label and weighted parts."""
    total = 0.0
    for i, y in enumerate(labels.tolist()):
        q, shares = probabilities(logits[i].tolist()), probabilities(agreement[i].tolist())
        parts = [probabilities(part_logits[i, :, n].tolist()) for n in range(P)]
        for k in range(K):
            ensemble = sum(share * part[k] for share, part in zip(shares, parts, strict=True))
            target = onehot_weight * (k == y) + (1 - onehot_weight) * ensemble
            total -= target * math.log(q[k])
    return total / len(logits)


def test_released_smoothing_loss_and_gradient(golden):
    arrays = {
        name: torch.from_numpy(a) for name, a in golden("pplr_agreement_label_smoothing").items()
    }
    logits = arrays["logits"].requires_grad_()
    loss = agreement_label_smoothing(logits, arrays["labels"], arrays["agreement"])
    loss.backward()
    torch.testing.assert_close(loss.detach(), arrays["loss"], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits.grad, arrays["grad"], rtol=0, atol=1e-5)


def test_released_refinement_loss_and_gradient(golden):
    arrays = {
        name: torch.from_numpy(a) for name, a in golden("pplr_part_guided_refinement").items()
    }
    logits = arrays["global_logits"].requires_grad_()
    loss = part_guided_refinement(
        logits,
        arrays["part_logits"],
        arrays["labels"],
        arrays["agreement"],
        onehot_weight=float(arrays["lam"]),
    )
    loss.backward()
    torch.testing.assert_close(loss.detach(), arrays["loss"], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits.grad, arrays["grad"], rtol=0, atol=1e-5)


def test_smoothing_matches_loops():
    logits, agreement = draws()["logits"], draws()["agreement"][:, 0]
    agreement[:2] = torch.tensor([0.0, 1.0])
    expected = smoothing_reference(logits, LABELS, agreement)
    loss = agreement_label_smoothing(logits, LABELS, agreement)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert torch.autograd.gradcheck(
        lambda x: agreement_label_smoothing(x, LABELS, agreement.double()),
        logits.double().requires_grad_(),
    )


@pytest.mark.parametrize("onehot_weight", [0.0, 0.5, 0.8, 1.0])
def test_refinement_matches_loops(onehot_weight):
    drawn = draws()
    logits, part_logits, agreement = drawn["logits"], drawn["part_logits"], drawn["agreement"]
    expected = refinement_reference(logits, part_logits, LABELS, agreement, onehot_weight)
    loss = part_guided_refinement(
        logits, part_logits, LABELS, agreement, onehot_weight=onehot_weight
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    if onehot_weight == 0.5:
        assert torch.equal(loss, part_guided_refinement(logits, part_logits, LABELS, agreement))


def test_refinement_gradients_reach_the_global_logits_only():
    drawn = draws()
    logits, part_logits, agreement = (value.double() for value in drawn.values())
    part_logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: part_guided_refinement(x, part_logits.detach(), LABELS, agreement),
        logits.requires_grad_(),
    )
    part_guided_refinement(logits, part_logits, LABELS, agreement).backward()
    assert part_logits.grad is None


def test_bfloat16_logits_are_not_rounded_again():
    drawn = {name: value.bfloat16() for name, value in draws().items()}
    exact = {name: value.float() for name, value in drawn.items()}
    for values in (drawn, exact):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=values is drawn):
            values["losses"] = (
                agreement_label_smoothing(values["logits"], LABELS, values["agreement"][:, 0]),
                part_guided_refinement(
                    values["logits"], values["part_logits"], LABELS, values["agreement"]
                ),
            )
    for found, expected in zip(drawn["losses"], exact["losses"], strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


@pytest.mark.parametrize("onehot_weight", [-0.1, 1.5])
def test_weights_outside_0_to_1_are_refused(onehot_weight):
    drawn = draws()
    with pytest.raises(ValueError, match=f"between 0 and 1, got {onehot_weight}"):
        part_guided_refinement(
            drawn["logits"],
            drawn["part_logits"],
            LABELS,
            drawn["agreement"],
            onehot_weight=onehot_weight,
        )
