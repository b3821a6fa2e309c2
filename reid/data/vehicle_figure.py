"""Painting of one vehicle of the built-in worlds, as a camera beside the road sees it."""

import math
from dataclasses import replace
from itertools import product

from PIL import Image, ImageDraw

from reid.data.appearance import Color, Moment, View
from reid.data.solid import Block, Brush, Corner, disc, rectangle, shade
from reid.data.vehicle import Vehicle
from reid.data.vehicle_shapes import SHAPES, Shape, scaled

YAWS: dict[View, float] = {
    "front": 0, "front_right": 45, "right": 90, "back_right": 135, "back": 180, "back_left": -135,
    "left": -90, "front_left": -45,
}  # fmt: skip
"""Where a vehicle heads, in degrees from the camera; seen at 90 it heads for the right edge."""
TURN = 14.0
"""How far it may turn off its view, in degrees."""
PITCHES = (6.0, 20.0)
"""How far from above it is seen, in degrees."""
FILLED = 0.9
"""The share of the image that it takes, in the direction in which it takes more."""
SHADOW = 0.5
BLACK, TYRE, BED = (34, 34, 36), (24, 24, 26), (52, 52, 54)
PLATE, HEADLIGHT, TAILLIGHT, SIGN = (236, 236, 226), (252, 250, 228), (190, 20, 26), (255, 236, 130)


def _brush(canvas: Image.Image, shape: Shape, moment: Moment, *, zoom: float) -> Brush:
    """Aim at the vehicle, so that it fills the image as a detector's box does."""
    yaw = math.radians(YAWS[moment.view] + TURN * moment.swing)
    pitch = math.radians(PITCHES[0] + (PITCHES[1] - PITCHES[0]) * moment.stride)
    brush = Brush(
        draw=ImageDraw.Draw(canvas),
        yaw=(math.sin(yaw), math.cos(yaw)),
        pitch=(math.sin(pitch), math.cos(pitch)),
    )
    half = shape.half
    solids = [(x, y, z) for x, z in (*shape.hull, (shape.axles[0], 0.0)) for y in (-half, half)]
    solids += [
        block.at(along, across, up)
        for block in shape.blocks
        for along, across, up in product((0.0, 1.0), (-1.0, 1.0), (0.0, 1.0))
    ]
    across, down = zip(*map(brush.at, solids), strict=True)
    room = max((max(across) - min(across)) / canvas.width, (max(down) - min(down)) / canvas.height)
    scale = FILLED * zoom * moment.scale / room
    return replace(
        brush,
        scale=scale,
        left=canvas.width / 2 + canvas.height * moment.shift_x
        - scale * (max(across) + min(across)) / 2,
        top=canvas.height * (0.5 + moment.shift_y) - scale * (max(down) + min(down)) / 2,
    )  # fmt: skip


def _ground(brush: Brush, shape: Shape, color: Color) -> None:
    """Paint the shadow, and the tyres as far as they show beneath the hull."""
    (tail, nose), half, radius = shape.ends, shape.half, shape.radius
    shadow = rectangle(tail - 0.15, -half - 0.25, nose + 0.15, half + 0.25)
    brush.paint([(x, y, 0.0) for x, y in shadow], shade(color, SHADOW))
    for x in sorted(shape.axles, key=lambda x: x * brush.yaw[1]):
        for y in (-half + 0.15, half - 0.15):
            for end, paint in ((-1, brush.rear), (1, brush.front)):
                rubber = rectangle(y - 0.14, 0.0, y + 0.14, 2 * radius)
                paint(rubber, x + end * 0.5 * radius, TYRE)


def _hull(brush: Brush, vehicle: Vehicle, shape: Shape) -> None:
    half = shape.half
    brush.sides(shape.hull, half, shade(vehicle.paint, 0.9))
    for (x0, z0), (x1, z1) in zip(shape.hull, (*shape.hull[1:], shape.hull[0]), strict=True):
        upward = (x0 - x1) / math.hypot(x1 - x0, z1 - z0)
        hood = vehicle.two_tone == "hood" and upward > 0.5 and x1 > 0
        color = shade(vehicle.second if hood else vehicle.paint, 0.96 + 0.14 * max(0.0, upward))
        strips = [(-half, half, color)]
        if vehicle.stripe == "lengthwise" and upward > -0.5:
            strips += [(-0.45, -0.1, vehicle.second), (0.1, 0.45, vehicle.second)]
        for right, left, paint in strips:
            brush.paint([(x1, right, z1), (x0, right, z0), (x0, left, z0), (x1, left, z1)], paint)
    if shape.bed is not None:
        floor = rectangle(shape.bed[0], 0.12 - half, shape.bed[1], half - 0.12)
        brush.paint([(x, y, shape.levels[1]) for x, y in floor], BED)


