"""Market-1501: 1 501 persons before six cameras.

Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.

Folder: `bounding_box_train`, `query` and `bounding_box_test`, each holding .jpg files named

    PID_cCAMERAsSEQUENCE_FRAME_BOX.jpg        0002_c1s1_000451_03.jpg

    PID        digits; -1 is junk (a bad box of somebody), 0000 a distractor (nobody wanted)
    CAMERA     from 1, here from 0
    SEQUENCE   recording of that camera; FRAME within it; BOX within the frame

Files of other types (the archive holds a Thumbs.db) are no part of it.

Published are 751 training identities and 750 test identities, whose gallery holds 19 732 images
with the 3 819 of junk; the distractors count as one identity more.
"""

import os
import re

from reid.data.datasets import reading
from reid.types import Dataset

NAME = "market1501"
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
ARCHIVE_NAMES = ("Market-1501-v15.09.15", "Market1501")
GRAMMAR = reading.Grammar(
    pattern=re.compile(r"(?P<pid>-1|\d+)_c(?P<cam>[1-9]\d*)s\d+_\d+_\d+\.jpg"),
    form="PID_cCAMERAsSEQUENCE_FRAME_BOX.jpg",
    example="0002_c1s1_000451_03.jpg",
)
PUBLISHED = {
    "train images": 12_936,
    "train identities": 751,
    "query images": 3_368,
    "query identities": 750,
    "gallery images": 19_732,
    "gallery identities": 751,
}


def read(root: str | os.PathLike[str]) -> Dataset:
    """Read a folder in Market-1501's layout, whatever it holds; raises as `load` does."""
    folder = reading.find_folder(
        root, title="Market-1501", inside=FOLDERS["train"], archive_names=ARCHIVE_NAMES
    )
    return reading.read_folders(NAME, folder, GRAMMAR, folders=FOLDERS)


def load(root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
    """Read the table of Market-1501 from its folder, or the folder that holds it.

    No image is opened. Training drops junk; the gallery keeps it (pid -1) and the distractors
    (pid 0), as published: the evaluation ignores the one and counts the other as wrong. Paths are
    absolute, and rows sorted by them. Raises ValueError for a missing folder, an empty split, names
    outside the grammar, and fewer than two training identities. Counts other than the published
    ones give a `CountWarning`, or a ValueError if `strict`.
    """
    return reading.as_published(read(root), PUBLISHED, strict=strict)
