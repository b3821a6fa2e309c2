"""VeRi-776: 776 vehicles before twenty cameras of one district.

Liu et al., Large-scale Vehicle Re-identification in Urban Surveillance Videos, ICME 2016.

Folder: `image_train`, `image_query` and `image_test`, each holding .jpg files named

    PID_cCAMERA_TIME_NUMBER.jpg        0002_c002_00030600_0.jpg

    PID        digits
    CAMERA     001 to 020, here from 0
    TIME       in the video; NUMBER of the box within that frame
"""

import os
import re

from reid.data.datasets import reading
from reid.types import Dataset

NAME = "veri776"
FOLDERS = {"train": "image_train", "query": "image_query", "gallery": "image_test"}
ARCHIVE_NAMES = ("VeRi",)
GRAMMAR = reading.Grammar(
    pattern=re.compile(r"(?P<pid>\d+)_c0*(?P<cam>1\d|20|[1-9])_\d+_\d+\.jpg"),
    form="PID_cCAMERA_TIME_NUMBER.jpg (CAMERA 001 to 020)",
    example="0002_c002_00030600_0.jpg",
)
PUBLISHED = {
    "train images": 37_778,
    "train identities": 576,
    "query images": 1_678,
    "query identities": 200,
    "gallery images": 11_579,
    "gallery identities": 200,
}


def load(root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
    """Read the table of VeRi-776 from its folder, or the folder that holds it.

    Raises ValueError as `market1501.load` does.
    """
    folder = reading.find_folder(
        root, title="VeRi-776", inside=FOLDERS["train"], archive_names=ARCHIVE_NAMES
    )
    dataset = reading.read_folders(NAME, folder, GRAMMAR, folders=FOLDERS)
    return reading.as_published(dataset, PUBLISHED, strict=strict)
