"""Users' own images, sorted into folders by split and identity.

    ROOT/train/IDENTITY/IMAGE       shop/train/anna/0001_c3_17.jpg
    ROOT/query/IDENTITY/IMAGE
    ROOT/gallery/IDENTITY/IMAGE

    IDENTITY   any name; the same name is the same identity in every split
    IMAGE      a .jpg, .jpeg, .png, .bmp or .webp file; `cDIGITS` between characters that are
               neither letters nor digits is its camera: in all files, or in none

Where ROOT has neither query nor gallery but `test/IDENTITY/IMAGE`, the first image of each identity
and camera, in name order, is a query and all others are the gallery.

An identity's pid is the rank of its name among the sorted names of all splits, and a camera's camid
the rank of its number; without cameras camid is 0 throughout. Hidden files, and files of other
types, are no part of the data set.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from reid.data.datasets.reading import find_folder, make_split, require_identities, shown
from reid.types import Dataset

NAME = "folder"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
CAMERA = re.compile(r"(?<![^\W_])c(\d+)(?![^\W_])")


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _list_images(root: Path, split: str) -> list[str]:
    """Return SPLIT/IDENTITY/IMAGE of every image of a split, by identity and name."""
    with os.scandir(root / split) as entries:
        inside = sorted((entry.name, entry.is_dir()) for entry in entries)
    if loose := [name for name, is_folder in inside if not is_folder and _is_image(name)]:
        raise ValueError(
            f"{root / split} holds {len(loose)} images outside identity folders: {shown(loose)}; "
            f"move each to {split}/IDENTITY/"
        )
    names = [
        f"{split}/{identity}/{name}"
        for identity, is_folder in inside
        if is_folder and not identity.startswith(".")
        for name in sorted(os.listdir(root / split / identity))
        if _is_image(name)
    ]
    if not names:
        raise ValueError(
            f"{root / split} has no images: expected {split}/IDENTITY/IMAGE with one of "
            f"{', '.join(SUFFIXES)}"
        )
    return names


def _splits(root: Path) -> tuple[str, ...]:
    """Return the folders to read beside `train`."""
    query, gallery, test = ((root / name).is_dir() for name in ("query", "gallery", "test"))
    if query and gallery:
        return "query", "gallery"
    if query or gallery:
        have, missing = ("query", "gallery") if query else ("gallery", "query")
        raise ValueError(f"{root} has {have} but no {missing}: add {missing}/IDENTITY/ with images")
    if test:
        return ("test",)
    raise ValueError(
        f"{root} has images to train on but none to score: add query/IDENTITY/ and "
        "gallery/IDENTITY/, or test/IDENTITY/ to have it divided into the two"
    )


def _cameras(names: Sequence[str], root: Path) -> Int64[np.ndarray, "N"]:
    """Return the camera of every image, 0 throughout where no name has one."""
    found = [CAMERA.findall(Path(name).stem) for name in names]
    if not any(found):
        return np.zeros(len(names), dtype=np.int64)
    strange = [name for name, numbers in zip(names, found, strict=True) if len(numbers) != 1]
    if strange:
        raise ValueError(
            f"{len(strange)} of the {len(names)} names in {root} do not hold one camera such as c3 "
            f"in 0001_c3_17.jpg, as the others do: {shown(strange)}"
        )
    numbers = np.array([int(number) for (number,) in found])
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def _divide(
    rows: Int64[np.ndarray, "n"],
    pid: Int64[np.ndarray, "N"],
    camid: Int64[np.ndarray, "N"],
    folder: Path,
) -> dict[str, Int64[np.ndarray, "..."]]:
    """Divide the rows of `test`: the first of each identity and camera is a query."""
    pairs = np.stack([pid[rows], camid[rows]], axis=1)
    first = np.unique(pairs, axis=0, return_index=True)[1]
    is_query = np.isin(np.arange(len(rows)), first)
    if is_query.all():
        raise ValueError(
            f"{folder} leaves no gallery: it has one image of each identity and camera, which is a "
            "query; add images, or divide them into query/ and gallery/ yourself"
        )
    return {"query": rows[is_query], "gallery": rows[~is_query]}


def load(root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
    """Read the table of a folder of own images, by the rules of this module.

    No image is opened. `strict` has no effect: own data has no published counts to differ from.
    Raises ValueError for a missing or empty split, images outside identity folders, a camera in
    some names only, and fewer than two training identities.
    """
    folder = find_folder(root, title="folder of images by split and identity", inside="train")
    listed = {split: _list_images(folder, split) for split in ("train", *_splits(folder))}
    names = [name for images in listed.values() for name in images]
    identities = np.array([name.split("/")[1] for name in names])
    pid = np.unique(identities, return_inverse=True)[1].astype(np.int64)
    camid = _cameras(names, folder)
    split_of = np.array([name.split("/")[0] for name in names])
    rows = {split: np.flatnonzero(split_of == split) for split in listed}
    if "test" in rows:
        rows |= _divide(rows.pop("test"), pid, camid, folder / "test")
    splits = {
        split: make_split(
            [names[row] for row in chosen], folder, pid=pid[chosen], camid=camid[chosen]
        )
        for split, chosen in rows.items()
    }
    require_identities(splits["train"], where=folder / "train")
    return Dataset(name=NAME, root=str(folder), **splits)
