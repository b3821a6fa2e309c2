"""Painting of one body of the built-in worlds, from the farthest part to the nearest.

Points on a body are (x, y) in units of the stature: x to the right of the middle line (towards the
face in side views), y down from the crown.
"""

from dataclasses import dataclass

from PIL import Image, ImageDraw

from reid.data.appearance import Color, Moment, Pattern, Person, View

SIDES: tuple[View, ...] = ("left", "right")

Point = tuple[float, float]


def _shade(color: Color, factor: float) -> Color:
    red, green, blue = (min(255, int(value * factor)) for value in color)
    return red, green, blue


@dataclass(frozen=True, kw_only=True)
class Pen:
    """Paints on `canvas` at the body's place and size."""

    canvas: Image.Image
    draw: ImageDraw.ImageDraw
    left: float
    top: float
    unit: float
    mirror: int

    def at(self, point: Point) -> Point:
        """Return the canvas position of a point of the body."""
        return self.left + self.mirror * point[0] * self.unit, self.top + point[1] * self.unit

    def polygon(self, points: list[Point], color: Color) -> None:
        """Paint a filled polygon."""
        self.draw.polygon([self.at(point) for point in points], fill=color)

    def box(self, corner: Point, opposite: Point) -> tuple[float, float, float, float]:
        """Return the canvas box between two corners, ordered as Pillow wants it."""
        (x0, y0), (x1, y1) = self.at(corner), self.at(opposite)
        return min(x0, x1), y0, max(x0, x1), y1

    def ellipse(self, center: Point, radius_x: float, radius_y: float, color: Color) -> None:
        """Paint a filled ellipse."""
        (x, y) = center
        box = self.box((x - radius_x, y - radius_y), (x + radius_x, y + radius_y))
        self.draw.ellipse(box, fill=color)

    def dome(self, center: Point, radius_x: float, radius_y: float, color: Color) -> None:
        """Paint the upper half of an ellipse."""
        (x, y) = center
        box = self.box((x - radius_x, y - radius_y), (x + radius_x, y + radius_y))
        self.draw.chord(box, 180, 360, fill=color)

    def rectangle(self, corner: Point, opposite: Point, color: Color) -> None:
        """Paint a filled rectangle."""
        self.draw.rectangle(self.box(corner, opposite), fill=color)

    def limb(
        self, start: Point, end: Point, start_width: float, end_width: float, color: Color
    ) -> None:
        """Paint a tapering quadrilateral; widths are measured across x (limbs hang)."""
        (x0, y0), (x1, y1), a, b = start, end, start_width / 2, end_width / 2
        self.polygon([(x0 - a, y0), (x0 + a, y0), (x1 + b, y1), (x1 - b, y1)], color)


# What the second colour paints on the cloth, as (left, top, right, bottom) of its width and height.
RECTANGLES: dict[Pattern, list[tuple[float, float, float, float]]] = {
    "bands": [(0.0, (row + 0.5) / 4, 1.0, (row + 1) / 4) for row in range(4)],
    "pinstripes": [((column + 0.3) / 5, 0.0, (column + 0.65) / 5, 1.0) for column in range(5)],
    "checks": [
        (column / 4, row / 5, (column + 1) / 4, (row + 1) / 5)
        for row in range(5)
        for column in range(row % 2, 4, 2)
    ],
    "block": [(0.0, 0.0, 1.0, 0.42)],
    "open": [(0.36, 0.0, 0.64, 1.0)],
}
ELLIPSES: dict[Pattern, list[tuple[float, float, float, float]]] = {
    "dots": [
        (x - 0.08, (row + 0.5) / 4 - 0.06, x + 0.08, (row + 0.5) / 4 + 0.06)
        for row in range(4)
        for x in ((column + 0.3 + 0.4 * (row % 2)) / 3 for column in range(3))
    ],
    "logo": [(0.25, 0.2, 0.75, 0.55)],
}
FRONT_ONLY: tuple[Pattern, ...] = ("logo", "open")


def _texture(person: Person, view: View, size: tuple[int, int]) -> Image.Image:
    """Return the cloth of the upper garment, `size` pixels of the canvas."""
    cloth = Image.new("RGB", size, person.upper)
    if person.pattern in FRONT_ONLY and view != "front":
        return cloth
    draw, (wide, high) = ImageDraw.Draw(cloth), size
    for shapes, paint in ((RECTANGLES, draw.rectangle), (ELLIPSES, draw.ellipse)):
        for left, top, right, bottom in shapes.get(person.pattern, []):
            box = (wide * left, high * top, wide * right, high * bottom)
            paint(box, fill=person.upper_second)
    return cloth


