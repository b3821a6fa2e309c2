"""MSMT17: 4 101 persons before fifteen cameras, in three parts of the day.

Wei et al., Person Transfer GAN to Bridge Domain Gap for Person Re-identification, CVPR 2018.

Folder: `list_train.txt`, `list_val.txt`, `list_query.txt`, `list_gallery.txt`, and the images in
`train` and `test` (version 1) or `mask_train_v2` and `mask_test_v2` (version 2: blurred faces). A
line of a list is a path within the images' folder and a label:

    PID/PID_NUMBER_CAMERA_TIME.jpg LABEL        0000/0000_000_01_0303morning_0015_0.jpg 0

    PID        digits, from 0000; counted afresh in the test part, where 0000 is another person
    CAMERA     01 to 15, here from 0
    LABEL      PID again, not read

As in all papers on domain adaptation, training and validation images together are the training
set. Published figures are on version 1.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from reid.data.datasets import reading
from reid.types import Dataset, Split

NAME = "msmt17"
TRAIN_LISTS = ("list_train.txt", "list_val.txt")
ARCHIVE_NAMES = ("MSMT17_V1", "MSMT17_V2", "MSMT17")
TRAIN_FOLDERS = ("train", "mask_train_v2")
TEST_FOLDERS = ("test", "mask_test_v2")
LINE = reading.Grammar(
    pattern=re.compile(
        r"(?P<image>(?:\S+/)?(?P<pid>\d+)_\d+_(?P<cam>0[1-9]|1[0-5])_[^/\s]+\.jpg)\s+\d+"
    ),
    form="PID/PID_NUMBER_CAMERA_TIME.jpg LABEL",
    example="0000/0000_000_01_0303morning_0015_0.jpg 0",
)
PUBLISHED = {
    "train images": 32_621,
    "train identities": 1_041,
    "query images": 11_659,
    "query identities": 3_060,
    "gallery images": 82_161,
    "gallery identities": 3_060,
}


def _images_folder(folder: Path, spellings: Sequence[str]) -> Path:
    for name in spellings:
        if (folder / name).is_dir():
            return folder / name
    raise ValueError(f"{folder} holds no images: expected the folder {' or '.join(spellings)}")


def _read_split(lists: Sequence[Path], images: Path) -> Split:
    matches = []
    for file in lists:
        lines = reading.read_list(file, LINE)
        reading.require_images([line["image"] for line in lines], images, source=file)
        matches += lines
    return reading.make_split(
        [match["image"] for match in matches],
        images,
        pid=reading.column(matches, "pid"),
        camid=reading.column(matches, "cam") - 1,
    )


def load(root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
    """Read the table of MSMT17 (either version) from its folder, or the folder that holds it.

    Raises ValueError for a missing folder, list or listed image, a line that does not read as
    above, and fewer than two training identities; counts as `market1501.load` does.
    """
    folder = reading.find_folder(
        root, title="MSMT17", inside=TRAIN_LISTS[0], archive_names=ARCHIVE_NAMES
    )
    test = _images_folder(folder, TEST_FOLDERS)
    train = _read_split(
        [folder / name for name in TRAIN_LISTS], _images_folder(folder, TRAIN_FOLDERS)
    )
    reading.require_identities(train, where=folder / TRAIN_LISTS[0])
    dataset = Dataset(
        name=NAME,
        root=str(folder),
        train=train,
        query=_read_split([folder / "list_query.txt"], test),
        gallery=_read_split([folder / "list_gallery.txt"], test),
    )
    return reading.as_published(dataset, PUBLISHED, strict=strict)
