"""What a miniature holds: for each data set, its images, who they show, and its lists."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

TRAIN_PIDS = (2, 7, 11)
TEST_PIDS = (1, 3)
MORE_TEST_PIDS = (5, 8)
"""Joining the first ones, one by one, in test sets that grow."""
IMAGES = 2
"""Of each training identity before each camera."""
STRANGER = 99
JUNK_CROP_ERROR = 4.0
VEHICLE_IMAGES = 3
"""Of each vehicle of VehicleID, which tells no cameras."""
MARKET_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
VERI_FOLDERS = ("image_train", "image_query", "image_test")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What an image shows: `pid` is who is drawn, whatever the file name says."""

    pid: int
    camid: int
    crop_error: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What to write, by path in the data set's folder: images, and the lines of lists."""

    images: Mapping[str, Subject]
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)


Name = Callable[[int, int, int], str]
"""From pid, the camera's number in the names, and the image's number, to a file name."""


def _sightings(
    pids: Sequence[int], cameras: Sequence[int], *, images: int = 1, first: int = 1
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (pid, camera's number in the names, camid, number of the image), all different."""
    number = first
    for pid in pids:
        for camid, camera in enumerate(cameras):
            for _ in range(images):
                yield pid, camera, camid, number
                number += 1


def _named(folders: Sequence[str], name: Name, cameras: Sequence[int]) -> Layout:
    """Lay out folders (train, then query and gallery if any) whose file names say it all."""
    parts = zip(folders, (TRAIN_PIDS, TEST_PIDS, TEST_PIDS), (IMAGES, 1, 1), strict=False)
    images = {
        f"{folder}/{name(pid, camera, number)}": Subject(pid=pid, camid=camid)
        for row, (folder, pids, each) in enumerate(parts)
        for pid, camera, camid, number in _sightings(
            pids, cameras, images=each, first=100 * row + 1
        )
    }
    return Layout(images=images)


def _market1501() -> Layout:
    layout = _named(
        MARKET_FOLDERS, lambda pid, cam, number: f"{pid:04d}_c{cam}s1_{number:06d}_01.jpg", (1, 6)
    )
    more = {
        "bounding_box_test/0000_c1s1_000301_01.jpg": Subject(pid=STRANGER, camid=0),
        "bounding_box_test/-1_c6s1_000302_01.jpg": Subject(
            pid=TEST_PIDS[0], camid=1, crop_error=JUNK_CROP_ERROR
        ),
    }
    return Layout(images={**layout.images, **more})


def _dukemtmc() -> Layout:
    layout = _named(
        MARKET_FOLDERS, lambda pid, cam, number: f"{pid:04d}_c{cam}_f{number:07d}.jpg", (2, 8)
    )
    stranger = f"bounding_box_test/{STRANGER:04d}_c8_f0000301.jpg"
    return Layout(images={**layout.images, stranger: Subject(pid=STRANGER, camid=1)})


def _cuhk03_np(boxes: str) -> Layout:
    folders = [f"{boxes}/{folder}" for folder in MARKET_FOLDERS]
    return _named(folders, lambda pid, cam, number: f"{pid:04d}_c{cam}_{number}.png", (1, 2))


def _personx() -> Layout:
    return _named(
        MARKET_FOLDERS, lambda pid, cam, number: f"{pid:04d}_c{cam}_{number}.jpg", (3, 12)
    )


def _veri776() -> Layout:
    return _named(
        VERI_FOLDERS, lambda pid, cam, number: f"{pid:04d}_c{cam:03d}_{number:08d}_0.jpg", (1, 20)
    )


def _vehiclex() -> Layout:
    return _named(
        VERI_FOLDERS[:1], lambda pid, cam, number: f"{pid:04d}_c{cam:03d}_{number}.jpg", (6, 36)
    )


def _msmt17() -> Layout:
    """Lay out version 1; identities count from 0 in both parts, the last is for validation."""
    parts = {"train": (3, IMAGES, 1), "query": (2, 1, 101), "gallery": (2, 1, 201)}
    images, lists = {}, {}
    for part, (num_identities, each, first) in parts.items():
        folder, lines = "train" if part == "train" else "test", {}
        for pid, camera, camid, number in _sightings(
            range(num_identities), (1, 15), images=each, first=first
        ):
            name = f"{pid:04d}/{pid:04d}_{number:03d}_{camera:02d}_0303morning_{number:04d}_0.jpg"
            # The same number in training and in test is another person.
            images[f"{folder}/{name}"] = Subject(pid=pid + 10 * (folder == "test"), camid=camid)
            lines[f"{name} {pid}"] = pid
        lists[f"list_{part}.txt"] = list(lines)
        if part == "train":
            validated = num_identities - 1
            lists["list_train.txt"] = [line for line, pid in lines.items() if pid != validated]
            lists["list_val.txt"] = [line for line, pid in lines.items() if pid == validated]
    return Layout(images=images, lists=lists)


def _vehicleid() -> Layout:
    images, lines = {}, {}
    pids = (*TRAIN_PIDS, *TEST_PIDS, *MORE_TEST_PIDS)
    for pid, _, _, number in _sightings(pids, (0,), images=VEHICLE_IMAGES):
        images[f"image/{number:07d}.jpg"] = Subject(pid=pid, camid=number % 2)
        lines[f"{number:07d} {pid}"] = pid
    members: dict[str, Sequence[int]] = {"train_list": TRAIN_PIDS}
    for more, size in enumerate((800, 1600, 2400)):
        members[f"test_list_{size}"] = (*TEST_PIDS, *MORE_TEST_PIDS[:more])
    lists = {
        f"train_test_split/{name}.txt": [line for line, pid in lines.items() if pid in chosen]
        for name, chosen in members.items()
    }
    return Layout(images=images, lists=lists)


def _veriwild() -> Layout:
    images: dict[str, Subject] = {}
    info = ["id/image;Camera ID;Time;Model;Type;Color"]
    parts: dict[str, dict[str, int]] = {"train": {}, "query": {}, "gallery": {}}
    test_pids = (*TEST_PIDS, *MORE_TEST_PIDS)
    for row, (part, pids) in enumerate(zip(parts, (TRAIN_PIDS, test_pids, test_pids), strict=True)):
        cameras = (5, 174) if part != "query" else (174,)
        for pid, camera, _, number in _sightings(pids, cameras, first=100 * row + 1):
            image = f"{pid:05d}/{number:06d}"
            images[f"images/{image}.jpg"] = Subject(pid=pid, camid=int(camera == 174))
            info.append(f"{image};{camera};2018-03-11 09:04:18;Ford;sedan;white")
            parts[part][image] = pid
    lists = {"vehicle_info.txt": info, "train_list_start0.txt": list(parts["train"])}
    for more, size in enumerate((3000, 5000, 10000)):
        chosen = (*TEST_PIDS, *MORE_TEST_PIDS[:more])
        for part, end in (("query", "_query"), ("gallery", "")):
            kept = [image for image, pid in parts[part].items() if pid in chosen]
            lists[f"test_{size}_id{end}.txt"] = kept
    return Layout(
        images=images, lists={f"train_test_split/{name}": lines for name, lines in lists.items()}
    )


def _vric() -> Layout:
    images, lists = {}, {}
    parts = {
        "train": (TRAIN_PIDS, (1, 60)),
        "probe": (TEST_PIDS, (1,)),
        "gallery": (TEST_PIDS, (60,)),
    }
    for row, (part, (pids, cameras)) in enumerate(parts.items()):
        lines = []
        for pid, camera, _, number in _sightings(pids, cameras, first=100 * row + 1):
            name = f"{number:07d}.jpg"
            images[f"{part}_images/{name}"] = Subject(pid=pid, camid=int(camera == 60))
            lines.append(f"{name} {pid} {camera}")
        lists[f"vric_{part}.txt"] = lines
    return Layout(images=images, lists=lists)


VEHICLES = ("veri776", "vehicleid", "veriwild", "vehiclex", "vric")
"""How the names of the data sets of vehicles begin; the others show persons."""

LAYOUTS: dict[str, Callable[[], Layout]] = {
    "market1501": _market1501,
    "dukemtmc": _dukemtmc,
    "cuhk03_np": partial(_cuhk03_np, "detected"),
    "cuhk03_np_labeled": partial(_cuhk03_np, "labeled"),
    "msmt17": _msmt17,
    "personx": _personx,
    "veri776": _veri776,
    **{f"vehicleid_{size}": _vehicleid for size in (800, 1600, 2400)},
    **{f"veriwild_{size}": _veriwild for size in (3000, 5000, 10000)},
    "vehiclex": _vehiclex,
    "vric": _vric,
}
"""The names that have a miniature; those of one layout share it."""
