"""SYSU-MM01: 491 persons before four visible and two infrared cameras.

Wu et al., RGB-Infrared Cross-Modality Person Re-identification, ICCV 2017. Given out by its authors
on a signed agreement.

    cam1 ... cam6 / IDENTITY / IMAGE.jpg       cam3/0007/0012.jpg
    exp/train_id.txt, val_id.txt, test_id.txt  one line of identities: 1,2,5

    IDENTITY   four digits; not every identity is before every camera
    cam3, cam6 infrared; the others visible. Camera 3 and camera 2 look at the same room: scoring
               drops gallery images of camera 2 for queries of camera 3. Cameras count from 1 there
               and in every publication, `camid` from 0 as everywhere here

Training joins the identities of train and val, all cameras. Queries are all infrared images of the
test identities; the gallery is drawn from their visible images: cameras 1, 2, 4, 5 ("all"), or 1, 2
("indoor"), `shots` images of each identity and camera. Scores are means over ten draws, the trials.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from re import compile as pattern

import numpy as np

from reid.data.datasets.reading import (
    Grammar,
    check_counts,
    count,
    find_folder,
    make_split,
    read_list,
    require_identities,
    shown,
)
from reid.types import Dataset, Split

NAME = "sysu_mm01"
ARCHIVE_NAMES = ("SYSU-MM01",)
CAMERAS = range(1, 7)
INFRARED = (3, 6)
GALLERIES = {"all": (1, 2, 4, 5), "indoor": (1, 2)}
SHOTS = (1, 10)
TRIALS = range(10)
IDENTITIES = Grammar(
    pattern=pattern(r"\d+(\s*,\s*\d+)*,?"),
    form="identities divided by commas",
    example="1,2,5",
)
PUBLISHED = {
    "train identities": 395,
    "train visible images": 22258,
    "train infrared images": 11909,
    "query images": 3803,
    "query identities": 96,
    "gallery identities": 96,
}
PUBLISHED_GALLERY = {("all", 1): 301}
"""Images of a gallery, by mode and shots, where the authors state them."""

Images = dict[tuple[int, int], list[str]]
"""Names (relative to the data set's folder) by identity and camera, each list sorted."""


def _read_ids(file: Path) -> list[int]:
    lines = read_list(file, IDENTITIES)
    numbers = (number for line in lines for number in line.string.split(",") if number.strip())
    return sorted({int(number) for number in numbers})


def _list_images(folder: Path, ids: Sequence[int], *, source: Path) -> Images:
    """Return the images of some identities; ValueError for identities without any."""
    images: Images = {}
    for identity in ids:
        for camera in CAMERAS:
            place = f"cam{camera}/{identity:04d}"
            if not (folder / place).is_dir():
                continue
            names = sorted(name for name in os.listdir(folder / place) if name.endswith(".jpg"))
            if names:
                images[identity, camera] = [f"{place}/{name}" for name in names]
    if missing := [
        str(number) for number in ids if not any((number, c) in images for c in CAMERAS)
    ]:
        raise ValueError(
            f"{len(missing)} of the {len(ids)} identities that {source} lists have no folder such "
            f"as cam1/{ids[0]:04d} with .jpg files in {folder}: {shown(missing)}"
        )
    return images


def _make_split(images: Images, folder: Path) -> Split:
    names = [name for listed in images.values() for name in listed]
    lengths = np.array([len(listed) for listed in images.values()], dtype=np.int64)
    pid, camera = np.repeat(np.array(list(images)).reshape(-1, 2), lengths, axis=0).T
    split = make_split(names, folder, pid=pid, camid=camera - 1)
    return replace(split, modality=np.isin(split.camid + 1, INFRARED).astype(np.int64))


def _below(words: np.random.RandomState, limit: int) -> int:
    """Draw a number in 0..limit-1: the top bits of a word, words that are too large thrown away."""
    shift = 32 - limit.bit_length()
    while (number := int(words.randint(0, 2**32, dtype=np.uint32)) >> shift) >= limit:
        pass
    return number


def _draw(images: Images, cameras: Sequence[int], *, shots: int, trial: int) -> Images:
    """Draw `shots` images (or all, where there are fewer) of each identity and camera.

    Published code for one shot seeds Python's generator with the trial and makes one `choice` by
    identity, then camera: this draws the same images. For ten shots it shares no seed; here the
    same words choose ten without replacement.
    """
    words = np.random.RandomState([trial])  # the words of Python's own generator, seeded so
    drawn: Images = {}
    for (identity, camera), names in sorted(images.items()):
        if camera in cameras:
            left = list(names)
            num_drawn = min(shots, len(left))
            drawn[identity, camera] = [left.pop(_below(words, len(left))) for _ in range(num_drawn)]
    return drawn


def _require_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} is {value!r}; SYSU-MM01 has {listed}")


def load(
    root: str | os.PathLike[str],
    *,
    strict: bool = False,
    mode: str = "all",
    shots: int = 1,
    trial: int = 0,
) -> Dataset:
    """Read SYSU-MM01 with the gallery of one trial (0..9), a function of `trial` alone.

    `mode` is "all" or "indoor", `shots` 1 or 10. No image is opened. Raises ValueError for another
    mode, number of shots or trial, a missing camera folder or list, identities without images, and,
    if `strict`, for counts that are not as published (`CountWarning` otherwise).
    """
    _require_choice("mode", mode, list(GALLERIES))
    _require_choice("shots", shots, SHOTS)
    _require_choice("trial", trial, TRIALS)
    lists = "exp/train_id.txt"
    folder = find_folder(root, title="SYSU-MM01", inside=lists, archive_names=ARCHIVE_NAMES)
    for camera in CAMERAS:
        if not (folder / f"cam{camera}").is_dir():
            raise ValueError(f"the folder {folder}/cam{camera} is missing: expected cam1 ... cam6")
    test_images = _list_split(folder, "test")
    train = _make_split(_list_split(folder, "train") | _list_split(folder, "val"), folder)
    require_identities(train, where=folder / lists)
    infrared = {key: names for key, names in test_images.items() if key[1] in INFRARED}
    dataset = Dataset(
        name=NAME,
        root=str(folder),
        train=train,
        query=_make_split(infrared, folder),
        gallery=_make_split(_draw(test_images, GALLERIES[mode], shots=shots, trial=trial), folder),
    )
    _check_counts(dataset, mode=mode, shots=shots, strict=strict)
    return dataset


def _list_split(folder: Path, name: str) -> Images:
    """Return the images of the identities of one list."""
    file = folder / "exp" / f"{name}_id.txt"
    return _list_images(folder, _read_ids(file), source=file)


def _check_counts(dataset: Dataset, *, mode: str, shots: int, strict: bool) -> None:
    assert dataset.train.modality is not None
    num_infrared = int(dataset.train.modality.sum())
    found = count(dataset) | {
        "train visible images": len(dataset.train) - num_infrared,
        "train infrared images": num_infrared,
    }
    published = dict(PUBLISHED)
    if (mode, shots) in PUBLISHED_GALLERY:
        published["gallery images"] = PUBLISHED_GALLERY[mode, shots]
    check_counts(NAME, found, published, strict=strict)
