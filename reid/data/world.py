"""What a built-in world holds, and how its folder says so."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from reid.data.appearance import Domain
from reid.data.drawing import DRAWING_VERSION

WORLD_FILE = "world.json"
"""Written last: a folder that holds it holds a complete world of the configuration in it."""

PID_BASE: dict[Domain, int] = {"a": 0, "b": 5000}
"""Identities are numbered from here + 1; file names have room for four digits."""
MAX_IDENTITIES = 4999
MIN_CAMERAS_SEEN = 4
"""Every identity is seen by at least this many cameras, or by all where there are fewer."""

_LATER = {"subject": "person", "infrared_cameras": 0}
"""Fields younger than the first worlds, which left them out: at these values they still are."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What a world holds; sizes are in pixels, counts in images unless named otherwise.

    `num_train_images` are dealt out evenly. Each test identity has `num_test_images_per_identity`,
    of which `num_queries_per_identity`, each from another camera, are queries. The gallery further
    holds `num_distractors` strangers (pid 0) and `num_junk` badly cropped test identities (pid -1).

    The last `infrared_cameras` cameras are infrared. Where there are any, every camera sees every
    identity, queries are infrared and the gallery is visible.
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
    subject: Literal["person", "vehicle"] = "person"
    infrared_cameras: int = 0

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
        self._check_subject()

    def _check_subject(self) -> None:
        if self.subject not in ("person", "vehicle"):
            raise ValueError(f"subject is {self.subject!r}; drawn are 'person' and 'vehicle'")
        if self.subject == "vehicle" and self.height != self.width:
            raise ValueError(
                f"images of {self.height} x {self.width} are not square, as those of vehicles are"
            )
        least = self.num_queries_per_identity if self.infrared_cameras else 0
        if not least <= self.infrared_cameras < self.num_cameras:
            raise ValueError(
                f"infrared_cameras is {self.infrared_cameras}; of {self.num_cameras} cameras one "
                f"or more are visible, and each of {least} queries is from another infrared one"
            )

    def is_infrared(self, camid: int) -> bool:
        """Tell whether a camera is infrared."""
        return camid >= self.num_cameras - self.infrared_cameras


def describe(config: WorldConfig) -> dict[str, Any]:
    """Return a configuration and the drawing's version, to compare with `read_description`."""
    return {**asdict(config), "drawing_version": DRAWING_VERSION}


def write_description(folder: Path, config: WorldConfig) -> None:
    """Write the `WORLD_FILE` of a folder."""
    described = {key: value for key, value in describe(config).items() if _LATER.get(key) != value}
    (folder / WORLD_FILE).write_text(json.dumps(described, indent=2), encoding="utf-8")


def read_description(folder: Path) -> dict[str, Any]:
    """Return what the `WORLD_FILE` in a folder says, with the fields that it may leave out."""
    found: dict[str, Any] = json.loads((folder / WORLD_FILE).read_text(encoding="utf-8"))
    return {**_LATER, **found}
