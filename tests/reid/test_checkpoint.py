"""A state as bytes: exact there and back, and nothing foreign gets in or runs."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from reid.checkpoint import FORMAT, RunState, from_bytes, to_bytes
from reid.override import config_hash, flatten
from reid.recipes import RUNS
from reid.types import OUTLIER, PseudoLabels


class Payload:
    """A pickle that writes a file when it is read."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(3)
    layer = torch.nn.Linear(4, 3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(torch.randn(5, 4, generator=generator)).square().sum().backward()
    optimizer.step()
    config = RUNS["core_reid_v2-demo"]
    rng = np.random.default_rng(0)
    labels = PseudoLabels(
        labels=np.array([0, 2, OUTLIER, 1]),
        centers=rng.random((3, 4), dtype=np.float32),
        extras={"agreement": rng.random((4, 2)), "threshold": np.array(0.25)},
    )
    return RunState(
        networks={**layer.state_dict(), "half": torch.ones(2, dtype=torch.bfloat16)},
        optimizer=optimizer.state_dict(),
        round=4,
        step=17,
        labels={"global": labels},
        loader="dali",
        config=flatten(config),
        config_hash=config_hash(config),
        kind=type(config).__name__,
        sizes={"num_identities": 3, "num_images": 5},
    )


def archive(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_round_trip_is_exact(state):
    found = from_bytes(to_bytes(state), name="memory")
    torch.testing.assert_close(found.networks, dict(state.networks), rtol=0, atol=0)
    torch.testing.assert_close(found.optimizer["state"], state.optimizer["state"], rtol=0, atol=0)
    assert found.optimizer["param_groups"] == state.optimizer["param_groups"]
    for name in ("round", "step", "loader", "config", "config_hash", "kind", "sizes"):
        assert getattr(found, name) == getattr(state, name)
    assert found.labels.keys() == {"global"}
    np.testing.assert_array_equal(found.labels["global"].labels, state.labels["global"].labels)
    np.testing.assert_array_equal(found.labels["global"].centers, state.labels["global"].centers)
    assert found.labels["global"].labels.dtype == np.int64
    assert found.labels["global"].centers.dtype == np.float32
    for name, value in state.labels["global"].extras.items():
        np.testing.assert_array_equal(found.labels["global"].extras[name], value, strict=True)


def test_the_bytes_are_a_copy_of_the_live_tensors(state):
    data = to_bytes(state)
    before = state.networks["weight"].clone()
    state.networks["weight"].zero_()
    assert torch.equal(from_bytes(data, name="memory").networks["weight"], before)


def test_foreign_bytes_are_refused_by_name(state):
    whole = to_bytes(state)
    foreign = {
        "text": b"not a checkpoint",
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "tensor": archive(torch.ones(3)),
        "weights": archive({"conv1.weight": torch.ones(3)}),
        "other format": archive({"format": FORMAT + 1}),
        "fields missing": archive({"format": FORMAT, "labels": {}}),
    }
    for name, data in foreign.items():
        with pytest.raises(ValueError, match=f"runs/{name}.pt is not a checkpoint"):
            from_bytes(data, name=f"runs/{name}.pt")


@pytest.mark.parametrize("wrap", [archive, pickle.dumps, lambda value: archive({"format": value})])
def test_code_in_a_file_is_not_executed(tmp_path, wrap):
    victim = tmp_path / "executed"
    data = wrap(Payload(victim))
    with pytest.raises(ValueError, match=r"evil\.pt is not a checkpoint"):
        from_bytes(data, name="evil.pt")
    assert not victim.exists()


def test_the_payload_would_run_where_code_is_allowed(tmp_path):
    """Without this the test above could pass by a payload that does nothing."""
    victim = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(victim)))
    assert victim.exists()
