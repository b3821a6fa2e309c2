import math

import pytest
import torch
from torch import nn

from reid.models import ECAB, SECAB, seeded


def linear_layers(block):
    return [layer for layer in block.mlp if isinstance(layer, nn.Linear)]


def loop_mask(block, maps):
    """sigmoid(mlp(max) + mlp(mean)), one number at a time (core_reid spec 1c, ECAB)."""
    weights = [layer.weight.tolist() for layer in linear_layers(block)]

    def mlp(vector):
        for depth, matrix in enumerate(weights):
            vector = [sum(w * v for w, v in zip(row, vector, strict=True)) for row in matrix]
            if depth < len(weights) - 1:
                vector = [max(v, 0.0) for v in vector]
        return vector

    masks = []
    for image in maps:
        channels = [channel.flatten().tolist() for channel in image]
        from_max = mlp([max(c) for c in channels])
        from_mean = mlp([sum(c) / len(c) for c in channels])
        masks.append(
            [1 / (1 + math.exp(-(a + b))) for a, b in zip(from_max, from_mean, strict=True)]
        )
    return torch.tensor(masks)


def blocks(channels, *, hidden_layers):
    with seeded(1):
        ecab = ECAB(channels, hidden_layers=hidden_layers)
        secab = SECAB(channels, hidden_layers=hidden_layers)
    for layer in [*linear_layers(ecab), *linear_layers(secab)]:
        layer.weight.data.mul_(2)  # torch's own start leaves every mask near one half
    return ecab, secab


@pytest.mark.parametrize("hidden_layers", [1, 3, 5])
def test_gate_and_mask_match_loops(hidden_layers):
    ecab, secab = blocks(256, hidden_layers=hidden_layers)
    maps = torch.randn(3, 256, 4, 2, generator=torch.Generator().manual_seed(0))
    pooled = maps.amax((2, 3)) + maps.mean((2, 3))
    assert secab(maps).shape == ecab(maps).shape == (3, 256, 1, 1)
    for block, factor in ((secab, 1), (ecab, pooled)):
        mask = loop_mask(block, maps)
        assert float((mask - 0.5).abs().max()) > 0.3
        torch.testing.assert_close(block(maps).flatten(1), mask * factor, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("channels", "count"), [(2048, 2_236_416), (512, 139_776)])
def test_parameter_counts_of_the_paper(channels, count):
    for block in (ECAB(channels), SECAB(channels)):
        assert sum(parameter.numel() for parameter in block.parameters()) == count


@pytest.mark.parametrize(
    ("channels", "hidden_layers", "widths"),
    [
        (2048, 5, [2048, 512, 128, 32, 128, 512, 2048]),
        (512, 5, [512, 128, 32, 8, 32, 128, 512]),
        (2048, 1, [2048, 512, 2048]),
        (8, 5, [8, 2, 1, 1, 1, 2, 8]),
    ],
)
def test_widths(channels, hidden_layers, widths):
    layers = linear_layers(ECAB(channels, hidden_layers=hidden_layers))
    assert [layers[0].in_features, *(layer.out_features for layer in layers)] == widths
    assert all(layer.bias is None for layer in layers)


@pytest.mark.parametrize(
    "settings", [{"hidden_layers": 4}, {"hidden_layers": -1}, {"reduction": 0}]
)
def test_impossible_bottlenecks_are_refused(settings):
    for block in (ECAB, SECAB):
        with pytest.raises(ValueError, match=next(iter(settings))):
            block(16, **settings)


def test_gradients_of_the_gate():
    ecab, _ = blocks(16, hidden_layers=1)
    maps = torch.randn(2, 16, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    assert torch.autograd.gradcheck(ecab.double(), maps.requires_grad_())


def test_masks_keep_their_digits_behind_half_precision():
    with seeded(1):
        block = SECAB(512)
    maps = torch.rand(8, 512, 4, 2, generator=torch.Generator().manual_seed(0))
    exact = block(maps)
    with torch.autocast("cpu", torch.bfloat16):
        found = block(maps)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < torch.finfo(torch.bfloat16).eps / 16  # a value near 1/2
