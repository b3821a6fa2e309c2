import pytest
import torch
from torchvision.models.resnet import BasicBlock, ResNet

from reid.models import (
    Backbone,
    GeM,
    GlobalNet,
    PartNet,
    load_weights,
    reset_from_centers_,
    seeded,
)

C = 512


def backbone(seed=0):
    """One block a stage: the smallest network of torchvision's own parts."""
    with seeded(seed):
        return Backbone(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=1), last_stride=1)


def images(count=4, height=64, width=32):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def standardised(features):
    return (features - features.mean(0)) / torch.sqrt(features.var(0, unbiased=False) + 1e-5)


@pytest.mark.parametrize("pooling", ["gap", "gap_gmp"])
def test_global_net_is_the_network_of_section_1b(pooling):
    net = GlobalNet(backbone(), 7, seed=0, pooling=pooling)
    out = net(images())
    expected = out.map.flatten(2).mean(2)
    if pooling == "gap_gmp":
        expected = expected + out.map.flatten(2).max(2).values
    assert list(out.views) == ["global"]
    torch.testing.assert_close(out.views["global"], expected)
    torch.testing.assert_close(out.embedding, standardised(expected), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out.logits, out.embedding @ net.classifier.weight.T)
    assert out.logits.shape == (4, 7)
    assert out.gates == {}


def test_the_view_is_the_feature_before_or_after_the_neck():
    before, after = (
        GlobalNet(backbone(), 7, seed=0, view=view)(images())
        for view in ("before_neck", "after_neck")
    )
    torch.testing.assert_close(before.views["global"], before.map.mean((2, 3)))
    assert torch.equal(after.views["global"], after.embedding)
    assert torch.equal(before.embedding, after.embedding)


def test_a_network_without_classifier_has_no_logits():
    net = GlobalNet(backbone(), None, seed=0, pooling="gem")
    out = net(images())
    assert out.logits.shape == (4, 0)
    assert not [name for name, _ in net.named_parameters() if "classifier" in name]
    torch.testing.assert_close(out.embedding, standardised(GeM()(out.map)), rtol=1e-4, atol=1e-4)
    out.embedding.square().mul(torch.arange(C)).sum().backward()
    missing = {n for n, p in net.named_parameters() if p.grad is None}
    assert missing == {"neck.bias"}


def test_dynamic_classes_follow_the_centres():
    net = GlobalNet(backbone(), 9, seed=0, dynamic_classes=True)
    assert net(images()).logits.shape == (4, 0)
    centers = torch.randn(5, C, generator=torch.Generator().manual_seed(0))
    reset_from_centers_(net.classifier, centers)
    out = net(images())
    torch.testing.assert_close(
        out.logits, out.embedding @ (centers / centers.norm(dim=1, keepdim=True)).T
    )


def test_part_net_is_the_network_of_section_1c():
    net = PartNet(backbone(), 7, seed=0)
    out = net(images())
    whole = out.map.flatten(2)
    expected = {"global": standardised(whole.mean(2) + whole.max(2).values)}
    for part, strip in zip(("top", "bottom"), out.map.split(2, dim=2), strict=True):
        values = torch.cat([strip.flatten(2).mean(2), strip.flatten(2).max(2).values], dim=1)
        layer = net.parts[part].reduction
        expected[part] = standardised(values @ layer.weight.T + layer.bias)
    assert list(out.views) == ["global", "top", "bottom"]
    for view, features in out.views.items():
        torch.testing.assert_close(features, expected[view], rtol=1e-3, atol=1e-3)
    assert torch.equal(out.embedding, torch.cat(list(out.views.values()), dim=1))
    torch.testing.assert_close(out.logits, out.views["global"] @ net.classifier.weight.T)


@pytest.mark.parametrize("hidden_layers", [1, 5])
def test_gates_are_the_attention_of_each_half(hidden_layers):
    net = PartNet(backbone(), 7, seed=0, attention=True, hidden_layers=hidden_layers).eval()
    out = net(images())
    assert list(out.gates) == ["top", "bottom"]
    for rows, (part, gate) in zip(out.map.split(2, dim=2), out.gates.items(), strict=True):
        assert gate.shape == (4, C, 1, 1)
        torch.testing.assert_close(gate, net.attention[part](rows))


