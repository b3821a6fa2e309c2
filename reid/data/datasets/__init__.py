"""Data sets by name: each is a function from a folder to a `Dataset`."""

import difflib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from reid.data.datasets import (
    cuhk03_np,
    dukemtmc,
    folder,
    market1501,
    msmt17,
    personx,
    regdb,
    sysu_mm01,
    table,
    vehicleid,
    vehiclex,
    veri776,
    veriwild,
    vric,
)
from reid.data.files import is_remote
from reid.data.world import WORLD_FILE, read_description
from reid.types import Dataset, Split

__all__ = ["DATASETS", "load"]


class Reader(Protocol):
    """Reads a data set's folder; `strict` refuses counts other than the published ones."""

    def __call__(self, root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
        """Return the data set in the folder `root`."""
        ...


def _synthetic(root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
    """Read a world that `reid.data.synthetic.write_world` drew, in Market-1501's layout."""
    return market1501.read(root)


def _synthetic_infrared(root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
    """Read a world, some of whose cameras are infrared as its `WORLD_FILE` says."""
    dataset = market1501.read(root)
    folder = Path(dataset.root)
    described = read_description(folder) if (folder / WORLD_FILE).is_file() else {}
    if not (num_infrared := described.get("infrared_cameras", 0)):
        raise ValueError(
            f"{folder} is no built-in world with infrared cameras: expected a {WORLD_FILE} in it "
            "whose infrared_cameras is 1 or more"
        )
    first = described["num_cameras"] - num_infrared

    def marked(split: Split) -> Split:
        return replace(split, modality=(split.camid >= first).astype(np.int64))

    return replace(
        dataset,
        train=marked(dataset.train),
        query=marked(dataset.query),
        gallery=marked(dataset.gallery),
    )


DATASETS: dict[str, Reader] = {
    # persons
    "market1501": market1501.load,
    "dukemtmc": dukemtmc.load,
    "cuhk03_np": cuhk03_np.load,
    "cuhk03_np_labeled": partial(cuhk03_np.load, boxes="labeled"),
    "msmt17": msmt17.load,
    "personx": personx.load,
    # vehicles
    "veri776": veri776.load,
    **{f"vehicleid_{size}": partial(vehicleid.load, size=size) for size in vehicleid.TEST_SIZES},
    **{f"veriwild_{size}": partial(veriwild.load, size=size) for size in veriwild.TEST_SIZES},
    "vehiclex": vehiclex.load,
    "vric": vric.load,
    # persons in visible and infrared light
    "sysu_mm01": sysu_mm01.load,
    "sysu_mm01_indoor": partial(sysu_mm01.load, mode="indoor"),
    "regdb": regdb.load,
    **{
        f"regdb_{trial}{end}": partial(regdb.load, trial=trial, query=query)
        for trial in regdb.TRIALS
        for query, end in (("visible", ""), ("thermal", "_thermal"))
    },
    # built-in worlds, and anybody's own images
    "synthetic_a": _synthetic,
    "synthetic_b": _synthetic,
    "synthetic_vehicle_a": _synthetic,
    "synthetic_vehicle_b": _synthetic,
    "synthetic_infrared_a": _synthetic_infrared,
    "synthetic_infrared_b": _synthetic_infrared,
    "folder": folder.load,
    "table": table.load,
}
"""The names the command line takes; `regdb` and `sysu_mm01` alone are the first trial."""


def load(name: str, root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
    """Read the data set called `name` from `root`: its folder, or s3:// where it is a packed table.

    Raises ValueError for an unknown name (with the nearest known ones), for a folder that is not as
    that data set's reader expects, and, if `strict`, for counts other than the published ones;
    otherwise these give a `reading.CountWarning`.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(DATASETS)}"
        raise ValueError(f"there is no data set {name!r}; {hint}")
    read = table.load if is_remote(os.fspath(root)) else DATASETS[name]
    return replace(read(root, strict=strict), name=name)
