import pytest
import torch
from torch import nn

from reid.models import ECAB, SECAB, EnsembleFusion, bidirectional_mean, seeded
from reid.models.network import PARTS

# The outputs are standardised over six rows whose spread is down to 1/40 of their mean: rounding
# of 1e-7 in a mask or a mean grows to 1e-5. The stored float32 outputs of version 2 are themselves
# up to 1.8e-5 from the same formula in float64.
FUSED_TOLERANCE = 2e-5

# Of 64 channels five hidden layers leave one in the middle, whose ReLU is off for all images here:
# these stored gates are half of (maximum + mean) whatever the weights. test_attention.py has wider
# blocks.
IDLE = {("core_reid_v1", "top"), ("core_reid_v1", "bottom"), ("core_reid_v2", "top")}


def set_weights(block, arrays, prefix):
    layers = [layer for layer in block.mlp if isinstance(layer, nn.Linear)]
    for depth, layer in enumerate(layers):
        layer.weight.data.copy_(torch.from_numpy(arrays[f"{prefix}_mlp{depth}"]))
    assert f"{prefix}_mlp{len(layers)}" not in arrays
    return block


@pytest.mark.parametrize(
    ("method", "hidden_layers"), [("lf2", 1), ("core_reid_v1", 5), ("core_reid_v2", 5)]
)
def test_released_fusion(golden, method, hidden_layers):
    arrays = golden(f"{method}_fusion")
    student_map, teacher_map = (
        torch.from_numpy(arrays[name]) for name in ("student_map", "teacher_map")
    )
    channels, height = student_map.shape[1:3]
    strips = student_map.split(height // 2, dim=2)
    gates = {}
    for part, strip in zip(PARTS, strips, strict=True):
        block = set_weights(ECAB(channels, hidden_layers=hidden_layers), arrays, part)
        gates[part] = block(strip)
        expected = torch.from_numpy(arrays[f"gate_{part}"])
        torch.testing.assert_close(gates[part], expected, rtol=0, atol=1e-6)
        half = (strip.amax((2, 3)) + strip.mean((2, 3))) / 2  # the gate where all weights are 0
        apart = float((expected.flatten(1) - half).abs().max())
        assert (apart > 0.1) == ((method, part) not in IDLE)
    has_secab = "secab_mlp0" in arrays
    assert has_secab == (method == "core_reid_v2")
    secab = set_weights(SECAB(channels), arrays, "secab") if has_secab else None
    fused = EnsembleFusion(channels, global_attention=secab)(
        teacher_map, gates["top"], gates["bottom"]
    )
    assert list(fused) == ["global", "top", "bottom"]
    for view, features in fused.items():
        expected = torch.from_numpy(arrays[f"fused_{view}"])
        torch.testing.assert_close(features, expected, rtol=0, atol=FUSED_TOLERANCE)
    plain = EnsembleFusion(channels)(teacher_map, gates["top"], gates["bottom"])
    apart = float((fused["global"] - plain["global"]).detach().abs().max())
    assert (apart > 0.1) == has_secab


def definition(maps, fusion, gates):
    """BN(avg + max) of tau', tau' x psi_top, tau' x psi_bottom (Ensemble Fusion++, Fig. 8)."""
    if fusion.global_attention is not None:
        maps = maps * fusion.global_attention(maps)
    weighted = {"global": maps} | {part: maps * gate for part, gate in gates.items()}
    out = {}
    for view, values in weighted.items():
        pooled = values.flatten(2).mean(2) + values.flatten(2).max(2).values
        centred = pooled - pooled.mean(0)
        out[view] = centred / torch.sqrt(pooled.var(0, unbiased=False) + 1e-5)
    return out


@pytest.mark.parametrize("with_secab", [False, True])
def test_gates_and_maps_of_either_sign(with_secab):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(8, 16, 4, 2, generator=generator)
    gates = {part: torch.randn(8, 16, 1, 1, generator=generator) for part in PARTS}
    with seeded(0):
        fusion = EnsembleFusion(16, global_attention=SECAB(16) if with_secab else None)
    fused = fusion(maps, gates["top"], gates["bottom"])
    for view, expected in definition(maps, fusion, gates).items():
        torch.testing.assert_close(fused[view], expected, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_gates_and_global_attention_and_no_frozen_bias():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(8, 16, 4, 2, generator=generator)
    gates = [torch.rand(8, 16, 1, 1, generator=generator).requires_grad_() for _ in PARTS]
    with seeded(0):
        fusion = EnsembleFusion(16, global_attention=SECAB(16))
    targets = torch.randn(3, 8, 16, generator=generator)
    fused = torch.stack(list(fusion(maps, *gates).values()))
    (fused * targets).sum().backward()
    for gate in gates:
        assert gate.grad is not None
        assert float(gate.grad.abs().sum()) > 0
    for name, parameter in fusion.named_parameters():
        assert parameter.requires_grad != (name.startswith("necks") and name.endswith("bias"))
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert float(parameter.grad.abs().sum()) > 0, name


def test_gradients_of_the_fusion():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(4, 3, 2, 2, generator=generator).double().requires_grad_()
    gates = [torch.randn(4, 3, 1, 1, generator=generator).double().requires_grad_() for _ in PARTS]
    fusion = EnsembleFusion(3).double()
    assert torch.autograd.gradcheck(lambda *x: tuple(fusion(*x).values()), (maps, *gates))


def features_of(images):
    return images[:, 0, :, :2].flatten(1)  # the left border: differs in the mirror image


def test_mean_with_the_mirror_image():
    images = torch.randn(3, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    out = bidirectional_mean(features_of, images)
    for row, image in enumerate(images[:, 0].tolist()):
        left = [value for line in image for value in line[:2]]
        right = [value for line in image for value in line[:-3:-1]]
        mean = [(a + b) / 2 for a, b in zip(left, right, strict=True)]
        length = sum(value * value for value in mean) ** 0.5
        assert out[row].tolist() == pytest.approx([value / length for value in mean], abs=1e-6)
    torch.testing.assert_close(out, bidirectional_mean(features_of, images.flip(3)))


def test_each_view_is_averaged_on_its_own():
    images = torch.randn(3, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    views = bidirectional_mean(
        lambda x: {"global": features_of(x), "top": 2 * x[:, 1, 0].bfloat16()}, images
    )
    assert list(views) == ["global", "top"]
    assert torch.equal(views["global"], bidirectional_mean(features_of, images))
    assert views["top"].dtype == torch.float32
    torch.testing.assert_close(views["top"].norm(dim=1), torch.ones(3))
