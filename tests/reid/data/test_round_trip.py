"""Every reader's miniature, written as a table and packed, is the same data set."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from reid.data import files
from reid.data.datasets import DATASETS, load
from reid.data.datasets.reading import CountWarning
from reid.data.index import build_index, write_index
from reid.data.miniature import MINIATURES, write_miniature
from reid.data.pack import pack
from reid.types import Dataset

SPLITS = ("train", "query", "gallery")


def rows(dataset: Dataset, split: str) -> list[tuple[int, int, int, bytes]]:
    """Return identity, camera, modality and bytes of each image, sorted."""
    part = getattr(dataset, split)
    modality = np.zeros(len(part), int) if part.modality is None else part.modality
    found = zip(part.path, part.pid, part.camid, modality, strict=True)
    return sorted((int(p), int(c), int(m), files.read(str(name))) for name, p, c, m in found)


@pytest.mark.parametrize("name", sorted(set(MINIATURES) & set(DATASETS)))
def test_table_and_pack_hold_what_the_reader_reads(name: str, tmp_path: Path) -> None:
    write_miniature(name, tmp_path / "data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CountWarning)
        dataset = load(name, tmp_path / "data")
    index = build_index(dataset)
    write_index(index, tmp_path / "index.parquet")
    pack(index, str(tmp_path / "packed"))
    for root in (tmp_path / "index.parquet", tmp_path / "packed"):
        found = load("table", root)
        for split in SPLITS:
            mine, theirs = rows(found, split), rows(dataset, split)
            assert len(mine) == len(getattr(dataset, split))
            assert mine == theirs
            has_modality = getattr(dataset, split).modality is not None
            assert (getattr(found, split).modality is not None) == has_modality


def test_every_data_set_has_a_miniature_to_go_round() -> None:
    built_in = {name for name in DATASETS if name.startswith("synthetic")}
    assert set(DATASETS) - set(MINIATURES) - built_in == set()
