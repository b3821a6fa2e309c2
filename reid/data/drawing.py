"""Drawing one image of the built-in worlds: a person or vehicle, before a camera, at a moment.

A canvas of `SUPERSAMPLE` times the image is painted (scene, shadow, body, occluder), averaged down,
and put through the camera's response. Legend: H, W the image's height and width.
"""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from reid.data.appearance import STYLES, Camera, Color, Domain, Moment, Person, Style
from reid.data.figure import Pen, paint_body
from reid.data.vehicle import Vehicle
from reid.data.vehicle_figure import paint_vehicle

Subject = Person | Vehicle

DRAWING_VERSION = 2
"""Raised whenever the same configuration would give other images."""

SUPERSAMPLE = 2
SCENE_WIDTHS = 5  # a scene is this many images wide; each moment shows another piece of it
SCENE_IN_INFRARED = 0.6
"""An infrared camera brings its own lamp, which lights what is behind the subject less."""
JPEG_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A camera with what all its images share: `scene` (canvas size) and `light`, a gain."""

    camera: Camera
    scene: Image.Image
    light: Float32[np.ndarray, "H W 1"]


def _pick(rng: np.random.Generator, palette: tuple[Color, ...]) -> Float32[np.ndarray, "3"]:
    color = np.asarray(palette[int(rng.integers(len(palette)))], dtype=np.float32)
    return np.clip(color + rng.normal(0.0, 8.0, 3), 0, 255).astype(np.float32)


def _rgb(color: np.ndarray) -> Color:
    red, green, blue = (int(value) for value in np.clip(color, 0, 255))
    return red, green, blue


def _paint_floor(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, floor: np.ndarray, *, horizon: int
) -> None:
    """Paint joints that meet at the horizon, or rows of slabs, in a darker tone of the floor."""
    width, height = draw.im.size
    joint, center = _rgb(floor * rng.uniform(0.78, 0.92)), width / 2
    spacing = height * rng.uniform(0.12, 0.35)
    for offset in np.arange(-2 * width, 2 * width, spacing * 2):
        draw.line((center + offset / 4, horizon, center + offset, height), fill=joint)
    for step in range(1, 7):
        y = horizon + (height - horizon) * (step / 6) ** 2
        draw.line((0, y, width, y), fill=joint)


def _paint_clutter(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, style: Style, *, horizon: int
) -> None:
    """Paint what stands against the wall: windows, doors, posts, boards, and trees outdoors."""
    width, height = draw.im.size
    for _ in range(int(rng.integers(14, 26))):
        x, color = rng.uniform(0, width), _pick(rng, style.clutter)
        wide, top = height * rng.uniform(0.03, 0.28), height * rng.uniform(0.0, 0.3)
        bottom = horizon + height * rng.uniform(-0.08, 0.06)
        if style.foliage and rng.random() < 0.45:
            draw.rectangle((x - 0.1 * wide, top, x + 0.1 * wide, bottom), fill=(96, 70, 48))
            for dx, dy in rng.uniform(-0.6, 0.6, (4, 2)) * wide:
                box = (
                    x + dx - wide / 2,
                    top + dy - wide / 2,
                    x + dx + wide / 2,
                    top + dy + wide / 2,
                )
                draw.ellipse(box, fill=_rgb(np.array([70, 140, 56]) * rng.uniform(0.7, 1.3)))
        else:
            draw.rectangle((x, top, x + wide, bottom), fill=_rgb(color))
            draw.rectangle((x, top, x + wide * 0.12, bottom), fill=_rgb(color * 0.8))


def build_stage(camera: Camera, domain: Domain, *, height: int, width: int) -> Stage:
    """Paint a camera's scene and work out its light, for images of `height` x `width` pixels."""
    rng, style = np.random.Generator(np.random.Philox(camera.scene_seed)), STYLES[domain]
    high, wide = height * SUPERSAMPLE, width * SUPERSAMPLE * SCENE_WIDTHS
    horizon = int(high * rng.uniform(0.42, 0.66))
    wall, floor = _pick(rng, style.walls), _pick(rng, style.floors)
    rise = np.linspace(1.0, 0.0, high, dtype=np.float32)[:, None]
    column = np.where(
        np.arange(high)[:, None] < horizon, wall * (0.8 + 0.25 * rise), floor * (1.1 - 0.3 * rise)
    )
    pixels = np.broadcast_to(column[:, None], (high, wide, 3)).clip(0, 255).astype(np.uint8)
    scene = Image.fromarray(np.ascontiguousarray(pixels))
    draw = ImageDraw.Draw(scene)
    _paint_floor(draw, rng, floor, horizon=horizon)
    _paint_clutter(draw, rng, style, horizon=horizon)
    scene = scene.filter(ImageFilter.GaussianBlur(high / 160))
    if camera.infrared:
        scene = ImageEnhance.Brightness(scene).enhance(SCENE_IN_INFRARED)
    across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    light = (1 + camera.light_from * across) * (
        1 - camera.vignette * (0.5 * across**2 + 0.5 * down**2)
    )
    return Stage(camera=camera, scene=scene, light=light[..., None].astype(np.float32))


