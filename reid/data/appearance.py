"""Persons, cameras and moments of the built-in worlds, and the random draws they come from.

Two domains: "a" is outdoors, bright and saturated; "b" is indoors, darker and muted. They share
the body plan and the kinds of clothes, but neither palette, nor background, nor light, so that a
network taught on one transfers badly to the other although each is learnable.

Lengths are fractions of the image height unless said; colours are 8-bit RGB.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

Domain = Literal["a", "b"]
Color = tuple[int, int, int]
View = Literal[
    "front", "back", "left", "right", "front_left", "front_right", "back_left", "back_right"
]
"""A person is seen from the first four."""
Pattern = Literal["plain", "bands", "pinstripes", "checks", "dots", "block", "logo", "open"]
HairStyle = Literal["bald", "short", "long", "bun"]
Legwear = Literal["trousers", "shorts", "skirt"]
Hat = Literal["none", "cap", "beanie"]
Bag = Literal["none", "backpack", "satchel", "tote"]

VIEWS: tuple[View, ...] = ("front", "front", "back", "back", "left", "right")  # as often as seen
PATTERNS: tuple[Pattern, ...] = (
    "plain", "bands", "pinstripes", "checks", "dots", "block", "logo", "open",
)  # fmt: skip
PATTERN_CHANCES = (0.28, 0.13, 0.09, 0.11, 0.08, 0.13, 0.09, 0.09)
HAIR_STYLES: tuple[HairStyle, ...] = ("bald", "short", "long", "bun")
LEGWEAR: tuple[Legwear, ...] = ("trousers", "shorts", "skirt")
HATS: tuple[Hat, ...] = ("none", "cap", "beanie")
BAGS: tuple[Bag, ...] = ("none", "backpack", "satchel", "tote")
SKINS: tuple[Color, ...] = (
    (244, 208, 177), (226, 180, 140), (198, 145, 104), (156, 104, 70), (110, 72, 50), (78, 52, 40),
)  # fmt: skip
HAIRS: tuple[Color, ...] = (
    (28, 22, 20), (66, 42, 28), (112, 72, 40), (168, 124, 66), (214, 184, 120), (150, 60, 36),
    (176, 174, 170),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Person:
    """One identity: everything that stays the same in every image of it."""

    skin: Color
    hair: Color
    hair_style: HairStyle
    hat: Hat
    hat_color: Color
    upper: Color
    upper_second: Color
    pattern: Pattern
    long_sleeves: bool
    contrast_sleeves: bool
    lower: Color
    lower_trim: Color
    legwear: Legwear
    trimmed: bool
    shoes: Color
    bag: Bag
    bag_color: Color
    stature: float
    girth: float


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One fixed camera: its scene and how it renders light.

    `color` (3,3) maps scene RGB to image RGB (gain, cast, saturation in one), `haze` is added
    (0..255); `light_from` is how much brighter the right edge is than the middle; `vignette` how
    much darker the corners are; `blur` a radius as a fraction of the image height; `noise` a
    standard deviation (0..255); `zoom` the usual size of a person. An `infrared` camera gives one
    channel, the first row of `color`.
    """

    scene_seed: int
    color: Float32[np.ndarray, "3 3"]
    haze: float
    light_from: float
    vignette: float
    blur: float
    noise: float
    zoom: float
    infrared: bool = False


