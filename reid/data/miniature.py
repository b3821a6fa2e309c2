"""Miniatures: small correct copies of the layouts that `reid.data.datasets` reads, for tests.

Each holds a few identities before a few cameras, with everything the layout has besides: lists,
junk, distractors. The images are drawn, persons or (square) vehicles, and real files of their type.
"""

import os
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from reid.data import miniature_modality
from reid.data.appearance import draw_camera, draw_moment, draw_person
from reid.data.drawing import Stage, build_stage, draw_image, encode_jpeg
from reid.data.miniature_layouts import LAYOUTS, VEHICLES, Layout, Subject
from reid.data.vehicle import draw_vehicle, draw_vehicle_moment

HEIGHT, WIDTH = 64, 32
"""A vehicle's image is as wide as it is high."""
_CAMERA, _SUBJECT, _MOMENT = range(3)


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@lru_cache(maxsize=8)
def _stage(camid: int, seed: int, width: int) -> Stage:
    camera = draw_camera(_rng(seed, _CAMERA, camid), "a")
    return build_stage(camera, "a", height=HEIGHT, width=width)


def _image(shown: Subject, seed: int, *, number: int, vehicle: bool) -> UInt8[np.ndarray, "H W 3"]:
    """Draw image `number` of a miniature: a pure function of its arguments."""
    identity, rng = _rng(seed, _SUBJECT, shown.pid), _rng(seed, _MOMENT, number)
    subject = draw_vehicle(identity, "a") if vehicle else draw_person(identity, "a")
    draw = draw_vehicle_moment if vehicle else draw_moment
    moment = draw(rng, "a", crop_error=shown.crop_error)
    stage = _stage(shown.camid, seed, HEIGHT if vehicle else WIDTH)
    return draw_image(stage, subject, moment, noise=rng)


def _write_layout(
    make: Callable[[], Layout], root: Path, *, seed: int, vehicle: bool = False
) -> None:
    layout = make()
    for number, (path, shown) in enumerate(sorted(layout.images.items())):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = _image(shown, seed, number=number, vehicle=vehicle)
        if file.suffix == ".png":
            Image.fromarray(pixels).save(file)
        else:
            file.write_bytes(encode_jpeg(pixels))
    for path, lines in layout.lists.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


MINIATURES: dict[str, Callable[..., None]] = {
    **{
        name: partial(_write_layout, make, vehicle=name.startswith(VEHICLES))
        for name, make in LAYOUTS.items()
    },
    "sysu_mm01": miniature_modality.write_sysu_mm01,
    "sysu_mm01_indoor": miniature_modality.write_sysu_mm01,
    "regdb": miniature_modality.write_regdb,
    **{
        f"regdb_{trial}{end}": miniature_modality.write_regdb
        for trial in miniature_modality.REGDB_TRIALS
        for end in ("", "_thermal")
    },
    "folder": miniature_modality.write_folder,
    "table": miniature_modality.write_table,
}
"""The names that have a miniature; those of one layout share it."""


def write_miniature(name: str, root: str | os.PathLike[str], *, seed: int = 0) -> None:
    """Write the miniature of the data set called `name` into the folder `root`.

    `reid.data.datasets.load(name, root)` reads it. The bytes depend on `name` and `seed` alone.
    Raises ValueError for a name without a miniature and for a folder that holds anything.
    """
    if name not in MINIATURES:
        raise ValueError(f"there is no miniature of {name!r}; there are {', '.join(MINIATURES)}")
    root = Path(os.path.abspath(root))
    if root.exists() and any(root.iterdir()):
        raise ValueError(f"{root} is not empty: a miniature needs a folder of its own")
    MINIATURES[name](root, seed=seed)
