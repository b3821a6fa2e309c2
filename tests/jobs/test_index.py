"""The index command: its table, its exit codes, its words on wrong input."""

import json
import runpy
import sys
from pathlib import Path

import pyarrow.parquet as pa_parquet
import pytest

from jobs import index
from reid.data import files
from reid.data.datasets import load
from reid.data.miniature_modality import write_folder, write_regdb

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_folder(tmp_path / "own")
    return tmp_path / "own"


def options(folder: Path, /, **changes: object) -> index.Options:
    out = str(folder.parent / "out" / "table.parquet")
    return index.Options(**{"name": "folder", "root": str(folder), "out": out} | changes)


def test_a_sound_data_set_is_counted_and_written(own: Path, capsys: Capture) -> None:
    assert index.main(options(own)) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    images = {name: len(list((own / name).rglob("*.png"))) for name in found["splits"]}
    assert {name: split["images"] for name, split in found["splits"].items()} == images
    assert found["splits"]["train"]["identities"] == len(list((own / "train").iterdir()))
    assert "identities with one camera" in err
    assert "folder in" in err
    rows = pa_parquet.read_table(own.parent / "out" / "table.parquet").to_pylist()
    assert len(rows) == sum(images.values())
    assert {row["path"] for row in rows} == {str(file) for file in own.rglob("*.png")}


def test_unreadable_images_are_named_and_the_exit_code_is_1(own: Path, capsys: Capture) -> None:
    broken = sorted((own / "train").rglob("*.png"))[:12]
    for file in broken:
        file.write_bytes(b"")
    assert index.main(options(own)) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["splits"]["train"]["unreadable_images"] == 12
    assert f"unreadable: {broken[0]} (zero bytes)" in err
    assert err.count("zero bytes") == 10
    assert "and 2 more unreadable images" in err


def test_images_in_two_splits_are_told(own: Path, capsys: Capture) -> None:
    source = next((own / "train").rglob("*.png"))
    (own / "query" / "gina" / source.name).write_bytes(source.read_bytes())
    assert index.main(options(own)) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["shared"]["train and query"] == 1
    assert "1 images are the same, byte by byte, in train and query" in err


def test_counts_unlike_the_published_warn_or_refuse(tmp_path: Path, capsys: Capture) -> None:
    write_regdb(tmp_path / "regdb")
    asked = {"name": "regdb"}
    assert index.main(options(tmp_path / "regdb", **asked)) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["splits"]["query"]["images"] == 16
    assert "warning: regdb is not as published" in err
    rows = pa_parquet.read_table(tmp_path / "out" / "table.parquet")
    assert set(rows["modality"].to_pylist()) == {0, 1}
    with pytest.raises(SystemExit) as stopped:
        index.main(options(tmp_path / "regdb", **asked, strict=True))
    assert stopped.value.code == 2
    assert "error: regdb is not as published" in capsys.readouterr().err


def test_a_packed_data_set_is_the_data_set(own: Path, capsys: Capture) -> None:
    packed = own.parent / "packed"
    assert index.main(options(own, pack=str(packed))) == 0
    assert f"packed: {packed}" in capsys.readouterr().err
    wanted, found = load("folder", own), load("table", packed)
    for split in ("train", "query", "gallery"):
        mine, theirs = getattr(found, split), getattr(wanted, split)
        assert mine.pid.tolist() == theirs.pid.tolist()
        assert mine.camid.tolist() == theirs.camid.tolist()
        for path, file in zip(mine.path.tolist(), theirs.path.tolist(), strict=True):
            assert files.read(path) == Path(file).read_bytes()
            assert file.endswith(path.partition("#")[2])


def test_nothing_is_packed_where_images_do_not_decode(own: Path, capsys: Capture) -> None:
    next((own / "train").rglob("*.png")).write_bytes(b"")
    assert index.main(options(own, pack=str(own.parent / "packed"))) == 1
    assert not (own.parent / "packed").exists()
    assert "nothing is packed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "fodler"}, "there is no data set 'fodler'; did you mean folder"),
        ({"root": "nowhere"}, "nowhere is no folder of images by split and identity"),
        ({"out": "table.xlsx"}, "table.xlsx is no table: its name must end in .parquet or .csv"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    own: Path, capsys: Capture, changes: dict[str, str], words: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        index.main(options(own, **changes))
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert words in line


def test_the_command_line_has_the_name_first(
    own: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (next((own / "train").rglob("*.png"))).write_bytes(b"")
    out = own.parent / "table.csv"
    command = ["jobs.index", "folder", "--root", str(own), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(index.__file__, run_name="__main__")
    assert stopped.value.code == 1
    assert json.loads(capsys.readouterr().out)["dataset"] == "folder"
    assert out.read_text().startswith('"path","split","pid","camid"')