def _torso(pen: Pen, person: Person, view: View) -> None:
    half = person.girth * (0.66 if view in SIDES else 1.0)
    outline = [(-0.095, 0.155), (0.095, 0.155), (0.13, 0.18), (0.105, 0.36), (0.115, 0.53)]
    outline += [(-x, y) for x, y in reversed(outline[2:])]
    points = [pen.at((x * half, y)) for x, y in outline]
    left, top = (int(min(axis)) for axis in zip(*points, strict=True))
    right, bottom = (int(max(axis)) + 2 for axis in zip(*points, strict=True))
    size = (right - left, bottom - top)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in points], fill=255)
    pen.canvas.paste(_texture(person, view, size), (left, top), mask)


def _legs(pen: Pen, person: Person, moment: Moment) -> None:
    side, g = moment.view in SIDES, person.girth
    covered = person.lower if person.legwear == "trousers" else person.skin
    for sign in (-1, 1):
        dim = 0.78 if side and sign < 0 else 1.0
        hip = (sign * (0.015 if side else 0.055) * g, 0.5)
        reach = 0.13 * moment.stride if side else 0.05 * g + 0.015
        ankle = (sign * reach, 0.945 - 0.02 * moment.stride * (sign * moment.swing > 0))
        knee = ((hip[0] + ankle[0]) / 2 + (0.012 if side else 0.0), 0.73)
        pen.limb(knee, ankle, 0.085 * g, 0.055 * g, _shade(covered, dim))
        upper_leg = covered if person.legwear == "skirt" else person.lower
        pen.limb(hip, (knee[0], knee[1] + 0.01), 0.12 * g, 0.095 * g, _shade(upper_leg, dim))
        if person.trimmed and person.legwear != "skirt":
            outer = 0.0 if side else sign * 0.04 * g
            pen.limb(
                (hip[0] + outer, 0.53),
                (knee[0] + outer * 0.8, 0.74),
                0.025,
                0.025,
                person.lower_trim,
            )
            if person.legwear == "trousers":
                end = (ankle[0] + outer * 0.4, ankle[1])
                pen.limb((knee[0] + outer * 0.8, 0.73), end, 0.025, 0.022, person.lower_trim)
        toe = 0.025 if side else 0.0
        pen.ellipse(
            (ankle[0] + toe, ankle[1] + 0.012), 0.055 if side else 0.036, 0.024, person.shoes
        )
    if person.legwear == "skirt":
        wide = g * (0.75 if side else 1.0)
        pen.polygon(
            [(-0.11 * wide, 0.47), (0.11 * wide, 0.47), (0.16 * wide, 0.75), (-0.16 * wide, 0.75)],
            person.lower,
        )
        if person.trimmed:
            pen.polygon(
                [
                    (-0.152 * wide, 0.7),
                    (0.152 * wide, 0.7),
                    (0.16 * wide, 0.75),
                    (-0.16 * wide, 0.75),
                ],
                person.lower_trim,
            )


def _arm(pen: Pen, person: Person, *, joints: tuple[Point, Point, Point], dim: float) -> None:
    shoulder, elbow, wrist = joints
    sleeve = _shade(person.upper_second if person.contrast_sleeves else person.upper, dim)
    g = 0.5 + 0.5 * person.girth
    pen.limb(
        elbow,
        wrist,
        0.056 * g,
        0.042 * g,
        sleeve if person.long_sleeves else _shade(person.skin, dim),
    )
    pen.limb(shoulder, (elbow[0], elbow[1] + 0.008), 0.07 * g, 0.06 * g, sleeve)
    pen.ellipse((wrist[0], wrist[1] + 0.012), 0.022, 0.022, _shade(person.skin, dim))


def _arms(pen: Pen, person: Person, moment: Moment) -> None:
    g, swing = person.girth, moment.swing
    if moment.view in SIDES:
        joints = (0.0, 0.185), (-0.03 + 0.02 * swing, 0.35), (0.075 * swing, 0.495)
        _arm(pen, person, joints=joints, dim=0.9)
        return
    for sign in (-1, 1):
        shoulder, elbow = (sign * 0.12 * g, 0.185), (sign * 0.152 * g, 0.35)
        wrist = (sign * (0.148 * g + 0.012), 0.5 - 0.02 * swing * sign)
        _arm(pen, person, joints=(shoulder, elbow, wrist), dim=0.92)


