import pytest
import torch
from torch import nn

from reid.models import load_weights, seeded


def network(*, width=3, seed=0):
    with seeded(seed):
        return nn.ModuleDict(
            {"trunk": nn.Linear(4, width), "bn": nn.BatchNorm1d(width), "head": nn.Linear(width, 2)}
        )


def snapshot(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_seeded_draws_depend_on_the_seed_and_leave_the_generator_alone():
    before = torch.get_rng_state()
    with seeded(7):
        first = torch.rand(3)
    with seeded(7):
        again = torch.rand(3)
    with seeded(8):
        other = torch.rand(3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def draw_and_fail():
    with seeded(7):
        torch.rand(3)
        raise KeyError


def test_the_generator_is_given_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)


def test_every_tensor_is_copied():
    source, target = network(seed=0), network(seed=1)
    load_weights(target, source.state_dict())
    assert all(torch.equal(v, source.state_dict()[n]) for n, v in target.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.weight"), r"missing: head\.weight \(2, 3\)\. List"),
        (lambda s: s.update(extra=torch.ones(5)), r"unexpected: extra \(5,\)\. List"),
        (
            lambda s: s.update({"head.weight": torch.ones(9, 3)}),
            r"of another shape: head\.weight \(9, 3\), needs \(2, 3\)",
        ),
    ],
)
def test_differences_are_named_and_nothing_is_copied(change, message):
    target = network(seed=1)
    state, before = snapshot(network(seed=0)), snapshot(target)
    change(state)
    with pytest.raises(ValueError, match=message):
        load_weights(target, state)
    assert all(torch.equal(v, before[n]) for n, v in target.state_dict().items())


def test_only_the_first_differences_are_shown():
    with pytest.raises(ValueError, match=r"a0 \(1,\), a1 \(1,\), a2 \(1,\) and 2 more"):
        load_weights(network(), network().state_dict() | {f"a{i}": torch.ones(1) for i in range(5)})


def test_announced_differences_are_allowed():
    source, target = network(seed=0), network(seed=1)
    head = target["head"].weight.clone()
    state = snapshot(source)
    state["head.weight"] = torch.ones(9, 3)  # other identities
    state["fc.bias"] = torch.ones(2)
    load_weights(target, state, missing=("head.",), unexpected=("head.", "fc."))
    assert torch.equal(target["trunk"].weight, source["trunk"].weight)
    assert torch.equal(target["head"].weight, head)


def test_what_may_be_missing_must_still_fit_when_it_is_there():
    state = network().state_dict() | {"head.weight": torch.ones(9, 3)}
    with pytest.raises(ValueError, match="of another shape"):
        load_weights(network(), state, missing=("head.",))


def test_files_older_than_the_step_counter_load():
    state = snapshot(network(seed=0))
    del state["bn.num_batches_tracked"]
    target = network(seed=1)
    load_weights(target, state)
    assert torch.equal(target["trunk"].weight, state["trunk.weight"])


def test_differences_inside_a_residual_stage_hint_at_another_backbone():
    net = nn.ModuleDict({"layer3": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])})
    state = {name: value for name, value in net.state_dict().items() if "layer3.1" not in name}
    with pytest.raises(ValueError, match="another backbone"):
        load_weights(net, state)
