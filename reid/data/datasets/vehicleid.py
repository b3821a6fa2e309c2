"""PKU VehicleID: 26 267 vehicles seen from the front or from behind; cameras are not told.

Liu et al., Deep Relative Distance Learning: Tell the Difference Between Similar Vehicles, CVPR
2016. Three test sets, of 800, 1 600 and 2 400 vehicles: `vehicleid_800` and so on.

Folder: `image`, holding NUMBER.jpg, and `train_test_split`, holding `train_list.txt` and
`test_list_SIZE.txt`, of lines

    NUMBER PID        0348213 7

The test protocol draws one image of each vehicle as the gallery; all its other images are queries.
Here that is one draw by a fixed seed; `gallery_rows` makes others, for means over several.

Without cameras camid is 0 everywhere: a scorer must be told that no match is junk (for instance by
query cameras of -1), or it drops them all.

The paper's numbers of training images and of queries differ from those of the lists given out, so
that neither is compared.
"""

import os
import re
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from reid.data.datasets import reading
from reid.types import Dataset, Split

TEST_SIZES = (800, 1600, 2400)
ARCHIVE_NAMES = ("VehicleID_V1.0", "VehicleID")
LISTS = "train_test_split"
DRAW_SEED = 0
LINE = reading.Grammar(
    pattern=re.compile(r"(?P<image>\d+)\s+(?P<pid>\d+)"),
    form="NUMBER PID",
    example="0348213 7",
)


def gallery_rows(pid: Int64[np.ndarray, "N"], *, seed: int) -> Bool[np.ndarray, "N"]:
    """Mark one row of each identity, drawn by `seed`: the gallery; the others are the queries.

    The draw depends on the order of the rows: give them sorted by path.
    """
    keys = np.random.default_rng(seed).random(len(pid))
    order = np.lexsort((keys, pid))
    _, first = np.unique(pid[order], return_index=True)
    drawn = np.zeros(len(pid), dtype=np.bool_)
    drawn[order[first]] = True
    return drawn


def _read_split(file: Path, images: Path) -> Split:
    matches = reading.read_list(file, LINE)
    names = [f"{match['image']}.jpg" for match in matches]
    reading.require_images(names, images, source=file)
    return reading.make_split(
        names,
        images,
        pid=reading.column(matches, "pid"),
        camid=np.zeros(len(matches), dtype=np.int64),
    )


def load(root: str | os.PathLike[str], *, size: int, strict: bool = False) -> Dataset:
    """Read the table of VehicleID with the test set of `size` vehicles.

    Raises ValueError for another size, a missing folder, list or listed image, a line that does not
    read as above, and fewer than two training identities; counts as `market1501.load` does.
    """
    if size not in TEST_SIZES:
        raise ValueError(f"VehicleID has no test set of {size} vehicles; it has {TEST_SIZES}")
    folder = reading.find_folder(
        root, title="VehicleID", inside=f"{LISTS}/train_list.txt", archive_names=ARCHIVE_NAMES
    )
    train = _read_split(folder / LISTS / "train_list.txt", folder / "image")
    reading.require_identities(train, where=folder / LISTS / "train_list.txt")
    test = _read_split(folder / LISTS / f"test_list_{size}.txt", folder / "image")
    drawn = gallery_rows(test.pid, seed=DRAW_SEED)
    dataset = Dataset(
        name=f"vehicleid_{size}",
        root=str(folder),
        train=train,
        query=test.take(~drawn),
        gallery=test.take(drawn),
    )
    published = {
        "train identities": 13_164,
        "query identities": size,
        "gallery images": size,
        "gallery identities": size,
    }
    return reading.as_published(dataset, published, strict=strict)