def _head(pen: Pen, person: Person, view: View) -> None:
    long = person.hair_style == "long"
    if long and view != "back":
        back = -0.03 if view in SIDES else 0.0
        pen.rectangle((back - 0.055, 0.07), (back + 0.055 * (view == "front"), 0.2), person.hair)
    pen.rectangle((-0.025, 0.11), (0.025, 0.17), _shade(person.skin, 0.85))
    pen.ellipse((0.0, 0.078), 0.05, 0.07, person.skin)
    if person.hair_style != "bald":
        if view == "back":
            pen.ellipse((0.0, 0.072), 0.056, 0.072, person.hair)
            if long:
                pen.rectangle((-0.056, 0.07), (0.056, 0.22), person.hair)
        else:
            pen.dome((0.0, 0.066), 0.057, 0.066, person.hair)
            if view in SIDES:
                pen.ellipse((-0.026, 0.075), 0.032, 0.055, person.hair)
        if person.hair_style == "bun":
            pen.ellipse((-0.06, 0.05) if view in SIDES else (0.0, 0.0), 0.03, 0.026, person.hair)
    if person.hat != "none":
        pen.dome((0.0, 0.06), 0.062, 0.075, person.hat_color)
        if person.hat == "beanie":
            pen.rectangle((-0.062, 0.045), (0.062, 0.07), _shade(person.hat_color, 0.75))
        elif view != "back":
            reach = (0.02, 0.115) if view in SIDES else (-0.06, 0.06)
            pen.rectangle((reach[0], 0.05), (reach[1], 0.066), _shade(person.hat_color, 0.8))


def _bag(pen: Pen, person: Person, view: View) -> None:
    color, dark, g = person.bag_color, _shade(person.bag_color, 0.7), person.girth
    # Worn on the person's left: at the right of a front view and at the left of a back view.
    worn = {"front": 1, "back": -1, "left": 1, "right": -1}[view]
    if person.bag == "backpack":
        if view == "back":
            pen.rectangle((-0.088 * g, 0.175), (0.088 * g, 0.42), color)
            pen.rectangle((-0.06 * g, 0.31), (0.06 * g, 0.4), dark)
        elif view == "front":
            for sign in (-1, 1):
                pen.limb((sign * 0.07 * g, 0.158), (sign * 0.08 * g, 0.36), 0.03, 0.03, color)
        else:
            pen.rectangle((-0.175 * g, 0.18), (-0.07 * g, 0.42), color)
            pen.rectangle((-0.2 * g, 0.3), (-0.15 * g, 0.4), dark)
    elif person.bag == "satchel":
        if view in SIDES:
            if worn > 0:
                pen.rectangle((-0.085, 0.46), (0.085, 0.6), color)
            pen.limb((0.0, 0.16), (-0.02, 0.48), 0.024, 0.024, dark)
        else:
            pen.limb((-worn * 0.085 * g, 0.158), (worn * 0.115 * g, 0.49), 0.03, 0.03, dark)
            near, far = sorted((worn * 0.06 * g, worn * 0.2 * g))
            pen.rectangle((near, 0.47), (far, 0.61), color)
    elif person.bag == "tote" and not (view in SIDES and worn < 0):
        x = 0.03 if view in SIDES else worn * 0.17 * g
        pen.limb((x, 0.5), (x, 0.58), 0.015, 0.05, dark)
        pen.rectangle((x - 0.06, 0.57), (x + 0.06, 0.72), color)


def paint_body(pen: Pen, person: Person, moment: Moment) -> None:
    """Paint `person` on the pen's canvas, as seen at `moment`."""
    view = moment.view
    _legs(pen, person, moment)
    _torso(pen, person, view)
    if view != "front":
        _head(pen, person, view)
    # From the front and from behind the arms hang before a bag, and always before a backpack.
    beneath = view not in SIDES or person.bag == "backpack"
    if beneath:
        _bag(pen, person, view)
    _arms(pen, person, moment)
    if not beneath:
        _bag(pen, person, view)
    if view == "front":
        _head(pen, person, view)