@pytest.mark.parametrize("attention", [False, True])
def test_every_trainable_parameter_gets_a_gradient_from_the_output(attention):
    net = PartNet(backbone(), 7, seed=0, attention=attention)
    out = net(images())
    generator = torch.Generator().manual_seed(2)
    outputs = [*out.views.values(), out.logits, *out.gates.values()]
    sum((v * torch.randn(v.shape, generator=generator)).sum() for v in outputs).backward()
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    biases = {"neck.bias", "parts.top.neck.bias", "parts.bottom.neck.bias"}
    gates = {name for name, _ in net.named_parameters() if name.startswith("attention.")}
    assert gates
    assert frozen == (biases if attention else biases | gates)
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == (name in frozen), name


def test_parameters_added_by_the_heads():
    # core_reid spec 3.5: 2 FC of (2C*C + C); necks 3 x 2C, ECABs 2 x 139,776, classifier 7C.
    trunk = backbone()
    own = sum(p.numel() for p in trunk.parameters())
    total = sum(p.numel() for p in PartNet(trunk, 7, seed=0).parameters())
    assert total - own == 2 * (2 * C * C + C) + 3 * 2 * C + 2 * 139_776 + 7 * C


def test_the_same_outputs_are_there_in_training_and_evaluation():
    net = PartNet(backbone(), 7, seed=0, attention=True)
    training, evaluation = net(images()), net.eval()(images())
    for name in ("map", "embedding", "logits"):
        assert getattr(training, name).shape == getattr(evaluation, name).shape
    assert training.views.keys() == evaluation.views.keys()
    assert training.gates.keys() == evaluation.gates.keys()


def test_rows_of_an_odd_map_belong_to_the_top(monkeypatch):
    net = PartNet(backbone(), 7, seed=0, attention=True).eval()
    maps = torch.randn(4, C, 3, 2, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(net.backbone, "forward", lambda images: maps)
    gates = net(images()).gates
    torch.testing.assert_close(gates["top"], net.attention["top"](maps[:, :, :2]))
    torch.testing.assert_close(gates["bottom"], net.attention["bottom"](maps[:, :, 2:]))


def test_a_map_of_one_row_is_refused():
    net = PartNet(backbone(), 7, seed=0)
    with pytest.raises(ValueError, match="1 rows cannot be cut into 2"):
        net(images(height=16))


def test_autocast_leaves_views_in_float32_and_near_the_exact_ones():
    net = PartNet(backbone(), 7, seed=0, attention=True).eval()
    with torch.no_grad():
        exact = net(images())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = net(images())
    assert out.map.dtype == torch.bfloat16
    for view, features in out.views.items():
        assert features.dtype == torch.float32
        similarity = torch.cosine_similarity(features, exact.views[view])
        assert float(similarity.min()) > 0.999


def test_initial_weights_depend_on_the_seed_alone():
    nets = [PartNet(backbone(), 7, seed=seed) for seed in (5, 5, 6)]
    states = [net.state_dict() for net in nets]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for name in ("classifier.weight", "parts.top.reduction.weight", "attention.top.mlp.0.weight"):
        assert not torch.equal(states[0][name], states[2][name])
    assert not torch.equal(
        states[0]["attention.top.mlp.0.weight"], states[0]["attention.bottom.mlp.0.weight"]
    )


def test_the_backbone_of_source_pre_training_moves_to_the_target_network():
    source = GlobalNet(backbone(seed=1), 9, seed=1)
    target = PartNet(backbone(seed=2), 7, seed=2)
    fresh = target.classifier.weight.clone()
    load_weights(
        target,
        source.state_dict(),
        missing=("neck.", "parts.", "attention.", "classifier."),
        unexpected=("neck.", "classifier."),
    )
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(target.backbone.state_dict()[name], value), name
    assert torch.equal(target.classifier.weight, fresh)
