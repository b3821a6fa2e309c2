"""PersonX: 1 266 persons drawn by a game engine, 36 views each before six backgrounds.

Sun and Zheng, Dissecting Person Re-identification from the Viewpoint of Viewpoint, CVPR 2019. The
part used in domain adaptation has six "cameras": a background and a light each.

Folder: `bounding_box_train`, `query` and `bounding_box_test` (in the archive, inside `subset1`),
each holding .jpg files named

    PID_cCAMERA_NUMBER.jpg        0001_c3_10.jpg

    PID        digits
    CAMERA     3, 4, 8, 10, 11 or 12, here 0 to 5 in that order
    NUMBER     of the image, in one or more parts
"""

import os
import re
from dataclasses import replace

import numpy as np

from reid.data.datasets import reading
from reid.types import Dataset, Split

NAME = "personx"
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
ARCHIVE_NAMES = ("subset1", "PersonX", "PersonX/subset1")
CAMERAS = (3, 4, 8, 10, 11, 12)
GRAMMAR = reading.Grammar(
    pattern=re.compile(
        rf"(?P<pid>\d+)_c0*(?P<cam>{'|'.join(map(str, CAMERAS))})(?:s\d+)?(?:_\w+)*\.jpg"
    ),
    form="PID_cCAMERA_NUMBER.jpg (CAMERA one of 3, 4, 8, 10, 11, 12)",
    example="0001_c3_10.jpg",
)
PUBLISHED = {"train images": 9_840, "query images": 5_136, "gallery images": 30_816}


def _from_zero(split: Split) -> Split:
    """Return the split with the cameras of the file names numbered 0 to 5."""
    return replace(split, camid=np.searchsorted(CAMERAS, split.camid).astype(np.int64))


def load(root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
    """Read the table of PersonX from its folder, or the folder that holds it.

    Raises ValueError as `market1501.load` does.
    """
    folder = reading.find_folder(
        root, title="PersonX", inside=FOLDERS["train"], archive_names=ARCHIVE_NAMES
    )
    found = reading.read_folders(NAME, folder, GRAMMAR, folders=FOLDERS, first_camera=0)
    dataset = replace(
        found,
        train=_from_zero(found.train),
        query=_from_zero(found.query),
        gallery=_from_zero(found.gallery),
    )
    return reading.as_published(dataset, PUBLISHED, strict=strict)