def _markings(brush: Brush, vehicle: Vehicle, shape: Shape) -> None:
    """Paint the lower part of the hull all round, and the stripes on its sides."""
    (tail, nose), (floor, belt), half = shape.ends, shape.levels, shape.half
    middle, bumper = floor + 0.5 * (shape.brow - floor), floor + 0.35 * (shape.brow - floor)
    bands: list[tuple[float, Color]] = []
    if vehicle.two_tone == "lower":
        bands.append((middle, vehicle.second))
    if vehicle.dark_bumpers:
        bands.append((bumper, BLACK))
    for top, color in bands:
        low = top if color != BLACK else floor + 0.12
        brush.sides(rectangle(tail + 0.08, floor, nose - 0.08, low), half, shade(color, 0.9))
        brush.front(rectangle(-half, floor, half, top), nose, color)
        brush.rear(rectangle(-half, floor, half, top), tail, color)
    if vehicle.stripe == "side":
        band = rectangle(tail + 0.08, middle, nose - 0.08, middle + 0.3 * (belt - floor))
        brush.sides(band, half, vehicle.second)
        brush.rear(rectangle(-half, middle, half, band[2][1]), tail, vehicle.second)
    elif vehicle.stripe == "wedge":
        low, high = floor + 0.08, belt - 0.04
        wedge = [(tail + 0.1, low), (-0.1, low), (0.9, high), (tail + 0.5, high)]
        brush.sides(wedge, half, vehicle.second)


def _decal(brush: Brush, vehicle: Vehicle, shape: Shape) -> None:
    """Paint the decal on both sides and the rear: on the cargo box, where there is one."""
    (tail, nose), (floor, belt), half = shape.ends, shape.levels, shape.half
    if (cargo := shape.cargo) is not None:
        (tail, floor), (nose, belt) = cargo.corners[0], cargo.corners[2]
        half = cargo.half[0]
    x, z, high = tail + vehicle.decal_at * (nose - tail), (floor + belt) / 2, 0.4 * (belt - floor)
    marks: dict[str, list[list[Corner]]] = {
        "panel": [rectangle(-0.9, -high, 0.9, high)],
        "disc": [disc((0.0, 0.0), max(1.1 * high, 0.36))],
        "letters": [
            rectangle(d, -0.8 * high, d + 0.28, 0.8 * high) for d in (-0.9, -0.4, 0.1, 0.6)
        ],
        "checks": [
            rectangle(d, -high * (i % 2), d + 0.3, high * (1 - i % 2))
            for i, d in enumerate((-1.2, -0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9))
        ],
    }
    for mark in marks.get(vehicle.decal, []):
        brush.sides([(x + u, z + v) for u, v in mark], half, vehicle.decal_color)
        brush.rear([(0.5 * u, z + 0.7 * v) for u, v in mark], tail, vehicle.decal_color)


def _ends(brush: Brush, vehicle: Vehicle, shape: Shape) -> None:
    """Paint lights, grille and plates."""
    (tail, nose), (floor, belt) = shape.ends, shape.levels
    wide, high = {"round": (0.32, 0.3), "wide": (0.56, 0.2), "tall": (0.22, 0.4)}[vehicle.lights]
    for paint, x, top, color in (
        (brush.front, nose, shape.brow, HEADLIGHT),
        (brush.rear, tail, belt, TAILLIGHT),
    ):
        middle = floor + 0.66 * (top - floor)
        for sign in (-1, 1):
            y = sign * (shape.half - 0.06 - wide / 2)
            light = rectangle(y - wide / 2, middle - high / 2, y + wide / 2, middle + high / 2)
            paint(disc((y, middle), 0.17) if vehicle.lights == "round" else light, x, color)
        paint(rectangle(-0.28, floor + 0.08, 0.28, floor + 0.22), x, PLATE)
    grille = 0.86 * (shape.half - wide)
    middle = floor + 0.66 * (shape.brow - floor)
    brush.front(rectangle(-grille, middle - 0.09, grille, middle + 0.09), nose, BLACK)


