"""Vehicles of the built-in worlds: identities and moments, and the random draws they come from.

Two vehicles of one type and colour are told apart by their second colour and where it is, stripes,
decals, what is on the roof, wheels, glass and lights. Cameras and styles are those of `appearance`;
the palettes of the two domains differ here as they do there.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from reid.data.appearance import (
    Color,
    Domain,
    Moment,
    View,
    draw_color,
    draw_moment,
    draw_two_colors,
)

Body = Literal["sedan", "hatchback", "suv", "van", "pickup", "truck", "bus"]
TwoTone = Literal["none", "roof", "lower", "hood"]
Stripe = Literal["none", "side", "lengthwise", "wedge"]
Decal = Literal["none", "panel", "disc", "letters", "checks"]
Wheels = Literal["discs", "spokes", "covers", "hubs"]
Roof = Literal["none", "rack", "box", "sign"]
Lights = Literal["round", "wide", "tall"]

BODIES: tuple[Body, ...] = ("sedan", "hatchback", "suv", "van", "pickup", "truck", "bus")
BODY_CHANCES = (0.24, 0.18, 0.2, 0.14, 0.1, 0.08, 0.06)
TWO_TONES: tuple[TwoTone, ...] = ("none", "roof", "lower", "hood")
STRIPES: tuple[Stripe, ...] = ("none", "side", "lengthwise", "wedge")
DECALS: tuple[Decal, ...] = ("none", "panel", "disc", "letters", "checks")
WHEELS: tuple[Wheels, ...] = ("discs", "spokes", "covers", "hubs")
ROOFS: tuple[Roof, ...] = ("none", "rack", "box", "sign")
LIGHTS: tuple[Lights, ...] = ("round", "wide", "tall")
VIEWS: tuple[View, ...] = (
    "front", "back", "left", "right", "front_left", "front_right", "back_left", "back_right",
)  # fmt: skip

PAINTS: dict[Domain, tuple[Color, ...]] = {
    "a": (
        (246, 246, 244), (34, 36, 42), (176, 182, 190), (216, 28, 34), (28, 84, 214),
        (250, 204, 28), (30, 150, 76), (248, 124, 26), (110, 196, 240), (130, 50, 180),
    ),
    "b": (
        (190, 188, 180), (40, 42, 48), (112, 114, 120), (120, 40, 44), (42, 56, 104),
        (168, 144, 84), (50, 82, 62), (140, 88, 54), (88, 112, 140), (84, 62, 96),
    ),
}  # fmt: skip
GLASSES: tuple[Color, ...] = ((24, 28, 34), (58, 70, 82), (104, 130, 150), (46, 62, 50))
METALS: tuple[Color, ...] = ((206, 208, 212), (130, 132, 138), (70, 72, 78))


@dataclass(frozen=True, kw_only=True)
class Vehicle:
    """One identity: everything that stays the same in every image of it.

    `decal_at` is where the decal sits on the sides, 0 at the rear and 1 at the front; `length` and
    `height` are relative to others of its type.
    """

    body: Body
    paint: Color
    second: Color
    decal_color: Color
    glass: Color
    metal: Color
    two_tone: TwoTone
    stripe: Stripe
    decal: Decal
    decal_at: float
    wheels: Wheels
    roof: Roof
    lights: Lights
    dark_bumpers: bool
    glazed: bool
    length: float
    height: float


def draw_vehicle(rng: np.random.Generator, domain: Domain) -> Vehicle:
    """Draw one identity of a domain."""
    paint, second = draw_two_colors(rng, PAINTS[domain])
    return Vehicle(
        body=BODIES[int(rng.choice(len(BODIES), p=BODY_CHANCES))],
        paint=paint,
        second=second,
        decal_color=draw_color(rng, PAINTS[domain]),
        glass=draw_color(rng, GLASSES, spread=6.0),
        metal=draw_color(rng, METALS, spread=6.0),
        two_tone=TWO_TONES[int(rng.choice(4, p=(0.5, 0.2, 0.18, 0.12)))],
        stripe=STRIPES[int(rng.choice(4, p=(0.4, 0.25, 0.2, 0.15)))],
        decal=DECALS[int(rng.choice(5, p=(0.3, 0.22, 0.18, 0.16, 0.14)))],
        decal_at=float(rng.uniform(0.3, 0.7)),
        wheels=WHEELS[int(rng.integers(len(WHEELS)))],
        roof=ROOFS[int(rng.choice(4, p=(0.5, 0.24, 0.14, 0.12)))],
        lights=LIGHTS[int(rng.integers(len(LIGHTS)))],
        dark_bumpers=bool(rng.random() < 0.4),
        glazed=bool(rng.random() < 0.5),
        length=float(rng.uniform(0.93, 1.07)),
        height=float(rng.uniform(0.94, 1.06)),
    )


def draw_vehicle_moment(
    rng: np.random.Generator, domain: Domain, *, crop_error: float = 1.0, occluded: float = 0.12
) -> Moment:
    """Draw one moment of a vehicle, as `draw_moment` does, seen from one of eight directions."""
    moment = draw_moment(rng, domain, crop_error=crop_error, occluded=occluded)
    return replace(moment, view=VIEWS[int(rng.integers(len(VIEWS)))])