def _paint_person(
    canvas: Image.Image, person: Person, moment: Moment, *, zoom: float, ground: Color
) -> None:
    height, unit = canvas.height, canvas.height * person.stature * zoom * moment.scale
    # The box of a detector has the feet near its lower edge, whatever the stature.
    feet = height * (0.975 + moment.shift_y)
    pen = Pen(
        canvas=canvas,
        draw=ImageDraw.Draw(canvas),
        left=canvas.width * 0.5 + height * moment.shift_x,
        top=feet - unit,
        unit=unit,
        mirror=-1 if moment.view == "left" else 1,
    )
    pen.ellipse((0.0, 0.965), 0.17 * person.girth, 0.022, _rgb(np.asarray(ground) * 0.55))
    paint_body(pen, person, moment)


def _paint(stage: Stage, subject: Subject, moment: Moment) -> Image.Image:
    """Return the canvas before the camera's response."""
    height, width = (size * SUPERSAMPLE for size in stage.light.shape[:2])
    start = int(moment.place * (stage.scene.width - width))
    canvas = stage.scene.crop((start, 0, start + width, height))
    ground, zoom = canvas.getpixel((int(width / 2), height - 1)), stage.camera.zoom
    assert isinstance(ground, tuple)
    color = _rgb(np.asarray(ground))
    if isinstance(subject, Vehicle):
        paint_vehicle(canvas, subject, moment, zoom=zoom, ground=color)
    else:
        _paint_person(canvas, subject, moment, zoom=zoom, ground=color)
    if (cover := moment.occluder) is not None:
        box = (cover.left * width, cover.top * height, cover.right * width, cover.bottom * height)
        ImageDraw.Draw(canvas).rectangle(box, fill=cover.color)
    return canvas


def draw_image(
    stage: Stage, subject: Subject, moment: Moment, *, noise: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    """Return one image: RGB, grey from an infrared camera; `noise` draws the sensor's noise."""
    camera = stage.camera
    small = _paint(stage, subject, moment).reduce(SUPERSAMPLE)
    if camera.blur:
        small = small.filter(ImageFilter.GaussianBlur(camera.blur * small.height))
    pixels = np.asarray(small, dtype=np.float32)
    response = camera.color.T * np.float32(moment.gain)
    pixels = (pixels.reshape(-1, 3) @ response).reshape(pixels.shape)
    if camera.infrared:
        pixels = pixels[..., :1]
    pixels = pixels * stage.light + camera.haze
    pixels += noise.standard_normal(pixels.shape, dtype=np.float32) * np.float32(camera.noise)
    image: np.ndarray = np.clip(pixels, 0, 255).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if camera.infrared else image


def encode_jpeg(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """Return `image` as the bytes of a JPEG file, colour at full resolution."""
    buffer = io.BytesIO()
    # Clothes are a few pixels wide in the smallest images: halving their colour would mix them.
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
