import math

import pytest
import torch

from reid.losses import camera_contrast

# Cluster 3 was seen by one camera only.
PROXY_LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3])
PROXY_CAMIDS = torch.tensor([0, 1, 2, 0, 3, 1, 2, 3, 1])
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])
CAMIDS = torch.tensor([1, 0, 2, 1, 5, 3])  # camera 5 has no proxy of cluster 0


def draws(seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = 4 * torch.randn(len(LABELS), 8, generator=generator)
    return features, torch.randn(len(PROXY_LABELS), 8, generator=generator)


def contrast(features, proxies, *, labels=LABELS, camids=CAMIDS, **settings):
    return camera_contrast(
        features, labels, camids, proxies, PROXY_LABELS, PROXY_CAMIDS, **settings
    )


def loop_reference(features, proxies, *, temperature, num_negatives):
    """Uniform targets over the cluster's proxies of other cameras, against the hardest others."""
    total = 0.0
    described = list(
        zip(proxies.tolist(), PROXY_LABELS.tolist(), PROXY_CAMIDS.tolist(), strict=True)
    )
    for f, label, camid in zip(features.tolist(), LABELS.tolist(), CAMIDS.tolist(), strict=True):
        positives, negatives = [], []
        for proxy, proxy_label, proxy_camid in described:
            dot = sum(a * b for a, b in zip(f, proxy, strict=True))
            logit = dot / math.hypot(*f) / math.hypot(*proxy) / temperature
            if proxy_label != label:
                negatives.append(logit)
            elif proxy_camid != camid:
                positives.append(logit)
        if positives:
            shown = positives + sorted(negatives)[::-1][:num_negatives]
            log_sum = math.log(sum(math.exp(logit) for logit in shown))
            total -= sum((logit - log_sum) / len(positives) for logit in positives)
    return total / len(features)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_negatives", [1, 3, 50])
def test_matches_loops(seed, num_negatives):
    features, proxies = draws(seed)
    expected = loop_reference(features, proxies, temperature=0.2, num_negatives=num_negatives)
    loss = contrast(features, proxies, temperature=0.2, num_negatives=num_negatives)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_temperature_is_7_hundredths_and_50_are_hardest_unless_said():
    features, proxies = draws()
    expected = loop_reference(features, proxies, temperature=0.07, num_negatives=50)
    assert float(contrast(features, proxies)) == pytest.approx(expected, rel=1e-5)
    generator = torch.Generator().manual_seed(1)
    many, features = torch.randn(80, 8, generator=generator).double(), features.double()
    own = {"labels": torch.zeros(6, dtype=torch.int64), "camids": CAMIDS}
    of = {"proxy_labels": torch.arange(80) // 2, "proxy_camids": torch.arange(80) % 2}
    default = camera_contrast(features, **own, proxies=many, **of)
    assert torch.equal(
        default, camera_contrast(features, **own, proxies=many, **of, num_negatives=50)
    )
    assert default < camera_contrast(features, **own, proxies=many, **of, num_negatives=51)


def test_gradients():
    features, proxies = draws()
    assert torch.autograd.gradcheck(
        lambda x: contrast(x, proxies.double(), num_negatives=3), features.double().requires_grad_()
    )


def test_rows_whose_cluster_no_other_camera_saw_give_zero_with_a_graph():
    features, proxies = draws()
    alone = torch.full((6,), 3)
    features.requires_grad_()
    loss = contrast(features, proxies, labels=alone, camids=torch.ones(6, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_one_cluster_without_negatives_and_no_proxies_are_finite():
    features, proxies = draws()
    features.requires_grad_()
    zeros = torch.zeros(6, dtype=torch.int64)
    loss = camera_contrast(features, zeros, CAMIDS, proxies[:3], PROXY_LABELS[:3], PROXY_CAMIDS[:3])
    none = camera_contrast(features, zeros, CAMIDS, proxies[:0], zeros[:0], zeros[:0])
    (loss + none).backward()
    assert float(loss.detach()) > 0
    assert float(none.detach()) == 0
    assert bool(features.grad.isfinite().all())


def test_similarities_far_apart_do_not_overflow():
    features, proxies = draws()
    features.requires_grad_()
    loss = contrast(features, proxies, temperature=1e-4)
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(features.grad.isfinite().all())


def test_autocast_and_bfloat16_are_computed_in_float32():
    features, proxies = draws()
    exact = contrast(features, proxies)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrast(features, proxies), exact)
    loss = contrast(features.bfloat16(), proxies)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, contrast(features.bfloat16().float(), proxies))


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"num_negatives": 0}])
def test_settings_that_cannot_contrast_are_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        contrast(*draws(), **settings)
