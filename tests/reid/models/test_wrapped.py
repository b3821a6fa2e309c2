"""The parts inside torch's distributed wrapper: gradients reach every parameter, every step.

One process is a whole group here: the wrapper refuses parameters without gradient all the same.
"""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.resnet import BasicBlock, ResNet

from reid.models import (
    Backbone,
    BranchNet,
    GlobalNet,
    branch_views,
    convert_domain_norm_,
    convert_ghost_norm_,
    domains,
    reset_from_centers_,
    seeded,
)

C = 512


@pytest.fixture
def group():
    """Make this process a group of one."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def backbone():
    with seeded(0):
        return Backbone(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=1), last_stride=1)


def images(count=8):
    return torch.randn(count, 3, 48, 16, generator=torch.Generator().manual_seed(1))


def centers(count):
    return torch.randn(count, C, generator=torch.Generator().manual_seed(count))


@pytest.mark.usefixtures("group")
def test_domains_groups_and_the_learned_pooling():
    net = GlobalNet(backbone(), None, seed=0, pooling="gem")
    convert_domain_norm_(net)
    convert_ghost_norm_(net, group=2)
    wrapped = DistributedDataParallel(net)
    for _ in range(2):
        with domains(wrapped, (4, 4)):
            F.normalize(wrapped(images()).embedding)[:, 0].square().sum().backward()
    missing = {name for name, p in net.named_parameters() if p.requires_grad and p.grad is None}
    assert missing == set()


@pytest.mark.usefixtures("group")
def test_branches_whose_number_of_classes_changes():
    net = BranchNet(backbone(), 9, seed=0)
    wrapped = DistributedDataParallel(net)
    for count in (4, 9, 3):
        for view in branch_views(3):
            reset_from_centers_(net.classifier(view), centers(count))
        net.zero_grad()
        out = wrapped(images())
        labels = torch.arange(8) % count
        terms = [F.cross_entropy(x, labels) for x in (out.logits, *out.part_logits.values())]
        torch.stack(terms).sum().backward()
        gradient = net.classifier("part2").weight.grad
        assert torch.equal(gradient[count:], torch.zeros(9 - count, C))
        assert float(gradient[:count].abs().amax(1).min()) > 0
