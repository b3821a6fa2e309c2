import pytest
import torch
from torch import nn

from reid.models import ema_copy, ema_update, seeded


def network(seed):
    with seeded(seed):
        net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        net(torch.randn(8, 4))  # gives the running statistics values of their own
    return net


def values(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def is_buffer(name):
    return name.startswith("1.running") or name.endswith("num_batches_tracked")


def test_copy_is_equal_shares_nothing_and_takes_no_gradient():
    student = network(0)
    teacher = ema_copy(student)
    assert all(torch.equal(v, student.state_dict()[n]) for n, v in teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    with torch.no_grad():
        student[0].weight.add_(1)
    assert not torch.equal(student[0].weight, teacher[0].weight)


@pytest.mark.parametrize("buffers", ["skip", "average", "copy"])
def test_every_tensor_follows_the_formula(buffers):
    student, teacher = network(0), ema_copy(network(1))
    student[1].num_batches_tracked += 4
    before, target = values(teacher), values(student)
    ema_update(teacher, student, 0.9, buffers=buffers)
    for name, value in teacher.state_dict().items():
        averaged = 0.9 * before[name] + (1 - 0.9) * target[name]
        if not is_buffer(name):
            torch.testing.assert_close(value, averaged)
        elif buffers == "skip":
            assert torch.equal(value, before[name])
        elif buffers == "copy" or name.endswith("num_batches_tracked"):
            assert torch.equal(value, target[name])
        else:
            torch.testing.assert_close(value, averaged)
    assert all(torch.equal(value, target[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_momentum_0_copies_and_1_freezes_exactly(momentum):
    student, teacher = network(0), ema_copy(network(1))
    kept = values(teacher) if momentum else values(student)
    ema_update(teacher, student, momentum, buffers="average")
    for name, value in teacher.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(value, kept[name])


def test_repeated_updates_converge_to_the_student():
    student, teacher = network(0), ema_copy(network(1))
    start = (teacher[0].weight - student[0].weight.detach()).abs().max()
    for _ in range(10):
        ema_update(teacher, student, 0.5, buffers="skip")
    left = (teacher[0].weight - student[0].weight.detach()).abs().max()
    assert float(left / start) == pytest.approx(0.5**10, rel=1e-2)


def test_a_network_without_buffers_is_updated():
    student = nn.Linear(2, 2)
    teacher = ema_copy(student)
    with torch.no_grad():
        student.weight.add_(1)
    ema_update(teacher, student, 0.0, buffers="copy")
    assert torch.equal(teacher.weight, student.weight)


@pytest.mark.parametrize("momentum", [-0.1, 1.1])
def test_momentum_outside_0_to_1_is_refused(momentum):
    with pytest.raises(ValueError, match=f"between 0 and 1, got {momentum}"):
        ema_update(network(0), network(1), momentum, buffers="skip")


def test_networks_that_differ_are_refused():
    with pytest.raises(ValueError, match="teacher and student differ"):
        ema_update(network(0), nn.ModuleDict({"module": network(0)}), 0.9, buffers="skip")
