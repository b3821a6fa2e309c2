"""The built-in worlds: drawn people or vehicles, written as folders in Market-1501's layout.

They stand in for a source and a target data set wherever none may be had: the demo, the tests, a
machine without a network. Identities of the two domains never meet: their appearances come from
separate random streams, and their numbers are disjoint (`PID_BASE`).

Every image is a function of the configuration and its own number alone, so that any number of
workers writes the same bytes.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import count, cycle, islice, zip_longest
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from reid.data.appearance import draw_camera, draw_moment, draw_person
from reid.data.drawing import Subject, build_stage, draw_image, encode_jpeg
from reid.data.infrared import draw_infrared, infrared_camera
from reid.data.vehicle import draw_vehicle, draw_vehicle_moment
from reid.data.world import (
    MIN_CAMERAS_SEEN,
    PID_BASE,
    WORLD_FILE,
    WorldConfig,
    describe,
    read_description,
    write_description,
)

__all__ = ["WorldConfig", "write_world"]

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
JUNK_CROP_ERROR = 4.0
TASK_SIZE = 256


class _Stream(IntEnum):
    """Separates the uses of one seed."""

    CAMERA = 0
    IDENTITY = 1
    STRANGER = 2
    PLAN = 3
    IMAGE = 4


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """One image to draw: `number` is unique in the world, `pid` is what the file name says."""

    folder: str
    pid: int
    camid: int
    number: int
    subject: Subject
    crop_error: float = 1.0

    @property
    def path(self) -> str:
        """Return folder/pid_cCAMsSEQUENCE_FRAME_BOX.jpg (`market1501` reads it back)."""
        pid = "-1" if self.pid == -1 else f"{self.pid:04d}"
        return f"{self.folder}/{pid}_c{self.camid + 1}s1_{self.number:06d}_01.jpg"


def _rng(config: WorldConfig, stream: _Stream, *key: int) -> np.random.Generator:
    entropy = (config.seed, PID_BASE[config.domain], stream, *key)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def _looks(config: WorldConfig, stream: _Stream, key: int) -> tuple[Subject, Subject]:
    """Return how an identity looks to cameras that are visible, and to infrared ones."""
    rng = _rng(config, stream, key)
    if config.subject == "vehicle":
        vehicle = draw_vehicle(rng, config.domain)
        return vehicle, draw_infrared(rng, vehicle)
    person = draw_person(rng, config.domain)
    return person, draw_infrared(rng, person)


def _cameras(config: WorldConfig, pid: int) -> list[int]:
    """Return the cameras that see an identity, in the order they do."""
    rng = _rng(config, _Stream.PLAN, pid)
    if config.infrared_cameras:
        order = rng.permutation(config.num_cameras).tolist()
        kinds = [[camid for camid in order if config.is_infrared(camid) == kind] for kind in (0, 1)]
        # In turns, so that two images of an identity show it both ways.
        return [camid for pair in zip_longest(*kinds) for camid in pair if camid is not None]
    least = min(MIN_CAMERAS_SEEN, config.num_cameras)
    seen = int(rng.integers(least, config.num_cameras + 1))
    return [int(camera) for camera in rng.permutation(config.num_cameras)[:seen]]


def _test_cameras(config: WorldConfig, pid: int) -> list[int]:
    """Return the camera of each test image of an identity, queries first."""
    cameras, num_images = _cameras(config, pid), config.num_test_images_per_identity
    if not config.infrared_cameras:
        return list(islice(cycle(cameras), num_images))
    num_queries = config.num_queries_per_identity
    infrared = [camid for camid in cameras if config.is_infrared(camid)]
    visible = [camid for camid in cameras if not config.is_infrared(camid)]
    return infrared[:num_queries] + list(islice(cycle(visible), num_images - num_queries))


def _plan(config: WorldConfig) -> Iterator[_Picture]:
    """List every image of a world, in a fixed order."""
    number, first = count(1), PID_BASE[config.domain] + 1
    each, extra = divmod(config.num_train_images, config.num_train_identities)

    def picture(folder: str, pid: int, camid: int, looks: tuple[Subject, Subject]) -> _Picture:
        subject = looks[config.is_infrared(camid)]
        return _Picture(folder=folder, pid=pid, camid=camid, number=next(number), subject=subject)

    for row in range(config.num_train_identities):
        pid = first + row
        looks, cameras = _looks(config, _Stream.IDENTITY, pid), cycle(_cameras(config, pid))
        for camid in islice(cameras, each + (row < extra)):
            yield picture(TRAIN, pid, camid, looks)
    first_test = first + config.num_train_identities
    for pid in range(first_test, first_test + config.num_test_identities):
        looks = _looks(config, _Stream.IDENTITY, pid)
        for row, camid in enumerate(_test_cameras(config, pid)):
            folder = QUERY if row < config.num_queries_per_identity else GALLERY
            yield picture(folder, pid, camid, looks)
    rng, num_visible = _rng(config, _Stream.PLAN), config.num_cameras - config.infrared_cameras
    for key in range(config.num_distractors):
        camid = int(rng.integers(num_visible))
        yield picture(GALLERY, 0, camid, _looks(config, _Stream.STRANGER, key))
    for _ in range(config.num_junk):
        pid = first_test + int(rng.integers(config.num_test_identities))
        camid = int(rng.integers(num_visible))
        junk = picture(GALLERY, -1, camid, _looks(config, _Stream.IDENTITY, pid))
        yield replace(junk, crop_error=JUNK_CROP_ERROR)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """Some images of one camera: what a worker draws at a time."""

    config: WorldConfig
    folder: Path
    camid: int
    pictures: list[_Picture]


def _tasks(config: WorldConfig, folder: Path) -> list[_Task]:
    pictures = list(_plan(config))
    return [
        _Task(config=config, folder=folder, camid=camid, pictures=seen[start : start + TASK_SIZE])
        for camid in range(config.num_cameras)
        for seen in [[picture for picture in pictures if picture.camid == camid]]
        for start in range(0, len(seen), TASK_SIZE)
    ]


def _write(task: _Task) -> int:
    """Draw and write the images of a task; return how many."""
    config = task.config
    camera = draw_camera(_rng(config, _Stream.CAMERA, task.camid), config.domain)
    if config.is_infrared(task.camid):
        camera = infrared_camera(camera)
    stage = build_stage(camera, config.domain, height=config.height, width=config.width)
    draw = draw_vehicle_moment if config.subject == "vehicle" else draw_moment
    for picture in task.pictures:
        rng = _rng(config, _Stream.IMAGE, picture.number)
        moment = draw(rng, config.domain, crop_error=picture.crop_error)
        image = draw_image(stage, picture.subject, moment, noise=rng)
        (task.folder / picture.path).write_bytes(encode_jpeg(image))
    return len(task.pictures)


def _is_written(root: Path, config: WorldConfig) -> bool:
    """Tell whether `root` holds this world; ValueError where it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / WORLD_FILE).is_file():
        raise ValueError(
            f"{root} exists and is no built-in world (it has no {WORLD_FILE}); name another folder"
        )
    found, wanted = read_description(root), describe(config)
    differences = [
        f"{key} is {found.get(key)!r} there and {wanted.get(key)!r} here"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]
    if differences:
        raise ValueError(
            f"{root} holds another world: {'; '.join(differences)}; delete it or name another"
        )
    return True


