"""Processor time of the data layer against Pillow and torchvision in a torch DataLoader.

    python -m jobs.benchmark data

For three kinds of JPEG, processor time of an image from files to augmented batches of 256x128: the
peer decodes and augments image by image in two worker processes, as released code does (it draws no
grey patches, we do). Then identities drawn for batches, against the usual loop over identities.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Group
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from jobs.benchmarks.timing import compared, interleaved, tables_of_compared
from jobs.console import Show
from reid.data import (
    AugmentConfig,
    Draw,
    PKIndex,
    Table,
    open_pixels,
    pk_index,
    pk_rows,
    torch_loader,
)
from reid.data.augment import IMAGENET_MEAN, IMAGENET_STD
from reid.data.dali_loader import dali_loader
from reid.data.encoded_store import EncodedStore

HEIGHT, WIDTH, BATCH = 256, 128, 64
KINDS = {"128x64 q95": (128, 64, 95), "344x136 q90": (344, 136, 90), "400x400 q90": (400, 400, 90)}
"""height, width and JPEG quality of persons small and large, and of vehicles"""
PEER = "Pillow + torchvision, DataLoader, 2 workers"
NUM_IMAGES_OF_ALL, NUM_IDENTITIES_OF_ALL, NUM_CAMERAS = 277_797, 30_671, 174
"""VERI-Wild's training set"""
P, K = 32, 4
PASSES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Decoding, augmentation and sampling against their usual forms, in processor time."""

    num_images: int = 512
    """images of each kind, whole batches of 64"""
    repeats: int = 5
    """measured turns of every case"""
    json: str | None = None
    """file to write the rows to"""


class Peer(Dataset[torch.Tensor]):
    """One image at a time: decode, resize, mirror, pad and crop, normalise, erase."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.Resize((HEIGHT, WIDTH), transforms.InterpolationMode.BICUBIC),
                transforms.RandomHorizontalFlip(),
                transforms.Pad(10, padding_mode="edge"),
                transforms.RandomCrop((HEIGHT, WIDTH)),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
                transforms.RandomErasing(value=IMAGENET_MEAN),
            ]
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        """Return one augmented image (3,H,W)."""
        with Image.open(self.paths[row]) as image:
            result: torch.Tensor = self.transform(image.convert("RGB"))
        return result


def measure(options: Options, *, show: Show) -> list[dict[str, Any]]:
    """Check that the cases agree, then time them; return one row a case.

    Raises:
        ValueError: the images are no whole number of batches, of which ours would read fewer.
    """
    if options.num_images < BATCH or options.num_images % BATCH:
        raise ValueError(
            f"num_images is {options.num_images}; give a multiple of a batch's {BATCH}"
        )
    rows = []
    for done, (kind, shape) in enumerate(KINDS.items()):
        show("loaders", done, len(KINDS) + 1, kind)
        with tempfile.TemporaryDirectory() as folder:
            paths = write_images(Path(folder), *shape, count=options.num_images)
            parity = decoding_parity(paths)
            cases = loader_cases(paths, Path(folder))
            seconds = interleaved(cases, repeats=options.repeats)
        rows += [
            compared(
                f"{kind}: {case}",
                times,
                peer=PEER,
                theirs=seconds[PEER],
                parity=parity["dali" if "dali" in case and "decoding" in case else "torch"],
                per=options.num_images,
            )
            for case, times in seconds.items()
            if case != PEER
        ]
    show("loaders", len(KINDS), len(KINDS) + 1, "sampler")
    index, camid, cases = sampler_cases()
    same_rows = sampler_parity(index, camid)
    seconds = interleaved(cases, repeats=options.repeats)
    mine = [total / PASSES for total in seconds["pk_rows"]]
    per = NUM_IDENTITIES_OF_ALL // P * P
    rows.append(
        compared(
            "identities of VERI-Wild: pk_rows",
            mine,
            peer="loop over identities",
            theirs=seconds["loop"],
            parity=same_rows,
            per=per,
        )
    )
    show("loaders", len(KINDS) + 1, len(KINDS) + 1, "")
    return rows


def table_of(rows: Sequence[dict[str, Any]]) -> Group:
    """Return the rows: times of an image, and of an identity drawn."""
    return tables_of_compared(rows)


def decoding_parity(paths: NDArray[np.str_]) -> dict[str, str]:
    """Return how far either loader's plain images are from the peer's, in grey levels."""
    count = min(len(paths), BATCH)
    steps = transforms.Compose([Peer([]).transform.transforms[0], transforms.PILToTensor()])
    images = [steps(Image.open(path).convert("RGB")) for path in paths[:count]]
    expected = torch.stack(images).permute(0, 2, 3, 1).numpy().astype(np.int16)
    plain = AugmentConfig(
        flip=0.0, pad=0, local_grayscale=0.0, global_grayscale=0.0, erasing=0.0,
        mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255),
    )  # fmt: skip
    found = {}
    for name, load in (("torch", torch_loader), ("dali", dali_loader)):
        store = EncodedStore(paths[:count], height=HEIGHT, width=WIDTH)
        table = Table(store=store, camid=np.zeros(count, dtype=np.int64), labels={})
        draw = Draw(name="all", table="t", labels=None, num_identities=count, num_instances=1)
        at: Any = {"augment": plain, "seed": 1, "round": 0, "steps": range(1), "device": "cpu"}
        (batch,) = load({"t": table}, [draw], **at)
        pixels = batch["all"].images.permute(0, 2, 3, 1).numpy()
        apart = np.abs(pixels - expected[batch["all"].index.numpy()])
        found[name] = f"grey levels apart: mean {apart.mean():.2f}, most {apart.max():.0f}"
        if apart.mean() > 2:
            raise ArithmeticError(f"{name}_loader decodes otherwise than the peer: {found[name]}")
    return found


