"""The seven bodies of the built-in worlds' vehicles, in metres.

A vehicle stands on the origin: x runs forward, y to its left, z up. A body is a hull, a prism
across the vehicle, that carries blocks: cabins with windows, and cargo boxes without.
"""

from dataclasses import dataclass, replace

from reid.data.solid import Block, Corner
from reid.data.vehicle import Body


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One body: the hull's outline (x, z) is convex and runs forward along its lower edge.

    `blocks[0]` carries what is on the roof. `bed` is the range of x that is an open load bed.
    """

    hull: tuple[Corner, ...]
    half: float
    blocks: tuple[Block, ...]
    axles: tuple[float, ...]
    radius: float
    bed: Corner | None = None

    @property
    def ends(self) -> Corner:
        """Return x of the hull's rear and front."""
        return min(x for x, _ in self.hull), max(x for x, _ in self.hull)

    @property
    def levels(self) -> Corner:
        """Return z of the hull's floor and of its top."""
        return min(z for _, z in self.hull), max(z for _, z in self.hull)

    @property
    def brow(self) -> float:
        """Return z of the upper edge of the hull's front."""
        return max(z for x, z in self.hull if x > 0.9 * self.ends[1])

    @property
    def cargo(self) -> Block | None:
        """Return the block without glass, if any."""
        return next((block for block in self.blocks if not block.windows), None)


SHAPES: dict[Body, Shape] = {
    "sedan": Shape(
        hull=(
            (-2.3, 0.45), (-2.2, 0.22), (2.2, 0.22), (2.32, 0.42), (2.24, 0.74), (1.0, 0.95),
            (-1.5, 0.98), (-2.28, 0.9),
        ),
        half=0.9,
        blocks=(
            Block(
                corners=((-1.85, 0.93), (1.15, 0.9), (0.3, 1.45), (-1.0, 1.45)), half=(0.85, 0.64),
                windows=((0.1, 0.49), (0.53, 0.92)),
            ),
        ),
        axles=(-1.38, 1.42), radius=0.35,
    ),
    "hatchback": Shape(
        hull=(
            (-1.9, 0.45), (-1.8, 0.22), (1.8, 0.22), (1.92, 0.42), (1.84, 0.76), (0.9, 0.97),
            (-1.8, 0.98),
        ),
        half=0.86,
        blocks=(
            Block(
                corners=((-1.85, 0.95), (1.1, 0.92), (0.35, 1.52), (-1.5, 1.52)), half=(0.82, 0.64),
                windows=((0.08, 0.46), (0.5, 0.92)),
            ),
        ),
        axles=(-1.2, 1.22), radius=0.34,
    ),
    "suv": Shape(
        hull=(
            (-2.25, 0.6), (-2.15, 0.36), (2.15, 0.36), (2.28, 0.6), (2.22, 1.0), (1.1, 1.14),
            (-2.2, 1.16),
        ),
        half=0.96,
        blocks=(
            Block(
                corners=((-2.2, 1.12), (1.15, 1.1), (0.6, 1.8), (-2.05, 1.8)), half=(0.92, 0.78),
                windows=((0.05, 0.3), (0.34, 0.62), (0.66, 0.93)),
            ),
        ),
        axles=(-1.35, 1.38), radius=0.43,
    ),
    "van": Shape(
        hull=(
            (-2.5, 0.5), (-2.45, 0.3), (2.35, 0.3), (2.5, 0.5), (2.42, 0.95), (1.9, 1.2),
            (-2.5, 1.2),
        ),
        half=0.97,
        blocks=(
            Block(
                corners=((-2.5, 1.18), (1.95, 1.15), (1.2, 2.15), (-2.45, 2.15)), half=(0.96, 0.86),
                windows=((0.72, 0.95),), optional=((0.05, 0.34), (0.38, 0.68)),
            ),
        ),
        axles=(-1.55, 1.6), radius=0.37,
    ),
    "pickup": Shape(
        hull=(
            (-2.65, 0.6), (-2.6, 0.42), (2.45, 0.42), (2.6, 0.62), (2.54, 1.0), (1.4, 1.14),
            (-2.65, 1.14),
        ),
        half=0.96,
        blocks=(
            Block(
                corners=((-0.65, 1.12), (1.45, 1.1), (0.8, 1.8), (-0.5, 1.8)), half=(0.92, 0.76),
                windows=((0.06, 0.46), (0.52, 0.92)),
            ),
        ),
        axles=(-1.6, 1.65), radius=0.46, bed=(-2.5, -0.75),
    ),
    "truck": Shape(
        hull=((-3.1, 0.5), (3.1, 0.5), (3.2, 0.6), (3.2, 1.0), (-3.1, 1.0)),
        half=1.05,
        blocks=(
            Block(
                corners=((1.75, 0.98), (3.2, 0.98), (2.95, 2.3), (1.75, 2.3)), half=(1.05, 0.95),
                windows=((0.3, 0.9),),
            ),
            Block(
                corners=((-3.2, 1.0), (1.6, 1.0), (1.6, 2.85), (-3.2, 2.85)), half=(1.12, 1.12)
            ),
        ),
        axles=(-2.1, 2.35), radius=0.5,
    ),
    "bus": Shape(
        hull=((-3.75, 0.5), (-3.7, 0.35), (3.7, 0.35), (3.78, 0.5), (3.76, 1.4), (-3.75, 1.4)),
        half=1.2,
        blocks=(
            Block(
                corners=((-3.75, 1.38), (3.76, 1.38), (3.6, 2.75), (-3.7, 2.75)), half=(1.2, 1.15),
                windows=(
                    (0.03, 0.17), (0.19, 0.33), (0.35, 0.49), (0.51, 0.65), (0.67, 0.81),
                    (0.84, 0.97),
                ),
            ),
        ),
        axles=(-2.3, 2.3), radius=0.5,
    ),
}  # fmt: skip


def scaled(shape: Shape, *, length: float, height: float) -> Shape:
    """Return a shape stretched along x and, wheels apart, along z."""

    def stretch(corner: Corner) -> Corner:
        return corner[0] * length, corner[1] * height

    def stretch_block(block: Block) -> Block:
        first, second, third, fourth = map(stretch, block.corners)
        return replace(block, corners=(first, second, third, fourth))

    return replace(
        shape,
        hull=tuple(map(stretch, shape.hull)),
        blocks=tuple(map(stretch_block, shape.blocks)),
        axles=tuple(x * length for x in shape.axles),
        bed=shape.bed and (shape.bed[0] * length, shape.bed[1] * length),
    )