def _map(tasks: list[_Task], *, num_workers: int) -> Iterator[int]:
    if num_workers == 1:
        yield from map(_write, tasks)
        return
    # A forked child of a process with threads (torch, Ray) may hang; threads gain nothing, as most
    # of the drawing holds the interpreter's lock.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_write, tasks)


def write_world(
    root: str | os.PathLike[str],
    config: WorldConfig,
    *,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw a world into the folder `root`, which `reid.data.datasets.market1501.read` reads.

    The folder appears only when complete. Where it already holds the same world nothing is done.
    `num_workers` processes draw: more than one pays from some ten thousand images on, and needs a
    main module that can be imported. `progress` is called with (images done, images in all).
    Raises ValueError where `root` holds something else, naming what differs.
    """
    root = Path(os.path.abspath(root))
    if _is_written(root, config):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as scratch:
        partial = Path(scratch) / root.name
        for folder in (TRAIN, QUERY, GALLERY):
            (partial / folder).mkdir(parents=True)
        tasks = _tasks(config, partial)
        done, total = 0, sum(len(task.pictures) for task in tasks)
        for written in _map(tasks, num_workers=num_workers):
            done += written
            if progress is not None:
                progress(done, total)
        write_description(partial, config)
        try:
            partial.rename(root)
        except OSError:
            # Another process may have finished the same world meanwhile; anything else is an error.
            if not _is_written(root, config):
                raise
