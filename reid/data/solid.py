"""Solids before a camera: six-sided blocks, and a brush that paints their surfaces.

x runs forward, y to the left, z up, in metres. Every surface is a flat polygon, listed
counter-clockwise as seen from outside: once projected, those that turn away from the camera run
clockwise and are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import ImageDraw

from reid.data.appearance import Color

Corner = tuple[float, float]
Solid = tuple[float, float, float]
Face = Literal["sides", "front", "rear", "top"]

DISTANCE = 18.0
"""How far the camera is."""
CIRCLE = [(math.cos(a * math.pi / 6), math.sin(a * math.pi / 6)) for a in range(12)]


def shade(color: Color, factor: float) -> Color:
    """Return a colour brighter or darker by a factor."""
    red, green, blue = (min(255, int(value * factor)) for value in color)
    return red, green, blue


def rectangle(left: float, bottom: float, right: float, top: float) -> list[Corner]:
    """Return a rectangle, counter-clockwise."""
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


def disc(center: Corner, radius: float) -> list[Corner]:
    """Return a disc as a polygon, counter-clockwise."""
    return [(center[0] + radius * x, center[1] + radius * y) for x, y in CIRCLE]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Six-sided: its side seen from the right, and half its width below and above.

    `corners` (x, z) are the rear and the front one below, the front and the rear one above.
    `windows` are ranges of its length, from the rear, that are glass in its sides; `optional` are
    those that only glazed vehicles have. A block without glass has neither, nor a windscreen.
    """

    corners: tuple[Corner, Corner, Corner, Corner]
    half: tuple[float, float]
    windows: tuple[Corner, ...] = ()
    optional: tuple[Corner, ...] = ()

    def at(self, along: float, across: float, up: float) -> Solid:
        """Return a point: `along` 0..1 rearmost to foremost, `across` -1..1 right to left."""
        (x0, z0), (x1, z1), (x2, z2), (x3, z3) = self.corners
        x = (1 - up) * (x0 + along * (x1 - x0)) + up * (x3 + along * (x2 - x3))
        z = (1 - up) * (z0 + along * (z1 - z0)) + up * (z3 + along * (z2 - z3))
        return x, across * (self.half[0] + up * (self.half[1] - self.half[0])), z


@dataclass(frozen=True, kw_only=True)
class Brush:
    """Paints surfaces through a camera; `scale` is in canvas pixels a metre, at the origin."""

    draw: ImageDraw.ImageDraw
    yaw: Corner
    """sine and cosine"""
    pitch: Corner
    left: float = 0.0
    top: float = 0.0
    scale: float = 1.0

    def at(self, solid: Solid) -> Corner:
        """Return the canvas position of a point."""
        x, y, z = solid
        (sin_yaw, cos_yaw), (sin_pitch, cos_pitch) = self.yaw, self.pitch
        near = x * cos_yaw - y * sin_yaw
        zoom = self.scale * DISTANCE / (DISTANCE - near * cos_pitch - z * sin_pitch)
        return (
            self.left + zoom * (x * sin_yaw + y * cos_yaw),
            self.top - zoom * (z * cos_pitch - near * sin_pitch),
        )

    def near(self, solid: Solid) -> float:
        """Return how far a point is on the camera's side of the origin."""
        return solid[0] * self.yaw[1] - solid[1] * self.yaw[0]

    def paint(self, surface: Sequence[Solid], color: Color) -> None:
        """Paint a surface, where it faces the camera."""
        points = [self.at(solid) for solid in surface]
        # Twice the area, negative for counter-clockwise as y runs down.
        area, (x0, y0) = 0.0, points[-1]
        for x1, y1 in points:
            area += x0 * y1 - x1 * y0
            x0, y0 = x1, y1
        if area < 0:
            self.draw.polygon(points, fill=color)

    def sides(self, points: Sequence[Corner], half: float, color: Color) -> None:
        """Paint (x, z) on the right and the left side, `half` from the middle."""
        self.paint([(x, -half, z) for x, z in points], color)
        self.paint([(x, half, z) for x, z in reversed(points)], color)

    def front(self, points: Sequence[Corner], x: float, color: Color) -> None:
        """Paint (y, z) on the front."""
        self.paint([(x, y, z) for y, z in points], color)

    def rear(self, points: Sequence[Corner], x: float, color: Color) -> None:
        """Paint (y, z) on the rear."""
        self.paint([(x, y, z) for y, z in reversed(points)], color)

    def block(self, block: Block, color: Color) -> None:
        """Paint the faces of a block, the upper ones brighter."""
        self.patch(block, "sides", (0.0, 0.0, 1.0, 1.0), shade(color, 0.88))
        self.patch(block, "front", (-1.0, 0.0, 1.0, 1.0), color)
        self.patch(block, "rear", (-1.0, 0.0, 1.0, 1.0), shade(color, 0.94))
        self.patch(block, "top", (0.0, -1.0, 1.0, 1.0), shade(color, 1.1))

    def patch(
        self, block: Block, face: Face, box: tuple[float, float, float, float], color: Color
    ) -> None:
        """Paint a part of a face, in the face's own coordinates (`Block.at`)."""
        corners = rectangle(*box)
        if face == "sides":
            self.paint([block.at(u, -1.0, v) for u, v in corners], color)
            self.paint([block.at(u, 1.0, v) for u, v in reversed(corners)], color)
        elif face == "front":
            self.paint([block.at(1.0, s, v) for s, v in corners], color)
        elif face == "rear":
            self.paint([block.at(0.0, s, v) for s, v in reversed(corners)], color)
        else:
            self.paint([block.at(u, s, 1.0) for u, s in corners], color)
