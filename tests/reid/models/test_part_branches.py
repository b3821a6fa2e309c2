import pytest
import torch
import torch.nn.functional as F
from torchvision.models.resnet import BasicBlock, ResNet

from reid.models import Backbone, BranchNet, branch_views, ema_copy, reset_from_centers_, seeded

C = 512
VIEWS = ("global", "part0", "part1", "part2")


def backbone(seed=0):
    """One block a stage: the smallest network of torchvision's own parts."""
    with seeded(seed):
        return Backbone(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=1), last_stride=1)


def branches(*, seed, num_parts=3):
    net = BranchNet(backbone(), 7, seed=seed, num_parts=num_parts)
    for view in branch_views(num_parts):
        net.classifier(view).num_classes = 7  # all rows in use, as they were drawn
    return net


def images(count=4, height=96, width=32):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def standardised(features):
    return (features - features.mean(0)) / torch.sqrt(features.var(0, unbiased=False) + 1e-5)


def test_each_view_has_a_mean_a_neck_and_a_classifier():
    net = branches(seed=0)
    out = net(images())
    assert branch_views(3) == VIEWS == tuple(out.views)
    means = [out.map.mean((2, 3)), *(strip.mean((2, 3)) for strip in out.map.split(2, dim=2))]
    for view, mean in zip(VIEWS, means, strict=True):
        torch.testing.assert_close(out.views[view], standardised(mean), rtol=1e-3, atol=1e-3)
    expected = {view: out.views[view] @ net.classifier(view).weight.T for view in VIEWS}
    torch.testing.assert_close(out.logits, expected["global"])
    assert tuple(out.part_logits) == VIEWS[1:]
    for view, logits in out.part_logits.items():
        torch.testing.assert_close(logits, expected[view])
    assert torch.equal(out.embedding, out.views["global"])
    weights = [net.classifier(view).weight for view in VIEWS]
    assert not any(torch.equal(weights[0], other) for other in weights[1:])


@pytest.mark.parametrize("num_parts", [1, 2])
def test_the_number_of_parts_is_an_argument(num_parts):
    out = branches(seed=0, num_parts=num_parts)(images(height=64))
    assert tuple(out.views) == branch_views(num_parts)
    assert len(out.part_logits) == num_parts


def test_every_trainable_parameter_gets_a_gradient_from_the_logits():
    net = branches(seed=0)
    out = net(images())
    labels = torch.arange(4)
    sum(F.cross_entropy(x, labels) for x in (out.logits, *out.part_logits.values())).backward()
    missing = {name for name, p in net.named_parameters() if p.grad is None}
    assert missing == {f"necks.{view}.bias" for view in VIEWS}


def test_each_view_takes_the_centres_of_its_round():
    net = BranchNet(backbone(), 9, seed=0)
    teacher = ema_copy(net)
    centers = torch.randn(4, 5, C, generator=torch.Generator().manual_seed(0))
    for view, of_view in zip(VIEWS, centers, strict=True):
        for one in (net, teacher):
            reset_from_centers_(one.classifier(view), of_view)
    out = net(images())
    for view, of_view in zip(VIEWS, centers, strict=True):
        logits = out.logits if view == "global" else out.part_logits[view]
        torch.testing.assert_close(logits, out.views[view] @ F.normalize(of_view).T)
    fresh = BranchNet(backbone(), 9, seed=1)
    fresh.load_state_dict(net.state_dict())
    for one in (teacher.train(), fresh):
        assert torch.equal(one(images()).part_logits["part2"], out.part_logits["part2"])


def test_initial_weights_depend_on_the_seed_alone():
    states = [branches(seed=seed).state_dict() for seed in (5, 5, 6)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    name = "classifiers.part1.weight"
    assert not torch.equal(states[0][name], states[2][name])


def test_a_map_of_fewer_rows_than_parts_is_refused():
    with pytest.raises(ValueError, match="2 rows cannot be cut into 3"):
        branches(seed=0)(images(height=32))


def test_autocast_leaves_views_in_float32():
    net = branches(seed=0).eval()
    with torch.no_grad():
        exact = net(images())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = net(images())
    assert out.map.dtype == torch.bfloat16
    for view, features in out.views.items():
        assert features.dtype == torch.float32
        assert float(torch.cosine_similarity(features, exact.views[view]).min()) > 0.999
