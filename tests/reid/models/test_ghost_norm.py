import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from reid.models import Backbone, BNNeck, GlobalNet, convert_ghost_norm_, ema_copy, seeded
from reid.models.ghost_norm import GhostNorm

WORKERS, GROUP = 4, 16


def global_net(seed=0):
    with seeded(seed):
        backbone = Backbone(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=1), last_stride=1)
    return GlobalNet(backbone, 5, seed=seed, pooling="gem", view="after_neck")


def images(count, height=16, width=8, seed=1):
    # Each row has a brightness of its own, so that groups differ from the whole.
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randn(count, 1, 1, 1, generator=generator)
    return shift + torch.randn(count, 3, height, width, generator=generator)


def norms(net):
    return [x for x in net.modules() if isinstance(x, nn.BatchNorm1d | nn.BatchNorm2d | GhostNorm)]


def loss_of(net, pixels, labels):
    out = net(pixels)
    return F.cross_entropy(out.logits, labels) + out.views["global"][:, :3].pow(3).mean(), out


def test_groups_on_one_worker_are_the_batches_of_four():
    pixels = images(WORKERS * GROUP).double()
    labels = torch.arange(WORKERS * GROUP) % 5
    workers = [global_net().double() for _ in range(WORKERS)]
    shares = zip(workers, pixels.split(GROUP), labels.split(GROUP), strict=True)
    parts = []
    for net, rows, of_rows in shares:
        loss, part = loss_of(net, rows, of_rows)
        loss.backward()
        parts.append(part)

    exact = {"rtol": 1e-8, "atol": 1e-11}
    one = global_net().double()
    convert_ghost_norm_(one, group=GROUP)
    loss, out = loss_of(one, pixels, labels)
    loss.backward()
    for name in ("map", "embedding", "logits"):
        expected = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(getattr(out, name), expected, **exact)
    for name, parameter in one.named_parameters():
        of_workers = [dict(net.named_parameters())[name].grad for net in workers]
        if name == "neck.bias":
            assert [parameter.grad, *of_workers] == [None] * 5
            continue
        assert float(parameter.grad.abs().max()) > 0
        torch.testing.assert_close(parameter.grad, sum(of_workers) / WORKERS, **exact)
    for name, buffer in one.named_buffers():
        of_workers = [dict(net.named_buffers())[name] for net in workers]
        expected = sum(of_workers) / WORKERS if buffer.is_floating_point() else of_workers[0]
        torch.testing.assert_close(buffer, expected, **exact)


def test_groups_are_not_the_whole_batch():
    net = global_net()
    ghost = copy.deepcopy(net)
    convert_ghost_norm_(ghost)
    whole, groups = net(images(32)).embedding, ghost(images(32)).embedding
    assert float((whole - groups).detach().abs().mean()) > 0.05


def test_a_batch_of_one_group_is_plain_batch_norm():
    net = global_net()
    ghost = copy.deepcopy(net)
    convert_ghost_norm_(ghost, group=16)
    assert torch.equal(net(images(16)).embedding, ghost(images(16)).embedding)
    for name, value in net.state_dict().items():
        assert torch.equal(ghost.state_dict()[name], value), name


def test_names_parameters_and_evaluation_stay_those_of_the_plain_network():
    net = global_net()
    ghost = copy.deepcopy(net)
    before = dict(ghost.named_parameters())
    convert_ghost_norm_(ghost)
    assert len(norms(net)) == len(norms(ghost)) > 8
    assert all(isinstance(norm, GhostNorm) for norm in norms(ghost))
    assert all(parameter is before[name] for name, parameter in ghost.named_parameters())
    assert not ghost.neck.bias.requires_grad
    ghost(images(32))
    net.load_state_dict(ghost.state_dict())
    teacher = ema_copy(ghost)
    with torch.no_grad():
        expected = net.eval()(images(3)).embedding
        assert torch.equal(ghost.eval()(images(3)).embedding, expected)
        assert torch.equal(teacher.eval()(images(3)).embedding, expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_and_autocast(memory_format):
    ghost = GhostNorm(nn.BatchNorm2d(6), group=2)
    maps = torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(0))
    out = ghost(maps.contiguous(memory_format=memory_format))
    assert out.is_contiguous(memory_format=memory_format)
    first, second = maps.split(2)
    for part, of_part in zip(out.split(2), (first, second), strict=True):
        center = of_part.mean((0, 2, 3), keepdim=True)
        spread = of_part.var((0, 2, 3), keepdim=True, unbiased=False)
        torch.testing.assert_close(part, (of_part - center) / torch.sqrt(spread + 1e-5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = ghost(maps.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), out.contiguous(), rtol=0.02, atol=0.02)


def test_what_cannot_be_grouped_is_refused():
    net = global_net()
    with pytest.raises(ValueError, match="cannot be replaced in place"):
        convert_ghost_norm_(BNNeck(4))
    with pytest.raises(ValueError, match="groups of 1 rows"):
        convert_ghost_norm_(copy.deepcopy(net), group=1)
    with pytest.raises(ValueError, match="no fixed momentum"):
        convert_ghost_norm_(nn.Sequential(nn.BatchNorm1d(3, momentum=None)))
    convert_ghost_norm_(net, group=16)
    with pytest.raises(ValueError, match="GhostNorm layers already"):
        convert_ghost_norm_(net, group=8)
    with pytest.raises(ValueError, match="24 rows are no whole number of groups of 16"):
        net(images(24))
