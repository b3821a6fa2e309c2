"""Infrared cameras of the built-in worlds, and how their subjects look to them.

Near-infrared light is reflected as the material has it, whatever its colour: dyes that differ to
the eye are alike and the reverse. Skin is bright, hair dim; what else an identity wears or is
painted with has a reflectance of its own, drawn with the identity. Left of its looks are shapes,
patterns (with another contrast), and how bright each part is against the others.
"""

from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from reid.data.appearance import Camera, Person
from reid.data.vehicle import Vehicle

REFLECTANCES = {"skin": (200, 240), "hair": (50, 110), "glass": (20, 60)}
"""Ranges of grey by the name of the part."""
OTHERS = (35, 235)
WEIGHTS = (0.45, 0.4, 0.15)
"""Of red, green and blue in the grey of what is drawn in colour: scenes, lights, occluders."""
SOFTNESS, NOISE = 0.007, (1.3, 2.0)
"""Added blur; the noise's factor and what is added to it."""

Subject = TypeVar("Subject", Person, Vehicle)


def draw_infrared(rng: np.random.Generator, subject: Subject) -> Subject:
    """Draw how infrared cameras see an identity: each of its colours a grey, unrelated to it."""
    greys: dict[str, Any] = {}
    for field in fields(subject):
        if isinstance(getattr(subject, field.name), tuple):
            grey = int(rng.integers(*REFLECTANCES.get(field.name, OTHERS)))
            greys[field.name] = (grey, grey, grey)
    return replace(subject, **greys)


def infrared_camera(camera: Camera) -> Camera:
    """Return a camera as it is in infrared: one channel, of the same gain, softer and noisier."""
    gain = camera.color.sum(axis=1).mean()
    return replace(
        camera,
        color=np.tile(gain * np.array(WEIGHTS), (3, 1)).astype(np.float32),
        blur=camera.blur + SOFTNESS,
        noise=NOISE[0] * camera.noise + NOISE[1],
        infrared=True,
    )
