"""The built-in worlds: two domains of drawn people, written as folders in Market-1501's layout.

They stand in for a source and a target data set wherever none may be had: the demo, the tests, a
machine without a network. Identities of the two domains never meet: their appearances come from
separate random streams, and their numbers are disjoint (`PID_BASE`).

Every image is a function of the configuration and its own number alone, so that any number of
workers writes the same bytes.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from enum import IntEnum
from itertools import count, cycle, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from reid.data.appearance import Domain, Person, draw_camera, draw_moment, draw_person
from reid.data.drawing import DRAWING_VERSION, build_stage, draw_image, encode_jpeg

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
WORLD_FILE = "world.json"
"""Written last: a folder that holds it holds a complete world of the configuration in it."""

PID_BASE: dict[Domain, int] = {"a": 0, "b": 5000}
"""Identities are numbered from here + 1; file names have room for four digits."""
MAX_IDENTITIES = 4999
MIN_CAMERAS_SEEN = 4
"""Every identity is seen by at least this many cameras, or by all where there are fewer."""
JUNK_CROP_ERROR = 4.0
TASK_SIZE = 256


class _Stream(IntEnum):
    """Separates the uses of one seed."""

    CAMERA = 0
    PERSON = 1
    STRANGER = 2
    PLAN = 3
    IMAGE = 4


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What a world holds; sizes are in pixels, counts in images unless named otherwise.

    `num_train_images` are dealt out evenly. Each test identity has `num_test_images_per_identity`,
    of which `num_queries_per_identity`, each from another camera, are queries. The gallery further
    holds `num_distractors` strangers (pid 0) and `num_junk` badly cropped test identities (pid -1).
    """

    domain: Domain
    num_train_identities: int = 250
    num_test_identities: int = 100
    num_train_images: int = 3000
    num_test_images_per_identity: int = 14
    num_queries_per_identity: int = 2
    num_distractors: int = 100
    num_junk: int = 50
    num_cameras: int = 6
    height: int = 128
    width: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn or scored."""
        if self.domain not in PID_BASE:
            raise ValueError(f"domain is {self.domain!r}; the built-in domains are 'a' and 'b'")
        if not 2 <= self.num_cameras <= 9:
            raise ValueError(f"num_cameras is {self.num_cameras}; file names have room for 2 to 9")
        if min(self.num_train_identities, self.num_test_identities) < 2:
            raise ValueError("a world needs at least 2 training and 2 test identities")
        if self.num_train_identities + self.num_test_identities > MAX_IDENTITIES:
            raise ValueError(f"file names have room for {MAX_IDENTITIES} identities of a domain")
        if self.num_train_images < self.num_train_identities:
            raise ValueError(
                f"num_train_images={self.num_train_images} leaves some of the "
                f"{self.num_train_identities} training identities without an image"
            )
        if not 1 <= self.num_queries_per_identity <= min(self.num_cameras, MIN_CAMERAS_SEEN):
            raise ValueError(
                f"num_queries_per_identity is {self.num_queries_per_identity}; each query is from "
                f"another camera, of which an identity may have {MIN_CAMERAS_SEEN}"
            )
        if self.num_test_images_per_identity < self.num_queries_per_identity + 2:
            raise ValueError(
                f"num_test_images_per_identity={self.num_test_images_per_identity} must exceed the "
                "queries by 2, so that every query has a match from another camera"
            )
        if min(self.height, self.width) < 16:
            raise ValueError(
                f"images of {self.height} x {self.width} are too small; 16 is the least"
            )
        if min(self.num_distractors, self.num_junk, self.seed) < 0:
            raise ValueError("num_distractors, num_junk and seed are 0 or more")


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """One image to draw: `number` is unique in the world, `pid` is what the file name says."""

    folder: str
    pid: int
    camid: int
    number: int
    person: Person
    crop_error: float = 1.0

    @property
    def path(self) -> str:
        """Return folder/pid_cCAMsSEQUENCE_FRAME_BOX.jpg (`market1501` reads it back)."""
        pid = "-1" if self.pid == -1 else f"{self.pid:04d}"
        return f"{self.folder}/{pid}_c{self.camid + 1}s1_{self.number:06d}_01.jpg"


def _rng(config: WorldConfig, stream: _Stream, *key: int) -> np.random.Generator:
    entropy = (config.seed, PID_BASE[config.domain], stream, *key)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def _person(config: WorldConfig, stream: _Stream, key: int) -> Person:
    return draw_person(_rng(config, stream, key), config.domain)


def _cameras(config: WorldConfig, pid: int) -> list[int]:
    """Return the cameras that see an identity, in the order they do."""
    rng = _rng(config, _Stream.PLAN, pid)
    least = min(MIN_CAMERAS_SEEN, config.num_cameras)
    seen = int(rng.integers(least, config.num_cameras + 1))
    return [int(camera) for camera in rng.permutation(config.num_cameras)[:seen]]


def _plan(config: WorldConfig) -> Iterator[_Picture]:
    """List every image of a world, in a fixed order."""
    number, first = count(1), PID_BASE[config.domain] + 1
    each, extra = divmod(config.num_train_images, config.num_train_identities)
    for row in range(config.num_train_identities):
        pid = first + row
        person, cameras = _person(config, _Stream.PERSON, pid), cycle(_cameras(config, pid))
        for camid in islice(cameras, each + (row < extra)):
            yield _Picture(folder=TRAIN, pid=pid, camid=camid, number=next(number), person=person)
    first_test = first + config.num_train_identities
    for pid in range(first_test, first_test + config.num_test_identities):
        person, cameras = _person(config, _Stream.PERSON, pid), cycle(_cameras(config, pid))
        for row, camid in enumerate(islice(cameras, config.num_test_images_per_identity)):
            folder = QUERY if row < config.num_queries_per_identity else GALLERY
            yield _Picture(folder=folder, pid=pid, camid=camid, number=next(number), person=person)
    rng = _rng(config, _Stream.PLAN)
    for key in range(config.num_distractors):
        camid, person = (
            int(rng.integers(config.num_cameras)),
            _person(config, _Stream.STRANGER, key),
        )
        yield _Picture(folder=GALLERY, pid=0, camid=camid, number=next(number), person=person)
    for _ in range(config.num_junk):
        pid = first_test + int(rng.integers(config.num_test_identities))
        yield _Picture(
            folder=GALLERY,
            pid=-1,
            camid=int(rng.integers(config.num_cameras)),
            number=next(number),
            person=_person(config, _Stream.PERSON, pid),
            crop_error=JUNK_CROP_ERROR,
        )


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
    stage = build_stage(camera, config.domain, height=config.height, width=config.width)
    for picture in task.pictures:
        rng = _rng(config, _Stream.IMAGE, picture.number)
        moment = draw_moment(rng, config.domain, crop_error=picture.crop_error)
        image = draw_image(stage, picture.person, moment, noise=rng)
        (task.folder / picture.path).write_bytes(encode_jpeg(image))
    return len(task.pictures)


def _description(config: WorldConfig) -> dict[str, object]:
    return {**asdict(config), "drawing_version": DRAWING_VERSION}


def _is_written(root: Path, config: WorldConfig) -> bool:
    """Tell whether `root` holds this world; ValueError where it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / WORLD_FILE).is_file():
        raise ValueError(
            f"{root} exists and is no built-in world (it has no {WORLD_FILE}); name another folder"
        )
    found = json.loads((root / WORLD_FILE).read_text(encoding="utf-8"))
    wanted = _description(config)
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
        (partial / WORLD_FILE).write_text(
            json.dumps(_description(config), indent=2), encoding="utf-8"
        )
        try:
            partial.rename(root)
        except OSError:
            # Another process may have finished the same world meanwhile; anything else is an error.
            if not _is_written(root, config):
                raise
