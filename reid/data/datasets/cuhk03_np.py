"""CUHK03-NP: CUHK03's 1 467 persons before two cameras, in the split of Zhong et al.

Li et al., DeepReID, CVPR 2014; split: Zhong et al., Re-ranking Person Re-identification with
k-reciprocal Encoding, CVPR 2017. Two versions: boxes of a detector (`cuhk03_np`), which the papers
on domain adaptation use, and boxes drawn by hand (`cuhk03_np_labeled`).

Folder: `detected` and `labeled`, in each `bounding_box_train`, `query` and `bounding_box_test`,
holding .png (or .jpg) files named

    PID_cCAMERA_NUMBER.png        0001_c1_1.png

    PID        digits
    CAMERA     1 or 2, here from 0; an `s` and a sequence may follow, as in Market-1501
    NUMBER     of the image, in one or more parts
"""

import os
import re
from typing import Literal

from reid.data.datasets import reading
from reid.types import Dataset

Boxes = Literal["detected", "labeled"]

NAMES: dict[Boxes, str] = {"detected": "cuhk03_np", "labeled": "cuhk03_np_labeled"}
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
ARCHIVE_NAMES: dict[Boxes, tuple[str, ...]] = {
    "detected": ("detected", "cuhk03-np/detected", "CUHK03-NP/detected", "cuhk03np"),
    "labeled": ("labeled", "cuhk03-np/labeled", "CUHK03-NP/labeled"),
}
SUFFIXES = (".png", ".jpg")
GRAMMAR = reading.Grammar(
    pattern=re.compile(r"(?P<pid>\d+)_c(?P<cam>[12])(?:s\d+)?(?:_\d+)+\.(?:png|jpg)"),
    form="PID_cCAMERA_NUMBER.png",
    example="0001_c1_1.png",
)
IDENTITIES = {"train identities": 767, "query identities": 700, "gallery identities": 700}
PUBLISHED: dict[Boxes, dict[str, int]] = {
    "detected": {
        "train images": 7_365,
        "query images": 1_400,
        "gallery images": 5_332,
        **IDENTITIES,
    },
    "labeled": {
        "train images": 7_368,
        "query images": 1_400,
        "gallery images": 5_328,
        **IDENTITIES,
    },
}


def load(
    root: str | os.PathLike[str], *, boxes: Boxes = "detected", strict: bool = False
) -> Dataset:
    """Read the table of CUHK03-NP with the given boxes, from their folder or one that holds it.

    Raises ValueError as `market1501.load` does.
    """
    folder = reading.find_folder(
        root,
        title=f"CUHK03-NP ({boxes})",
        inside=FOLDERS["train"],
        archive_names=ARCHIVE_NAMES[boxes],
    )
    dataset = reading.read_folders(
        NAMES[boxes], folder, GRAMMAR, folders=FOLDERS, suffixes=SUFFIXES
    )
    return reading.as_published(dataset, PUBLISHED[boxes], strict=strict)