def _wheels(brush: Brush, vehicle: Vehicle, shape: Shape) -> None:
    radius, half = shape.radius, shape.half + 0.01
    for x in shape.axles:
        center = (x, radius)
        brush.sides(disc(center, 1.16 * radius), half, BLACK)
        brush.sides(disc(center, radius), half, TYRE)
        rim = {"discs": 0.66, "spokes": 0.76, "covers": 0.88, "hubs": 0.36}[vehicle.wheels]
        brush.sides(disc(center, rim * radius), half, vehicle.metal)
        if vehicle.wheels == "spokes":
            reach, thin = 0.7 * radius, 0.14 * radius
            brush.sides(rectangle(x - reach, radius - thin, x + reach, radius + thin), half, TYRE)
            brush.sides(rectangle(x - thin, radius - reach, x + thin, radius + reach), half, TYRE)


def _cabin(brush: Brush, vehicle: Vehicle, block: Block) -> None:
    """Paint a block: a cabin with its glass, or a cargo box."""
    if not block.windows:
        brush.block(block, vehicle.second)
        brush.patch(block, "sides", (0.0, 0.0, 1.0, 0.05), BLACK)
        brush.patch(block, "rear", (-0.02, 0.04, 0.02, 1.0), BLACK)
        return
    brush.block(block, vehicle.second if vehicle.two_tone == "roof" else vehicle.paint)
    if vehicle.stripe == "lengthwise":
        brush.patch(block, "top", (0.0, -0.5, 1.0, -0.12), vehicle.second)
        brush.patch(block, "top", (0.0, 0.12, 1.0, 0.5), vehicle.second)
    for start, end in (*block.windows, *(block.optional if vehicle.glazed else ())):
        brush.patch(block, "sides", (start, 0.14, end, 0.86), vehicle.glass)
    brush.patch(block, "front", (-0.9, 0.1, 0.9, 0.9), vehicle.glass)
    if vehicle.glazed or not block.optional:
        brush.patch(block, "rear", (-0.82, 0.2, 0.82, 0.85), vehicle.glass)


def _roof(brush: Brush, vehicle: Vehicle, cabin: Block) -> None:
    """Paint what the cabin carries."""
    (_, _, (front, z), (rear, _)), half = cabin.corners, cabin.half[1]
    if vehicle.roof == "none":
        return
    if vehicle.roof == "rack":
        for share in (0.15, 0.5, 0.85):
            x = rear + share * (front - rear)
            bar = (
                (x - 0.07, z + 0.1),
                (x + 0.07, z + 0.1),
                (x + 0.07, z + 0.2),
                (x - 0.07, z + 0.2),
            )
            brush.block(Block(corners=bar, half=(half, half)), BLACK)
        rail = rectangle(rear, z + 0.06, front, z + 0.16)
        brush.sides(rail, half, BLACK)
        return
    long, high, wide, color = {
        "box": (0.38, 0.34, 0.62, vehicle.decal_color),
        "sign": (0.1, 0.24, 0.5, SIGN),
    }[vehicle.roof]
    middle, reach, top = (rear + front) / 2, long * (front - rear), z + high
    back, fore = middle - reach, middle + reach
    corners = ((back, z), (fore, z), (fore - 0.08, top), (back + 0.08, top))
    brush.block(Block(corners=corners, half=(wide * half, 0.9 * wide * half)), color)


def paint_vehicle(
    canvas: Image.Image, vehicle: Vehicle, moment: Moment, *, zoom: float, ground: Color
) -> None:
    """Paint `vehicle` on `canvas`, as seen at `moment`; its shadow darkens the colour `ground`."""
    shape = scaled(SHAPES[vehicle.body], length=vehicle.length, height=vehicle.height)
    brush = _brush(canvas, shape, moment, zoom=zoom)
    _ground(brush, shape, ground)
    _hull(brush, vehicle, shape)
    _markings(brush, vehicle, shape)
    if shape.cargo is None:
        _decal(brush, vehicle, shape)
    _ends(brush, vehicle, shape)
    _wheels(brush, vehicle, shape)
    for block in sorted(shape.blocks, key=lambda block: brush.near(block.at(0.5, 0.0, 0.5))):
        _cabin(brush, vehicle, block)
        if not block.windows:
            _decal(brush, vehicle, shape)
        if block is shape.blocks[0]:
            _roof(brush, vehicle, block)
