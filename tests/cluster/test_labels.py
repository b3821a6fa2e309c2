"""Labels of a round: all of them or none."""

import logging
from pathlib import Path

import numpy as np
import pytest

from cluster import labels
from cluster.storage import Folder
from reid.fit import Labelling
from reid.types import OUTLIER, PseudoLabels

VIEWS = ("global", "top", "bottom")


@pytest.fixture
def run(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "run"))


@pytest.fixture
def labelling() -> Labelling:
    rng = np.random.default_rng(0)
    return Labelling(
        labels={
            view: PseudoLabels(
                labels=rng.integers(OUTLIER, 5, size=40),
                centers=rng.standard_normal((5, 7)).astype(np.float32),
                extras={"alone": rng.integers(0, 9, 20)} if view == "top" else {},
            )
            for view in VIEWS
        },
        seconds={"extract": 0.1 + 0.2, "cluster": 1e-9},
        health={view: {"num_clusters": 5.0, "ari": 1 / 3} for view in VIEWS},
    )


def assert_same(found: Labelling | None, wanted: Labelling) -> None:
    assert found is not None
    assert list(found.labels) == list(wanted.labels)
    for view, value in wanted.labels.items():
        np.testing.assert_array_equal(found.labels[view].labels, value.labels, strict=True)
        np.testing.assert_array_equal(found.labels[view].centers, value.centers, strict=True)
        assert found.labels[view].extras.keys() == value.extras.keys()
        for name, extra in value.extras.items():
            np.testing.assert_array_equal(found.labels[view].extras[name], extra, strict=True)
    assert found.seconds == wanted.seconds
    assert found.health == wanted.health


def test_round_trip_is_exact(run: Folder, labelling: Labelling) -> None:
    labels.commit(run, 3, labelling)
    assert_same(labels.committed(run, 3), labelling)


def test_rounds_are_apart(run: Folder, labelling: Labelling) -> None:
    labels.commit(run, 3, labelling)
    assert labels.committed(run, 2) is None
    assert labels.committed(run, 30) is None


def test_read_labels_may_be_changed(run: Folder, labelling: Labelling) -> None:
    labels.commit(run, 0, labelling)
    found = labels.committed(run, 0)
    assert found is not None
    found.labels["top"].labels[:] = OUTLIER  # torch.from_numpy wants memory it may write to
    assert_same(labels.committed(run, 0), labelling)


def test_manifest_is_written_last(
    run: Folder, labelling: Labelling, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    write = Folder.write

    def recorded(folder: Folder, name: str, data: bytes) -> None:
        written.append(name)
        write(folder, name, data)

    monkeypatch.setattr(Folder, "write", recorded)
    labels.commit(run, 0, labelling)
    assert written[-1] == labels.MANIFEST
    assert set(written[:-1]) == {
        labels.TABLE,
        "extra-top-alone.npy",
        *(f"centers-{view}.npy" for view in VIEWS),
    }


@pytest.mark.parametrize("num_written", range(5))
def test_commit_cut_short_leaves_no_labels(
    run: Folder, labelling: Labelling, num_written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = Folder.write, iter(range(num_written))

    def dying(folder: Folder, name: str, data: bytes) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(folder, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            labels.commit(run, 0, labelling)
    assert len(labels.round_folder(run, 0).names()) == num_written
    assert labels.committed(run, 0) is None
    labels.commit(run, 0, labelling)
    assert_same(labels.committed(run, 0), labelling)


@pytest.mark.parametrize("name", [labels.TABLE, "centers-top.npy"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_damaged_file_is_no_labels_and_a_warning(
    run: Folder, labelling: Labelling, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    labels.commit(run, 0, labelling)
    folder = labels.round_folder(run, 0)
    data = folder.read(name)
    if damage == "gone":
        folder.delete(name)
    else:
        last = bytes([data[-1] ^ 1]) if damage == "flipped" else b""
        folder.write(name, data[:-1] + last)
    with caplog.at_level(logging.WARNING):
        assert labels.committed(run, 0) is None
    assert f"{folder.uri}/{name} is damaged or gone" in caplog.text
