"""Small drawn stand-ins for visible-infrared data sets and for users' own data.

Each writer draws people as the built-in worlds do, in the folders and file names of the data set it
is named after, so that its reader, and whatever follows, can be tried without the data set. An
infrared image shows the same person as the built-in worlds' infrared cameras do.

Everything is a function of the seed.
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reid.data.appearance import Domain, draw_camera, draw_moment, draw_person
from reid.data.datasets import folder as folder_reader
from reid.data.datasets import table
from reid.data.drawing import Stage, build_stage, draw_image
from reid.data.infrared import draw_infrared, infrared_camera

HEIGHT, WIDTH = 64, 32
DOMAIN: Domain = "a"
SYSU_TRAIN, SYSU_VAL, SYSU_TEST = (1, 2, 4, 5, 7, 9), (3, 11), (6, 10, 12, 13)
SYSU_INFRARED = (3, 6)
SYSU_IMAGES = 3
"""of each identity and camera"""
REGDB_IDENTITIES = 8
REGDB_IMAGES = 4
"""of each identity and modality"""
REGDB_TRIALS = range(1, 11)
OWN_TRAIN = ("anna", "ben", "carla", "dave", "eve", "Frank 2")
OWN_TEST = ("gina", "hugo", "iris")
OWN_CAMERAS = 3
OWN_IMAGES = 2
"""of each identity and camera"""


@dataclass(frozen=True, kw_only=True)
class _World:
    """What the images of one data set have in common; cameras and identities are numbers."""

    seed: int
    stages: dict[int, Stage]
    infrared: Sequence[int]

    def draw(self, *, identity: int, camera: int, number: int) -> Image.Image:
        """Draw the image `number` of an identity before a camera."""
        identity_rng = _rng(self.seed, 1, identity)
        person = draw_person(identity_rng, DOMAIN)
        if camera in self.infrared:
            person = draw_infrared(identity_rng, person)
        rng = _rng(self.seed, 2, identity, camera, number)
        moment = draw_moment(rng, DOMAIN)
        return Image.fromarray(draw_image(self.stages[camera], person, moment, noise=rng))


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *key))))


def _world(seed: int, *, cameras: Sequence[int], infrared: Sequence[int] = ()) -> _World:
    stages = {}
    for number in cameras:
        camera = draw_camera(_rng(seed, 0, number), DOMAIN)
        camera = infrared_camera(camera) if number in infrared else camera
        stages[number] = build_stage(camera, DOMAIN, height=HEIGHT, width=WIDTH)
    return _World(seed=seed, stages=stages, infrared=infrared)


def _save(image: Image.Image, file: Path) -> None:
    """Write an image, in the format its name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.save(buffer, Image.registered_extensions()[file.suffix])
    file.write_bytes(buffer.getvalue())


def write_sysu_mm01(root: str | os.PathLike[str], *, seed: int = 0) -> None:
    """Draw a miniature of SYSU-MM01 into the folder `root`: 12 identities before six cameras."""
    folder = Path(root)
    world = _world(seed, cameras=range(1, 7), infrared=SYSU_INFRARED)
    for name, ids in (("train", SYSU_TRAIN), ("val", SYSU_VAL), ("test", SYSU_TEST)):
        (folder / "exp").mkdir(parents=True, exist_ok=True)
        (folder / "exp" / f"{name}_id.txt").write_text(
            ",".join(map(str, ids)) + "\n", encoding="utf-8"
        )
        for identity in ids:
            for camera in range(1, 7):
                # As in the real one, not everybody passes every camera: here, camera 4 or 5.
                if camera == 4 + identity % 2:
                    continue
                for number in range(1, SYSU_IMAGES + 1):
                    image = world.draw(identity=identity, camera=camera, number=number)
                    _save(image, folder / f"cam{camera}" / f"{identity:04d}" / f"{number:04d}.jpg")


def write_regdb(root: str | os.PathLike[str], *, seed: int = 0) -> None:
    """Draw a miniature of RegDB into the folder `root`: 8 identities, the lists of ten trials."""
    folder = Path(root)
    world = _world(seed, cameras=(0, 1), infrared=(1,))
    names: dict[tuple[int, int], list[str]] = {}
    for identity in range(1, REGDB_IDENTITIES + 1):
        for camera, kind in enumerate(("Visible", "Thermal")):
            names[identity, camera] = [
                f"{kind}/{identity}/person_{kind[0].lower()}_{number:05d}_{identity}.bmp"
                for number in range(1, REGDB_IMAGES + 1)
            ]
            for number, name in enumerate(names[identity, camera]):
                image = world.draw(identity=identity, camera=camera, number=number)
                _save(image, folder / name)
    (folder / "idx").mkdir(parents=True, exist_ok=True)
    for trial in REGDB_TRIALS:
        order = 1 + _rng(seed, 3, trial).permutation(REGDB_IDENTITIES)
        for half, ids in zip(("train", "test"), np.split(order, 2), strict=True):
            for camera, kind in enumerate(("visible", "thermal")):
                lines = [
                    f"{name} {label}\n"
                    for label, identity in enumerate(sorted(ids.tolist()))
                    for name in names[identity, camera]
                ]
                list_file = folder / "idx" / f"{half}_{kind}_{trial}.txt"
                list_file.write_text("".join(lines), encoding="utf-8")


def write_folder(root: str | os.PathLike[str], *, seed: int = 0) -> None:
    """Draw own data into the folder `root`: 9 named identities before three cameras."""
    folder = Path(root)
    world = _world(seed, cameras=range(1, OWN_CAMERAS + 1))
    for identity, name in enumerate((*OWN_TRAIN, *OWN_TEST)):
        for camera in range(1, OWN_CAMERAS + 1):
            for number in range(OWN_IMAGES):
                test = "gallery" if number else "query"
                split = "train" if name in OWN_TRAIN else test
                image = world.draw(identity=identity, camera=camera, number=number)
                _save(image, folder / split / name / f"{number:04d}_c{camera}.png")


def write_table(root: str | os.PathLike[str], *, seed: int = 0) -> None:
    """Draw own data into the folder `root` with the table index.csv of its images."""
    write_folder(root, seed=seed)
    table.write_table(folder_reader.load(root), Path(root) / "index.csv")
