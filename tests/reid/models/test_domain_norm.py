import copy

import pytest
import torch
from torch import nn

from reid.models import (
    BNNeck,
    convert_domain_norm_,
    convert_ghost_norm_,
    domains,
    ema_copy,
    ema_update,
    export_plain,
    one_domain,
)
from reid.models.domain_norm import DomainNorm

SIZES = (6, 4)


def plain_net():
    """Convolutions, BatchNorm of maps, mean, neck: every place a norm has in a network."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        BNNeck(5),
    )
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net.double()


def converted(**kwargs):
    net = plain_net()
    convert_domain_norm_(net, **kwargs)
    return net


def images(count=10, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randn(count, 1, 1, 1, generator=generator)
    return (shift + torch.randn(count, 3, 8, 8, generator=generator)).double()


def joint(net, pixels, sizes=SIZES):
    with domains(net, sizes):
        return net(pixels)


def trained():
    """Return a converted network whose domains have learned different statistics."""
    net = converted()
    for seed in range(3):
        joint(net, images(seed=seed))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "norms.0.weight" in name:
                parameter.mul_(1.5)
    return net


def test_a_joint_batch_is_normalised_as_each_domain_by_itself():
    net, alone = converted(), [plain_net(), plain_net()]
    pixels = images()
    weights = torch.randn(sum(SIZES), 5, generator=torch.Generator().manual_seed(2)).double()
    out = joint(net, pixels)
    (out * weights).sum().backward()
    for other, rows, of_rows in zip(alone, pixels.split(SIZES), weights.split(SIZES), strict=True):
        (other(rows) * of_rows).sum().backward()
    with torch.no_grad():
        parts = pixels.split(SIZES)
        expected = torch.cat([copy.deepcopy(o)(x) for o, x in zip(alone, parts, strict=True)])
    torch.testing.assert_close(out, expected)
    for name, shared in (("0.weight", net[0].weight), ("3.0.bias", net[3][0].bias)):
        gradients = [dict(other.named_parameters())[name].grad for other in alone]
        torch.testing.assert_close(shared.grad, sum(gradients))
    for domain, other in enumerate(alone):
        for mine, its in (
            (net[1].norms[domain], other[1]),
            (net[3][1].norms[domain], other[3][1]),
            (net[6].norms[domain], other[6]),
        ):
            torch.testing.assert_close(mine.weight.grad, its.weight.grad)
            torch.testing.assert_close(mine.running_mean, its.running_mean)
            torch.testing.assert_close(mine.running_var, its.running_var)
    assert not any(norm.bias.requires_grad for norm in net[6].norms)


def test_evaluation_is_of_the_target_unless_said():
    net = trained().eval()
    source, target = (export_plain(net, domain) for domain in (0, 1))
    pixels = images(seed=5)
    assert torch.equal(net(pixels), target(pixels))
    with one_domain(net, 0):
        assert torch.equal(net(pixels), source(pixels))
    assert torch.equal(net(pixels), target(pixels))
    mixed = joint(net, pixels)
    torch.testing.assert_close(mixed[: SIZES[0]], source(pixels[: SIZES[0]]))
    torch.testing.assert_close(mixed[SIZES[0] :], target(pixels[SIZES[0] :]))
    assert float((source(pixels) - target(pixels)).detach().abs().mean()) > 0.1


@pytest.mark.parametrize("order", [("domain",), ("domain", "ghost"), ("ghost", "domain")])
def test_an_exported_network_is_the_plain_one(order):
    net = plain_net()
    for step in order:
        convert_domain_norm_(net) if step == "domain" else convert_ghost_norm_(net, group=2)
    joint(net, images())
    net.eval()
    for domain in (0, 1):
        exported = export_plain(net, domain)
        fresh = plain_net().eval()
        assert {type(layer) for layer in exported.modules()} <= {
            *{type(layer) for layer in fresh.modules()},
            nn.BatchNorm1d,
        }
        fresh.load_state_dict(exported.state_dict())
        with one_domain(net, domain):
            expected = net(images())
        assert torch.equal(exported(images()), expected)
        assert torch.equal(fresh(images()), expected)
    assert torch.equal(export_plain(net)(images()), net(images()))


@pytest.mark.parametrize("ghost_first", [False, True])
def test_each_domains_rows_are_divided_into_groups(ghost_first):
    """One process with [16 | 8] rows in groups of 4 and 2 workers with [8 | 4] each agree."""
    pixels = images(24)
    source, target = pixels.split((16, 8))
    net, workers = plain_net(), [converted(), converted()]
    if ghost_first:
        convert_ghost_norm_(net, group=4)
    convert_domain_norm_(net)
    if not ghost_first:
        convert_ghost_norm_(net, group=4)
    for worker in workers:
        convert_ghost_norm_(worker, group=4)
    out = joint(net, pixels, (16, 8))
    out.pow(3).mean().backward()
    outputs = []
    for worker, mine in zip(
        workers, zip(source.split(8), target.split(4), strict=True), strict=True
    ):
        outputs.append(joint(worker, torch.cat(mine), (8, 4)))
        outputs[-1].pow(3).mean().backward()
    of_source, of_target = zip(*(x.split((8, 4)) for x in outputs), strict=True)
    torch.testing.assert_close(out, torch.cat([*of_source, *of_target]))
    for name, parameter in net.named_parameters():
        of_workers = [dict(worker.named_parameters())[name].grad for worker in workers]
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, (of_workers[0] + of_workers[1]) / 2)
    for name, buffer in net.named_buffers():
        of_workers = [dict(worker.named_buffers())[name] for worker in workers]
        if buffer.is_floating_point():
            torch.testing.assert_close(buffer, (of_workers[0] + of_workers[1]) / 2)


def test_copies_and_strict_state_dictionaries():
    net = trained()
    teacher, loaded = ema_copy(net), converted()
    loaded.load_state_dict(net.state_dict())
    joint(net, images(seed=9))
    assert not torch.equal(teacher[6].norms[0].running_mean, net[6].norms[0].running_mean)
    assert torch.equal(joint(teacher, images()), joint(loaded, images()))
    ema_update(teacher, net, 0.0, buffers="copy")
    for name, value in net.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], value), name


def test_several_networks_are_told_at_once_and_forget_after_the_block():
    nets = nn.ModuleDict({"student": converted(), "teacher": ema_copy(converted())})
    with domains(nets, SIZES):
        assert torch.equal(nets["student"](images()), nets["teacher"](images()))
        with one_domain(nets, 0):
            nets["student"](images(3))
        nets["student"](images())  # what was said outside holds again
    with pytest.raises(RuntimeError, match="stop"), domains(nets, SIZES):
        raise RuntimeError("stop")
    with pytest.raises(ValueError, match="must be told in training"):
        nets["student"](images())


def test_a_domain_without_rows_is_left_alone():
    net = trained()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    out = joint(net, images(4), (0, 4))
    other = export_plain(trained(), 1)
    torch.testing.assert_close(out, other(images(4)))
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, before[name]) == ("norms.0." in name), name


def test_a_network_without_domains_is_left_as_it_is():
    net = plain_net()
    assert torch.equal(joint(net, images()), plain_net()(images()))


def test_three_domains_under_autocast_and_channels_last():
    net = converted(num_domains=3).float().to(memory_format=torch.channels_last)
    pixels = images().float().contiguous(memory_format=torch.channels_last)
    out = joint(net, pixels, (2, 3, 5))
    maps = net[0](pixels)
    with domains(net, (2, 3, 5)):
        assert net[1](maps).is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = joint(net, pixels, (2, 3, 5))
    assert float(torch.cosine_similarity(low.float(), out, dim=0).detach().min()) > 0.98
    low.sum().backward()
    assert net[1].norms[2].weight.grad.dtype == torch.float32


def test_wrong_domains_are_refused():
    net = converted()
    with pytest.raises(ValueError, match="must be told in training"):
        net(images())
    with pytest.raises(ValueError, match=r"\(6, 4\) rows were announced, but 9 rows came"):
        joint(net, images(9))
    with pytest.raises(ValueError, match=r"sizes are \(3, 3, 4\), but the network has 2"):
        joint(net, images(), (3, 3, 4))
    with pytest.raises(ValueError, match=r"sizes are \(12, -2\)"):
        joint(net, images(), (12, -2))
    with pytest.raises(ValueError, match="domain is 2; the network has 0 to 1"), one_domain(net, 2):
        pass
    with pytest.raises(ValueError, match="num_domains is 1"):
        convert_domain_norm_(plain_net(), 1)
    with pytest.raises(ValueError, match="DomainNorm layers already"):
        convert_domain_norm_(net)
    with pytest.raises(ValueError, match="cannot be replaced in place"):
        convert_domain_norm_(BNNeck(3))
    assert isinstance(net[1], DomainNorm)
