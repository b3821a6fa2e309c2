"""RegDB: 412 persons, ten visible and ten thermal images of each, ten divisions into two halves.

Nguyen et al., Person Recognition System Based on a Combination of Body Images from Visible Light
and Thermal Cameras, Sensors 2017; the divisions are those of Ye et al., AAAI 2018. Given out by its
authors on request.

    idx/train_visible_TRIAL.txt, train_thermal_, test_visible_, test_thermal_    TRIAL 1 ... 10
        Visible/33/male_front_v_04667_33.bmp 0        IMAGE LABEL on each line
    the images, wherever these lists say

LABEL numbers the 206 identities of its half from 0, in the same way for both modalities: a pid of
training and the same pid of the test half are different persons. `camid` is 0 for the visible and 1
for the thermal camera, as `modality` is. A trial is a training of its own; scores are means over
ten, once with visible and once with thermal images as queries.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from re import compile as pattern

import numpy as np

from reid.data.datasets.reading import (
    Grammar,
    as_published,
    column,
    find_folder,
    make_split,
    read_list,
    require_identities,
    require_images,
)
from reid.types import Dataset, Split

NAME = "regdb"
ARCHIVE_NAMES = ("RegDB",)
TRIALS = range(1, 11)
MODALITIES = ("visible", "thermal")
"""By camid and modality."""
LINE = Grammar(
    pattern=pattern(r"(?P<name>\S.*?)\s+(?P<pid>\d+)"),
    form="IMAGE LABEL",
    example="Visible/33/male_front_v_04667_33.bmp 0",
)
PUBLISHED = {
    "train images": 4120,
    "train identities": 206,
    "query images": 2060,
    "query identities": 206,
    "gallery images": 2060,
    "gallery identities": 206,
}


def _read(folder: Path, half: str, kinds: Sequence[str], *, trial: int) -> Split:
    """Read the lists of one half and some modalities as one split."""
    names: list[str] = []
    pid, camid = [], []
    for kind in kinds:
        file = folder / "idx" / f"{half}_{kind}_{trial}.txt"
        lines = read_list(file, LINE)
        require_images([line["name"] for line in lines], folder, source=file)
        names += [line["name"] for line in lines]
        pid.append(column(lines, "pid"))
        camid.append(np.full(len(lines), MODALITIES.index(kind), dtype=np.int64))
    split = make_split(names, folder, pid=np.concatenate(pid), camid=np.concatenate(camid))
    return replace(split, modality=split.camid.copy())


def load(
    root: str | os.PathLike[str],
    *,
    strict: bool = False,
    trial: int = 1,
    query: str = "visible",
) -> Dataset:
    """Read one trial (1..10) of RegDB; `query` is "visible" or "thermal", the other the gallery.

    No image is opened. Raises ValueError for another trial or query, a missing list, a line outside
    its grammar, images that are not there, and, if `strict`, for counts that are not as published
    (`CountWarning` otherwise).
    """
    if trial not in TRIALS:
        raise ValueError(f"trial is {trial!r}; RegDB has {TRIALS[0]} to {TRIALS[-1]}")
    if query not in MODALITIES:
        raise ValueError(f"query is {query!r}; RegDB has {' and '.join(MODALITIES)} images")
    first = f"idx/train_visible_{trial}.txt"
    folder = find_folder(root, title="RegDB", inside=first, archive_names=ARCHIVE_NAMES)
    train = _read(folder, "train", MODALITIES, trial=trial)
    require_identities(train, where=folder / first)
    gallery = [kind for kind in MODALITIES if kind != query]
    dataset = Dataset(
        name=NAME,
        root=str(folder),
        train=train,
        query=_read(folder, "test", [query], trial=trial),
        gallery=_read(folder, "test", gallery, trial=trial),
    )
    return as_published(dataset, PUBLISHED, strict=strict)