@dataclass(frozen=True, kw_only=True)
class Occluder:
    """A thing in front of the person or vehicle, its edges as fractions of the image."""

    left: float
    top: float
    right: float
    bottom: float
    color: Color


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What changes from image to image of one identity before one camera.

    `stride` and `swing` move a person's limbs; a vehicle is seen from higher by the one, and turned
    off its view by the other.
    """

    view: View
    stride: float
    swing: float
    shift_x: float
    shift_y: float
    scale: float
    gain: float
    place: float
    occluder: Occluder | None


@dataclass(frozen=True, kw_only=True)
class Style:
    """What one domain draws from: ranges are (low, high); half the cameras blur, up to `blur`."""

    clothes: tuple[Color, ...]
    accessories: tuple[Color, ...]
    walls: tuple[Color, ...]
    floors: tuple[Color, ...]
    clutter: tuple[Color, ...]
    foliage: bool
    gain: tuple[float, float]
    saturation: tuple[float, float]
    cast: float
    haze: tuple[float, float]
    noise: tuple[float, float]
    blur: float


STYLES: dict[Domain, Style] = {
    "a": Style(
        clothes=(
            (228, 30, 38), (250, 120, 20), (252, 212, 32), (142, 208, 40), (24, 150, 66),
            (22, 190, 190), (70, 170, 246), (28, 70, 220), (120, 48, 200), (226, 44, 166),
            (250, 150, 190), (248, 248, 246), (30, 30, 36), (150, 154, 160),
        ),
        accessories=(
            (210, 30, 40), (240, 190, 20), (20, 120, 210), (30, 30, 34), (40, 160, 90),
            (240, 240, 240),
        ),
        walls=((150, 204, 250), (244, 226, 190), (236, 170, 140), (206, 226, 240)),
        floors=((128, 186, 90), (210, 204, 192), (226, 200, 150), (170, 200, 120)),
        clutter=(
            (70, 150, 60), (240, 240, 236), (216, 90, 70), (60, 120, 200), (250, 214, 90),
            (120, 90, 60),
        ),
        foliage=True,
        gain=(0.92, 1.12), saturation=(0.95, 1.2), cast=0.06,
        haze=(0.0, 10.0), noise=(1.5, 5.0), blur=0.006,
    ),
    "b": Style(
        clothes=(
            (126, 40, 44), (150, 88, 52), (176, 150, 96), (98, 104, 52), (48, 84, 62),
            (58, 112, 116), (92, 116, 150), (40, 52, 104), (88, 60, 108), (138, 84, 112),
            (190, 176, 160), (206, 206, 204), (40, 40, 44), (112, 112, 118),
        ),
        accessories=(
            (110, 40, 40), (150, 124, 60), (44, 62, 100), (36, 36, 40), (60, 88, 70),
            (186, 182, 174),
        ),
        walls=((112, 110, 104), (94, 102, 110), (130, 120, 100), (84, 84, 92)),
        floors=((84, 80, 76), (66, 70, 76), (104, 96, 84), (58, 60, 58)),
        clutter=(
            (58, 56, 60), (136, 132, 122), (92, 74, 58), (64, 78, 88), (170, 168, 150),
            (44, 48, 46),
        ),
        foliage=False,
        gain=(0.72, 0.98), saturation=(0.75, 0.95), cast=0.07,
        haze=(4.0, 14.0), noise=(2.5, 7.0), blur=0.008,
    ),
}  # fmt: skip


def draw_color(
    rng: np.random.Generator, palette: tuple[Color, ...], *, spread: float = 10.0
) -> Color:
    """Draw a colour near an entry of a palette."""
    shade = np.asarray(palette[int(rng.integers(len(palette)))]) + rng.normal(0.0, spread, 3)
    red, green, blue = (int(value) for value in np.clip(shade, 0, 255))
    return red, green, blue


def draw_two_colors(rng: np.random.Generator, palette: tuple[Color, ...]) -> tuple[Color, Color]:
    """Draw two different entries, so that a pattern can be seen."""
    first, second = rng.choice(len(palette), size=2, replace=False)
    return draw_color(rng, (palette[int(first)],)), draw_color(rng, (palette[int(second)],))


def draw_person(rng: np.random.Generator, domain: Domain) -> Person:
    """Draw one identity of a domain."""
    style = STYLES[domain]
    upper, upper_second = draw_two_colors(rng, style.clothes)
    lower, lower_trim = draw_two_colors(rng, style.clothes)
    return Person(
        skin=draw_color(rng, SKINS, spread=4.0),
        hair=draw_color(rng, HAIRS, spread=6.0),
        hair_style=HAIR_STYLES[int(rng.choice(4, p=(0.08, 0.46, 0.32, 0.14)))],
        hat=HATS[int(rng.choice(3, p=(0.7, 0.17, 0.13)))],
        hat_color=draw_color(rng, style.accessories),
        upper=upper,
        upper_second=upper_second,
        pattern=PATTERNS[int(rng.choice(len(PATTERNS), p=PATTERN_CHANCES))],
        long_sleeves=bool(rng.random() < 0.55),
        contrast_sleeves=bool(rng.random() < 0.25),
        lower=lower,
        lower_trim=lower_trim,
        legwear=LEGWEAR[int(rng.choice(3, p=(0.58, 0.25, 0.17)))],
        trimmed=bool(rng.random() < 0.3),
        shoes=draw_color(rng, style.accessories),
        bag=BAGS[int(rng.choice(4, p=(0.45, 0.25, 0.16, 0.14)))],
        bag_color=draw_color(rng, style.accessories),
        stature=float(rng.uniform(0.84, 0.96)),
        girth=float(rng.uniform(0.84, 1.22)),
    )


def draw_camera(rng: np.random.Generator, domain: Domain) -> Camera:
    """Draw one camera of a domain."""
    style = STYLES[domain]
    gain = rng.uniform(*style.gain) * (1 + rng.normal(0.0, style.cast, 3))
    saturation = rng.uniform(*style.saturation)
    # Rec. 601 luma: saturation s keeps luma and scales the distance from grey.
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    color = gain[:, None] * (saturation * np.eye(3) + (1 - saturation) * grey)
    return Camera(
        scene_seed=int(rng.integers(2**31)),
        color=color.astype(np.float32),
        haze=float(rng.uniform(*style.haze)),
        light_from=float(rng.uniform(-0.25, 0.25)),
        vignette=float(rng.uniform(0.0, 0.2)),
        blur=float(max(0.0, rng.uniform(-style.blur, style.blur))),
        noise=float(rng.uniform(*style.noise)),
        zoom=float(rng.uniform(0.94, 1.04)),
    )


def draw_moment(
    rng: np.random.Generator, domain: Domain, *, crop_error: float = 1.0, occluded: float = 0.12
) -> Moment:
    """Draw one moment; `crop_error` scales how badly the box fits, `occluded` is a chance."""
    occluder = None
    if rng.random() < occluded:
        color = draw_color(rng, STYLES[domain].clutter)
        left, size = rng.uniform(0.0, 0.85), rng.uniform(0.12, 0.24)
        occluder = (
            Occluder(left=left, top=0.0, right=left + size, bottom=1.0, color=color)
            if rng.random() < 0.5
            else Occluder(left=0.0, top=1 - size, right=1.0, bottom=1.0, color=color)
        )
    shift_x, shift_y, growth = rng.uniform(-crop_error, crop_error, 3)
    return Moment(
        view=VIEWS[int(rng.integers(len(VIEWS)))],
        stride=float(rng.uniform(0.2, 1.0)),
        swing=float(rng.uniform(-1.0, 1.0)),
        shift_x=float(0.03 * shift_x),
        shift_y=float(0.03 * shift_y),
        scale=float(1 + 0.07 * growth),
        gain=float(rng.uniform(0.9, 1.1)),
        place=float(rng.random()),
        occluder=occluder,
    )
