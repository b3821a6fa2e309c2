"""VRIC: 5 622 vehicles before sixty cameras, cut from the videos of UA-DETRAC in many sizes.

Kanaci et al., Vehicle Re-Identification in Context, GCPR 2018.

Folder: `train_images`, `probe_images` (the queries) and `gallery_images`, holding .jpg files, and
`vric_train.txt`, `vric_probe.txt` and `vric_gallery.txt`, of lines

    NAME PID CAMERA        0000001.jpg 12 3

camid is the place of CAMERA among the cameras of the three lists, from 0.
"""

import os
import re

import numpy as np

from reid.data.datasets import reading
from reid.types import Dataset

NAME = "vric"
PARTS = {"train": "train", "query": "probe", "gallery": "gallery"}
ARCHIVE_NAMES = ("VRIC",)
LINE = reading.Grammar(
    pattern=re.compile(r"(?P<image>\S+\.jpg)\s+(?P<pid>\d+)\s+(?P<cam>\d+)"),
    form="NAME PID CAMERA",
    example="0000001.jpg 12 3",
)
PUBLISHED = {
    "train images": 54_808,
    "train identities": 2_811,
    "query images": 2_811,
    "query identities": 2_811,
    "gallery images": 2_811,
    "gallery identities": 2_811,
}


def load(root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
    """Read the table of VRIC from its folder, or the folder that holds it.

    Raises ValueError for a missing folder, list or listed image, a line that does not read as
    above, and fewer than two training identities; counts as `market1501.load` does.
    """
    folder = reading.find_folder(
        root, title="VRIC", inside="vric_train.txt", archive_names=ARCHIVE_NAMES
    )
    lists = {
        split: reading.read_list(folder / f"vric_{part}.txt", LINE) for split, part in PARTS.items()
    }
    cameras = np.unique(np.concatenate([reading.column(lines, "cam") for lines in lists.values()]))
    splits = {}
    for split, lines in lists.items():
        images = folder / f"{PARTS[split]}_images"
        names = [line["image"] for line in lines]
        reading.require_images(names, images, source=folder / f"vric_{PARTS[split]}.txt")
        camid = np.searchsorted(cameras, reading.column(lines, "cam"))
        splits[split] = reading.make_split(
            names, images, pid=reading.column(lines, "pid"), camid=camid
        )
    reading.require_identities(splits["train"], where=folder / "vric_train.txt")
    dataset = Dataset(name=NAME, root=str(folder), **splits)
    return reading.as_published(dataset, PUBLISHED, strict=strict)
