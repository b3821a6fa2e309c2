"""Market-1501: 1 501 persons before six cameras.

Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.

Folder: `bounding_box_train`, `query` and `bounding_box_test`, each holding .jpg files named

    PID_cCAMERAsSEQUENCE_FRAME_BOX.jpg        0002_c1s1_000451_03.jpg

    PID        digits; -1 is junk (a bad box of somebody), 0000 a distractor (nobody wanted)
    CAMERA     from 1, here from 0
    SEQUENCE   recording of that camera; FRAME within it; BOX within the frame

Files of other types (the archive holds a Thumbs.db) are no part of it.
"""

import os
import re
from pathlib import Path

import numpy as np

from reid.types import Dataset, Split

NAME = "market1501"
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
ARCHIVE_NAMES = ("Market-1501-v15.09.15", "Market1501")
JUNK = -1
GRAMMAR = re.compile(r"(-1|\d+)_c([1-9]\d*)s\d+_\d+_\d+\.jpg")
NUM_SHOWN = 3


def _find(root: Path) -> Path:
    """Return the data set's own folder: `root`, or the archive's folder inside it."""
    for folder in (root, *(root / name for name in ARCHIVE_NAMES)):
        if (folder / FOLDERS["train"]).is_dir():
            return folder
    raise ValueError(
        f"{root} is no Market-1501: expected the folder {FOLDERS['train']} in it, "
        f"in {' or in '.join(f'{name}/' for name in ARCHIVE_NAMES)}"
    )


def _read_split(folder: Path, *, keep_junk: bool) -> Split:
    if not folder.is_dir():
        raise ValueError(f"the folder {folder} is missing: expected {', '.join(FOLDERS.values())}")
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(".jpg"))
    if not names:
        raise ValueError(f"{folder} is empty: expected files such as 0002_c1s1_000451_03.jpg")
    matches = [GRAMMAR.fullmatch(name) for name in names]
    strange = [name for name, match in zip(names, matches, strict=True) if match is None]
    if strange:
        raise ValueError(
            f"{len(strange)} of {len(names)} names in {folder} do not read "
            f"PID_cCAMERAsSEQUENCE_FRAME_BOX.jpg, as 0002_c1s1_000451_03.jpg does: "
            f"{', '.join(strange[:NUM_SHOWN])}"
            f"{', ...' if len(strange) > NUM_SHOWN else ''}"
        )
    numbers = np.array([match.groups() for match in matches if match is not None], dtype=np.int64)
    pid, camid = numbers[:, 0], numbers[:, 1] - 1
    path = np.array([f"{folder.as_posix()}/{name}" for name in names])
    kept = np.full(len(pid), True) if keep_junk else pid != JUNK
    return Split(path=path[kept], pid=pid[kept], camid=camid[kept])


def load(root: str | os.PathLike[str]) -> Dataset:
    """Read the table of Market-1501 from its folder, or the folder that holds it.

    No image is opened. Training drops junk; the gallery keeps it (pid -1) and the distractors
    (pid 0), as published: the evaluation ignores the one and counts the other as wrong. Paths are
    absolute, and rows sorted by them. Raises ValueError for a missing folder, an empty split, names
    outside the grammar, and fewer than two training identities.
    """
    folder = _find(Path(os.path.abspath(root)))
    train = _read_split(folder / FOLDERS["train"], keep_junk=False)
    if (num_identities := len(np.unique(train.pid))) < 2:
        raise ValueError(
            f"{folder / FOLDERS['train']} shows {num_identities} identity; training needs 2 or more"
        )
    return Dataset(
        name=NAME,
        root=str(folder),
        train=train,
        query=_read_split(folder / FOLDERS["query"], keep_junk=True),
        gallery=_read_split(folder / FOLDERS["gallery"], keep_junk=True),
    )
