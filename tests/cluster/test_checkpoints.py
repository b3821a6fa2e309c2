"""Checkpoints in a run's folder: the last two, found by round and step."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster import checkpoints
from cluster.storage import Folder
from reid.checkpoint import RunState
from reid.types import PseudoLabels


def state_at(round: int, step: int) -> RunState:
    generator = torch.Generator().manual_seed(round * 1000 + step)
    labels = PseudoLabels(labels=np.arange(4), centers=np.ones((4, 2), np.float32))
    return RunState(
        networks={"student.weight": torch.randn(3, 2, generator=generator)},
        optimizer={"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
        round=round,
        step=step,
        labels={"global": labels} if step else {},
        loader="dali",
        config={"backbone": "resnet18", "optim.milestones": [40, 70]},
        config_hash="0123456789ab",
        kind="SourceConfig",
        sizes={"num_identities": 3, "num_images": 5},
    )


@pytest.fixture
def run(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "run"))


def assert_same(found: RunState | None, wanted: RunState) -> None:
    assert found is not None
    assert (found.round, found.step) == (wanted.round, wanted.step)
    assert torch.equal(found.networks["student.weight"], wanted.networks["student.weight"])
    assert found.optimizer["param_groups"] == wanted.optimizer["param_groups"]
    assert found.config == wanted.config
    assert (found.kind, found.config_hash) == (wanted.kind, wanted.config_hash)
    assert (found.loader, found.sizes) == (wanted.loader, wanted.sizes)
    assert list(found.labels) == list(wanted.labels)
    for view, value in wanted.labels.items():
        np.testing.assert_array_equal(found.labels[view].labels, value.labels, strict=True)
        np.testing.assert_array_equal(found.labels[view].centers, value.centers, strict=True)


def test_run_without_checkpoints_has_no_latest(run: Folder) -> None:
    assert checkpoints.latest(run) is None


@pytest.mark.parametrize("at", [(1, 0), (1, 40)])
def test_state_round_trips(run: Folder, at: tuple[int, int]) -> None:
    checkpoints.save(run, state_at(*at))
    assert_same(checkpoints.latest(run), state_at(*at))


def test_last_two_are_kept(run: Folder) -> None:
    for step in (20, 40, 60):
        checkpoints.save(run, state_at(0, step))
    kept = (run / "checkpoints").names()
    assert kept == [checkpoints.name_of(state_at(0, step)) for step in (40, 60)]
    checkpoints.save(run, state_at(1, 0))
    assert (run / "checkpoints").names()[-1] == checkpoints.name_of(state_at(1, 0))
    assert len((run / "checkpoints").names()) == 2


def test_names_sort_in_the_order_of_training() -> None:
    order = list(itertools.product((0, 1, 9, 10, 99, 100), (0, 2, 10, 400, 99_999)))
    names = [checkpoints.name_of(state_at(*at)) for at in order]
    assert names == sorted(names)


def test_latest_is_the_highest_round_then_step(run: Folder) -> None:
    folder = run / "checkpoints"
    for at in ((10, 0), (9, 300), (2, 20), (10, 5)):
        checkpoints.save(run, state_at(*at))
    assert len(folder.names()) == checkpoints.KEEP
    assert_same(checkpoints.latest(run), state_at(10, 5))


def test_other_files_are_no_checkpoints(run: Folder) -> None:
    checkpoints.save(run, state_at(0, 20))
    (run / "checkpoints").write("zzz.txt", b"a note")
    assert_same(checkpoints.latest(run), state_at(0, 20))


def test_read_takes_a_file_or_a_run(run: Folder) -> None:
    first, second = state_at(1, 0), state_at(2, 0)
    checkpoints.save(run, first)
    checkpoints.save(run, second)
    assert_same(checkpoints.read(run.uri), second)
    assert_same(checkpoints.read(f"{run.uri}/"), second)
    file = f"{run.uri}/checkpoints/{checkpoints.name_of(first)}"
    assert_same(checkpoints.read(file), first)


def test_read_of_a_bare_file_name(
    run: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.save(run, state_at(1, 0))
    Path(run.uri, "checkpoints", checkpoints.name_of(state_at(1, 0))).rename(tmp_path / "a.pt")
    monkeypatch.chdir(tmp_path)
    assert_same(checkpoints.read("a.pt"), state_at(1, 0))


@pytest.mark.parametrize("name", ["absent", "absent.pt", "absent/other.pt"])
def test_absent_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no checkpoint.*{tmp_path}/{name}"):
        checkpoints.read(f"{tmp_path}/{name}")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_foreign_file_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is not a checkpoint"):
        checkpoints.read(str(file))


def test_damaged_latest_is_named(run: Folder) -> None:
    state = state_at(1, 0)
    checkpoints.save(run, state)
    folder, name = run / "checkpoints", checkpoints.name_of(state)
    folder.write(name, folder.read(name)[:-100])
    with pytest.raises(ValueError, match=f"{name} is not a checkpoint"):
        checkpoints.latest(run)
