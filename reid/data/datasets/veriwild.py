"""VERI-Wild: 40 671 vehicles before 174 cameras, over a month.

Lou et al., VERI-Wild: A Large Dataset and a New Method for Vehicle Re-Identification in the Wild,
CVPR 2019. Three test sets, of 3 000, 5 000 and 10 000 vehicles: `veriwild_3000` and so on.

Folder: `images`, holding PID/NUMBER.jpg, and `train_test_split`, holding `train_list_start0.txt`,
`test_SIZE_id_query.txt` and `test_SIZE_id.txt` (the gallery), of lines

    PID/NUMBER        00001/000001        (".jpg" and further columns may follow and are not read)

and `vehicle_info.txt`, of lines (after a heading)

    PID/NUMBER;CAMERA;TIME;MODEL;TYPE;COLOR        00001/000001;88;2018-03-11 09:04:18;...

camid is the place of CAMERA among the cameras of `vehicle_info.txt`, from 0.

The paper's 416 314 images leave 277 797 to train on; 277 794 is seen in print as well.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from reid.data.datasets import reading
from reid.types import Dataset, Split

GALLERY_IMAGES = {3000: 38_816, 5000: 64_389, 10000: 128_517}
"""Of each test set, named by its number of vehicles."""
TEST_SIZES = tuple(GALLERY_IMAGES)
ARCHIVE_NAMES = ("VERI-Wild", "VeRI-Wild", "VeRi-Wild")
LISTS = "train_test_split"
LINE = reading.Grammar(
    pattern=re.compile(r"(?P<image>(?P<pid>\d+)/\w+)(?:\.jpg)?(?:\s.*)?"),
    form="PID/NUMBER",
    example="00001/000001",
)
INFO = reading.Grammar(
    pattern=re.compile(r"(?P<image>\d+/\w+);\s*(?P<cam>\d+)\s*(?:;.*)?|\D.*;.*"),
    form="PID/NUMBER;CAMERA;TIME;MODEL;TYPE;COLOR",
    example="00001/000001;88;2018-03-11 09:04:18;Ford;sedan;white",
)


def _read_cameras(file: Path) -> dict[str, int]:
    """Return the camid of every image."""
    lines = [match for match in reading.read_list(file, INFO) if match["cam"] is not None]
    _, camid = np.unique(reading.column(lines, "cam"), return_inverse=True)
    return dict(zip((line["image"] for line in lines), camid.tolist(), strict=True))


def _read_split(file: Path, images: Path, cameras: Mapping[str, int]) -> Split:
    matches = reading.read_list(file, LINE)
    unknown = [match["image"] for match in matches if match["image"] not in cameras]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of the {len(matches)} images that {file} lists have no line in "
            f"vehicle_info.txt, which gives their cameras; the first is {unknown[0]}"
        )
    names = [f"{match['image']}.jpg" for match in matches]
    reading.require_images(names, images, source=file)
    return reading.make_split(
        names,
        images,
        pid=reading.column(matches, "pid"),
        camid=np.array([cameras[match["image"]] for match in matches], dtype=np.int64),
    )


def load(root: str | os.PathLike[str], *, size: int, strict: bool = False) -> Dataset:
    """Read the table of VERI-Wild with the test set of `size` vehicles.

    Raises ValueError for another size, a missing folder, list, listed image or camera, a line that
    does not read as above, and fewer than two training identities; counts as `market1501.load`.
    """
    if size not in TEST_SIZES:
        raise ValueError(f"VERI-Wild has no test set of {size} vehicles; it has {TEST_SIZES}")
    folder = reading.find_folder(
        root, title="VERI-Wild", inside=f"{LISTS}/vehicle_info.txt", archive_names=ARCHIVE_NAMES
    )
    cameras = _read_cameras(folder / LISTS / "vehicle_info.txt")
    train, query, gallery = (
        _read_split(folder / LISTS / name, folder / "images", cameras)
        for name in ("train_list_start0.txt", f"test_{size}_id_query.txt", f"test_{size}_id.txt")
    )
    reading.require_identities(train, where=folder / LISTS / "train_list_start0.txt")
    dataset = Dataset(
        name=f"veriwild_{size}", root=str(folder), train=train, query=query, gallery=gallery
    )
    published = {
        "train images": 277_797,
        "train identities": 30_671,
        "query images": size,
        "query identities": size,
        "gallery images": GALLERY_IMAGES[size],
        "gallery identities": size,
    }
    return reading.as_published(dataset, published, strict=strict)
