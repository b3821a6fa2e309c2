"""Miniatures: small correct copies of the layouts that `reid.data.datasets` reads, for tests.

Each holds a few identities before a few cameras, with everything the layout has besides: lists,
junk, distractors. The images are drawn, and real files of their type.
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
from reid.data.miniature_layouts import LAYOUTS, Layout

HEIGHT, WIDTH = 64, 32
_CAMERA, _PERSON, _MOMENT = range(3)


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@lru_cache(maxsize=8)
def _stage(camid: int, seed: int) -> Stage:
    camera = draw_camera(_rng(seed, _CAMERA, camid), "a")
    return build_stage(camera, "a", height=HEIGHT, width=WIDTH)


def _image(
    pid: int, camid: int, seed: int, *, number: int, crop_error: float = 1.0
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw image `number` of a miniature: a pure function of its arguments."""
    person, rng = draw_person(_rng(seed, _PERSON, pid), "a"), _rng(seed, _MOMENT, number)
    moment = draw_moment(rng, "a", crop_error=crop_error)
    return draw_image(_stage(camid, seed), person, moment, noise=rng)


def _write_layout(make: Callable[[], Layout], root: Path, *, seed: int) -> None:
    layout = make()
    for number, (path, subject) in enumerate(sorted(layout.images.items())):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = _image(
            subject.pid, subject.camid, seed, number=number, crop_error=subject.crop_error
        )
        if file.suffix == ".png":
            Image.fromarray(pixels).save(file)
        else:
            file.write_bytes(encode_jpeg(pixels))
    for path, lines in layout.lists.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


MINIATURES: dict[str, Callable[..., None]] = {
    **{name: partial(_write_layout, make) for name, make in LAYOUTS.items()},
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