def write_images(
    folder: Path, height: int, width: int, quality: int, *, count: int
) -> NDArray[np.str_]:
    """Write made photographs: soft shapes with a sensor's noise, whose files have usual sizes."""
    rng = np.random.default_rng(0)
    names = []
    for number in range(count):
        shapes = Image.fromarray(rng.integers(0, 256, (8, 4, 3), dtype=np.uint8))
        soft = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = soft + rng.integers(-12, 13, soft.shape, dtype=np.int16)
        names.append(str(folder / f"{number:05d}.jpg"))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(names[-1], quality=quality)
    return np.array(names)


def loader_cases(paths: NDArray[np.str_], folder: Path) -> dict[str, Callable[[], None]]:
    """Return every way from files to a pass of augmented batches."""
    size: Any = {"height": HEIGHT, "width": WIDTH}
    encoded = EncodedStore(paths, **size)
    decoded = open_pixels(paths, **size, cache_dir=folder / "warm")
    draw = Draw(name="all", table="t", labels=None, num_identities=BATCH, num_instances=1)

    def run(loader: Any, store: Any) -> None:
        table = Table(store=store, camid=np.zeros(len(paths), dtype=np.int64), labels={})
        steps = range(len(paths) // BATCH)
        at = {"augment": AugmentConfig(), "seed": 1, "round": 0, "steps": steps, "device": "cpu"}
        for _ in loader({"t": table}, [draw], **at):
            pass

    def peer() -> None:
        for _ in DataLoader(Peer(list(paths)), batch_size=BATCH, shuffle=True, num_workers=2):
            pass

    def cold() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            run(torch_loader, open_pixels(paths, **size, cache_dir=cache))

    return {
        PEER: peer,
        "torch_loader, decoding each time": partial(run, torch_loader, encoded),
        "dali_loader, decoding each time": partial(run, dali_loader, encoded),
        "torch_loader, PixelStore cold": cold,
        "torch_loader, PixelStore warm": partial(run, torch_loader, decoded),
        "dali_loader, PixelStore warm": partial(run, dali_loader, decoded),
    }


def sampler_cases() -> tuple[PKIndex, NDArray[np.int64], dict[str, Callable[[], None]]]:
    """Return an index, its cameras, and the ways to draw a pass of batches, each identity once.

    A pass of ours is over in milliseconds: `PASSES` of them are timed at once.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, NUM_IDENTITIES_OF_ALL, NUM_IMAGES_OF_ALL)
    camid = rng.integers(0, NUM_CAMERAS, NUM_IMAGES_OF_ALL)
    index = pk_index(labels, camid)
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)

    def loop() -> None:
        rows: list[int] = []
        for group in rng.permutation(len(groups)):
            mine = groups[group]
            anchor = rng.choice(mine)
            others = mine[camid[mine] != camid[anchor]]
            if len(others) == 0:
                others = mine
            rows += [anchor, *rng.choice(others, K - 1, replace=len(others) < K - 1)]

    rounds = iter(range(10**6))

    def ours() -> None:
        for _ in range(PASSES):
            at = {"seed": 1, "round": next(rounds), "num_identities": P, "num_instances": K}
            for step in range(index.num_identities // P):
                pk_rows(index, step=step, **at)

    return index, camid, {"loop": loop, "pk_rows": ours}


def sampler_parity(index: PKIndex, camid: NDArray[np.int64]) -> str:
    """Check a pass of ours against the rule the loop follows."""
    identity = np.empty(NUM_IMAGES_OF_ALL, dtype=np.int64)
    identity[index.rows] = np.repeat(np.arange(index.num_identities), np.diff(index.identity_start))
    steps = range(index.num_identities // P)
    at: Any = {"seed": 1, "round": 0, "num_identities": P, "num_instances": K}
    rows = np.stack([pk_rows(index, step=step, **at) for step in steps]).reshape(-1, K)
    drawn = identity[rows]
    if (drawn != drawn[:, :1]).any() or len(np.unique(drawn[:, 0])) != len(rows):
        raise ArithmeticError("pk_rows draws other identities than the loop")
    others = (camid[rows[:, 1:]] != camid[rows[:, :1]]).all(axis=1).mean()
    return f"each once, {K} images of it, {100 * others:.1f} % of other cameras"
