"""From a file's bytes to pixels: the one rule for images of every kind.

    ordinary         as they are
    EXIF-rotated     turned upright; an orientation that cannot be read counts as none
    grayscale        the same value in three channels
    CMYK             Pillow's conversion, without colour profiles
    transparent      composited on black, palettes too
    16-bit           the high byte of each value; 32-bit integers where they lie in 0..65535
    1x1              one colour

All else has a reason why it gives no pixels: zero bytes, truncated, no known format, more than
`MAX_PIXELS`, values without a known range. Of a file with several images the first is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from reid.data import files

POLICY = "2: upright, on black, high byte of 16 bits, RGB, Pillow bicubic with antialiasing"
"""How a file becomes pixels. Part of every key: change it when the pixels change."""

MAX_PIXELS = 2**25
"""Pixels of an image (8192 x 4096) above which it is refused undecoded: no crop is as large."""

_NAMED = 10  # failures an error message names
_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_KINDS = {
    **dict.fromkeys(("1", "L", "LA", "La"), "grayscale"),
    **dict.fromkeys(("P", "PA"), "palette"),
    "CMYK": "CMYK",
}
_PNG, _PNG_DEPTH = b"\x89PNG", 24  # how a PNG begins, and the byte that holds its bits per channel


class UndecodableImages(ValueError):  # noqa: N818 (says what was found, not only that it is an error)
    """Some images could not be read; `paths` holds all of them."""

    def __init__(self, failures: Sequence[tuple[str, str]], *, num_images: int) -> None:
        self.paths = tuple(path for path, _ in failures)
        super().__init__(
            f"{len(failures)} of {num_images} images do not decode: {named(failures)}. "
            "Repair these files or take them out of the table."
        )


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a file is: `image`, RGB and upright, or None and the `reason`.

    `height` and `width` are those of the upright image where it decodes, 0 where unknown; `kinds`
    says what is unusual.
    """

    image: Image.Image | None = None
    height: int = 0
    width: int = 0
    kinds: tuple[str, ...] = ()
    reason: str = ""


def named(failures: Sequence[tuple[str, str]]) -> str:
    """Return the first failures, (path, reason) each, in words, and whether there are more."""
    shown = "; ".join(f"{path} ({reason})" for path, reason in failures[:_NAMED])
    return shown + (f"; and {len(failures) - _NAMED} more" if len(failures) > _NAMED else "")


def content_of(path: str) -> bytes | str:
    """Return a file's bytes, or why there are none.

    What is no fault of the file is raised: ConnectionError, ValueError for credentials.
    """
    try:
        return files.read(path)
    except ConnectionError:
        raise
    except OSError as error:
        return error.strerror or str(error)


def look(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Looked:
    """Decode an image by the rule of this module."""
    if not content:
        return Looked(reason="zero bytes")
    height = width = 0
    try:
        with Image.open(BytesIO(content)) as image:
            width, height = image.size
            if width * height > max_pixels:
                reason = f"over {max_pixels} pixels ({width} x {height})"
                return Looked(height=height, width=width, reason=reason)
            image.load()
            orientation = _orientation(image)
            kinds = _kinds(image, content, orientation=orientation)
            pixels = _to_rgb(image)
    except UnidentifiedImageError:
        return Looked(reason="no image format is recognised")
    except Exception as error:  # on a damaged file Pillow's readers raise almost anything
        reason = str(error) or type(error).__name__
        return Looked(height=height, width=width, reason=reason)
    if orientation in _UPRIGHT:
        pixels = pixels.transpose(_UPRIGHT[orientation])
    return Looked(image=pixels, height=pixels.height, width=pixels.width, kinds=kinds)


def decode(path: str, *, height: int, width: int) -> NDArray[np.uint8] | str:
    """Return the pixels (height,width,3) uint8 of a file, or why there are none."""
    content = content_of(path)
    if isinstance(content, str):
        return content
    looked = look(content)
    if looked.image is None:
        return looked.reason
    return np.asarray(looked.image.resize((width, height), Image.Resampling.BICUBIC))


def why_not(path: str) -> str:
    """Return why a file does not decode, "" where it does."""
    content = content_of(path)
    return content if isinstance(content, str) else look(content).reason


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block, beside pixels that are whole
        return 1


def _kinds(image: Image.Image, content: bytes, *, orientation: int) -> tuple[str, ...]:
    """Return what is unusual about an image."""
    kinds = []
    if image.mode.startswith("I") or (content.startswith(_PNG) and content[_PNG_DEPTH] == 16):
        kinds.append("16-bit")
    elif image.mode != "RGB":
        kinds.append(_KINDS.get(image.mode, f"mode {image.mode}"))
    if orientation in _UPRIGHT:
        kinds.append("EXIF-rotated")
    if image.size == (1, 1):
        kinds.append("1x1")
    return tuple(kinds)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image as RGB; ValueError where its values have no known range."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"values {values.min()} to {values.max()}, expected 0 to 65535")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point values have no known range")
    elif image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("RGB")
