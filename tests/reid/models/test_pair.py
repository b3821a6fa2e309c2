"""Two networks as one module."""

import torch

from reid.models import GlobalNet, NetPair, ema_copy, ema_update, resnet


def make() -> NetPair[GlobalNet]:
    nets = [
        GlobalNet(resnet("resnet18", weights=None, last_stride=2, seed=seed), 3, seed=seed)
        for seed in (0, 1)
    ]
    return NetPair(*nets)


def test_each_network_sees_its_own_images():
    pair = make().eval()
    images = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = pair(*images)
        expected = [net(x) for net, x in zip(pair.nets, images, strict=True)]
    for out, alone in zip(found, expected, strict=True):
        assert torch.equal(out.logits, alone.logits)
    assert not torch.equal(found[0].logits, found[1].logits)


def test_one_update_moves_both_teachers():
    students = make()
    teachers = ema_copy(students)
    with torch.no_grad():
        for value in students.parameters():
            value.add_(1)
    before = {name: value.clone() for name, value in teachers.named_parameters()}
    ema_update(teachers, students, 0.75, buffers="skip")
    for net in ("first", "second"):
        name = f"{net}.classifier.weight"
        torch.testing.assert_close(teachers.get_parameter(name), before[name] + 0.25)
