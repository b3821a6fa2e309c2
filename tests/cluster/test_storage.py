"""Files of a run: whole or absent, and a folder that travels between processes."""

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "run"))


def test_what_is_written_is_read(folder: Folder) -> None:
    data = bytes(range(256)) * 5000
    folder.write("weights.pt", data)
    assert folder.read("weights.pt") == data
    assert Path(folder.uri, "weights.pt").read_bytes() == data


def test_second_write_replaces_the_first(folder: Folder) -> None:
    folder.write("a", b"a long first content")
    folder.write("a", b"short")
    assert folder.read("a") == b"short"
    assert os.listdir(folder.uri) == ["a"]


def test_write_makes_the_folders_in_a_name(folder: Folder) -> None:
    folder.write("rankings/round=0000.npz", b"x")
    assert (folder / "rankings").names() == ["round=0000.npz"]
    assert folder.names() == ["rankings"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failing_write_leaves_the_old_bytes_and_nothing_else(
    folder: Folder, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("a", b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="disk full"):
            folder.write("a", b"new")
    assert folder.read("a") == b"old"
    assert os.listdir(folder.uri) == ["a"]


def test_names_are_sorted_and_hide_unfinished_files(folder: Folder) -> None:
    for name in ("b", "a", "c"):
        folder.write(name, b"")
    Path(folder.uri, "d.0123.tmp").write_bytes(b"half of it")  # what a killed process leaves
    assert folder.names() == ["a", "b", "c"]


def test_absent_folder_has_no_names(folder: Folder) -> None:
    assert folder.names() == []
    assert not folder.exists("a")


def test_exists_is_about_files(folder: Folder) -> None:
    folder.write("inner/a", b"")
    assert (folder / "inner").exists("a")
    assert not folder.exists("inner")


def test_reading_an_absent_file_names_it(folder: Folder) -> None:
    with pytest.raises(FileNotFoundError, match=r"run/absent\.json"):
        folder.read("absent.json")


def test_delete(folder: Folder) -> None:
    folder.write("a", b"1")
    folder.write("b", b"2")
    folder.delete("a")
    folder.delete("a")  # what is gone is gone
    assert folder.names() == ["b"]
    assert not folder.exists("a")


def test_json_is_exact(folder: Folder) -> None:
    value = {"mAP": 0.1 + 0.2, "rounds": [{"ari": None, "name": "é"}], "done": True}
    folder.write_json("summary.json", value)
    assert folder.read_json("summary.json") == value


def test_inner_folder_and_absolute_path(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (folder / "a" / "b").uri == f"{folder.uri}/a/b"
    assert (Folder("runs/") / "a").uri == "runs/a"
    monkeypatch.chdir(Path(folder.uri).parent)
    assert Folder("run").path == folder.uri
    assert Folder("run").is_local


def test_s3_address_is_left_alone() -> None:
    inner = Folder("s3://bucket/prefix") / "run"
    assert not inner.is_local
    assert inner.path == inner.uri == "s3://bucket/prefix/run"


def test_a_folder_in_object_storage_is_one_as_any_other(s3: Any) -> None:
    folder = Folder(f"{s3.bucket}/runs") / "a run"
    assert folder.names() == []
    data = bytes(range(256)) * 50_000  # more than a part of an upload
    folder.write("rankings/round=0000.npz", data)
    folder.write_json("summary.json", {"mAP": 0.1})
    folder.write_json("summary.json", {"mAP": 0.2})
    assert folder.read("rankings/round=0000.npz") == data
    assert folder.read_json("summary.json") == {"mAP": 0.2}
    assert folder.names() == ["rankings", "summary.json"]
    assert folder.exists("summary.json")
    assert not folder.exists("rankings")
    folder.delete("summary.json")
    assert not folder.exists("summary.json")
    with pytest.raises(FileNotFoundError, match=r"a run/summary\.json: no such object$"):
        folder.read("summary.json")


@pytest.mark.parametrize("kind", ["slow_down", "broken"])
def test_failing_transfers_are_repeated(s3: Any, kind: str) -> None:
    folder = Folder(s3.bucket)
    data = bytes(range(256)) * 1000
    for number in range(3):
        s3.fail(kind, 3)
        folder.write(f"{number}", data)
        s3.fail(kind, 3)
        assert folder.read(f"{number}") == data
    assert len(folder.names()) == 3


def test_a_missing_bucket_and_refused_credentials_are_one_line(s3: Any) -> None:
    lost = Folder("s3://lost/runs")
    for action in (lambda: lost.write("a", b""), lambda: lost.read("a")):
        with pytest.raises(ValueError, match=r"^s3://lost/runs/a: no such bucket \(s3://lost\)$"):
            action()
    s3.fail("denied", 1)
    with pytest.raises(ValueError, match=r"^s3://bucket/a is refused \(ACCESS_DENIED\): give cred"):
        Folder(s3.bucket).write("a", b"")


def test_folder_pickles(folder: Folder) -> None:
    folder.write("a", b"1")
    copy = pickle.loads(pickle.dumps(folder))
    assert copy == folder
    assert copy.read("a") == b"1"


def test_a_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/states/last.pt'"):
        Folder(str(tmp_path)).write("states/last.pt", b"state")
    assert not list((tmp_path / "states").iterdir())
