"""Images as users have them: what each kind becomes, and why some become nothing."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from reid.data.decoding import MAX_PIXELS, decode, look, why_not

RED, BLACK = (255, 0, 0), (0, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(content: bytes) -> np.ndarray:
    looked = look(content)
    assert looked.reason == ""
    assert looked.image.mode == "RGB"
    assert (looked.height, looked.width) == (looked.image.height, looked.image.width)
    return np.asarray(looked.image)


def noise(*shape: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def test_grayscale_is_the_same_in_all_channels():
    gray = noise(6, 4)
    found = pixels(encoded(Image.fromarray(gray)))
    np.testing.assert_array_equal(found, np.stack([gray] * 3, axis=-1))


def test_cmyk_is_ink_taken_from_white():
    ink = Image.new("CMYK", (4, 3), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    for kind in ("TIFF", "JPEG"):
        assert np.abs(pixels(encoded(ink, kind)).astype(int) - RED).max() <= 3


def test_transparent_pixels_are_composited_on_black():
    image = Image.new("RGBA", (4, 2), (*RED, 255))
    image.putpixel((0, 0), (255, 255, 255, 0))
    image.putpixel((1, 0), (200, 100, 50, 128))
    found = pixels(encoded(image))
    assert tuple(found[0, 0]) == BLACK
    np.testing.assert_allclose(found[0, 1], np.array([200, 100, 50]) * 128 / 255, atol=1)
    assert tuple(found[1, 3]) == RED
    gray = Image.new("LA", (2, 1), (90, 255))
    gray.putpixel((0, 0), (90, 0))
    assert pixels(encoded(gray)).tolist() == [[[0, 0, 0], [90, 90, 90]]]


def test_palette_with_a_transparent_colour():
    image = Image.new("P", (2, 1), 1)
    image.putpalette([10, 200, 10, *RED])
    image.putpixel((0, 0), 0)
    for kind in ("PNG", "GIF"):
        assert pixels(encoded(image, kind)).tolist() == [[[10, 200, 10], [*RED]]]
        assert pixels(encoded(image, kind, transparency=0)).tolist() == [[[*BLACK], [*RED]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_cut_off(kind):
    values = np.array([[0, 255, 256, 0x1234, 0x80FF, 0xFFFF]], dtype=np.uint16)
    found = pixels(encoded(Image.fromarray(values), kind))
    assert found[0, :, 0].tolist() == [0, 0, 1, 0x12, 0x80, 255]
    assert (found == found[..., :1]).all()
    assert look(encoded(Image.fromarray(values), kind)).kinds == ("16-bit",)


def png(width: int, height: int, *, depth: int, colour: int, data: bytes) -> bytes:
    """Return a PNG of raw rows, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_16_bit_colours_are_scaled_alike():
    row = b"\0" + struct.pack(">6H", 0x1234, 255, 0xFFFF, 0x80FF, 0, 256)
    found = pixels(png(2, 1, depth=16, colour=2, data=row))
    assert found.tolist() == [[[0x12, 0, 255], [0x80, 0, 1]]]


def test_32_bit_values_need_a_range():
    within = Image.fromarray(np.array([[0, 65535, 0x1234]], dtype=np.int32))
    assert pixels(encoded(within, "TIFF"))[0, :, 0].tolist() == [0, 255, 0x12]
    beyond = Image.fromarray(np.array([[0, 65536]], dtype=np.int32))
    assert look(encoded(beyond, "TIFF")).reason == "values 0 to 65536, expected 0 to 65535"
    floats = Image.fromarray(np.ones((2, 2), dtype=np.float32))
    assert "no known range" in look(encoded(floats, "TIFF")).reason


# What is stored, by orientation, of an image that is [[1, 2, 3], [4, 5, 6]] upright.
STORED = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[3, 6], [2, 5], [1, 4]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[4, 1], [5, 2], [6, 3]],
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_turned_upright(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.array(STORED[orientation], dtype=np.uint8))
    assert pixels(encoded(stored, kind, exif=exif))[..., 0].tolist() == STORED[1]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_harms_no_pixels():
    content = encoded(
        Image.fromarray(noise(8, 6, 3)), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"
    )
    np.testing.assert_array_equal(pixels(content), np.asarray(Image.open(BytesIO(content))))


def test_one_pixel_becomes_one_colour(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(Image.new("RGB", (1, 1), (1, 2, 3))))
    found = decode(str(tmp_path / "a.png"), height=5, width=4)
    assert found.shape == (5, 4, 3)
    assert (found == (1, 2, 3)).all()


def test_zero_bytes_text_and_missing_files_have_reasons(tmp_path):
    assert look(b"").reason == "zero bytes"
    assert look(b"no image").reason == "no image format is recognised"
    assert why_not(str(tmp_path / "a.png")) == "No such file or directory"
    (tmp_path / "a.png").write_bytes(b"")
    assert decode(str(tmp_path / "a.png"), height=5, width=4) == "zero bytes"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_cut_files_give_nothing_of_their_half(kind):
    content = encoded(Image.fromarray(noise(60, 40, 3)), kind)
    assert look(content).reason == ""
    assert look(content[: len(content) // 2]).reason


def test_an_image_over_the_limit_is_refused_before_it_is_decoded():
    undecodable = b"these rows are not compressed at all"
    wide = png(2**13, 2**12 + 1, depth=1, colour=0, data=b"").replace(
        zlib.compress(b""), undecodable
    )
    looked = look(wide)
    assert looked.reason == f"over {MAX_PIXELS} pixels (8192 x 4097)"
    assert (looked.image, looked.height, looked.width) == (None, 4097, 8192)
    content = encoded(Image.fromarray(noise(6, 4, 3)))
    assert look(content, max_pixels=24).reason == ""
    assert look(content, max_pixels=23).reason == "over 23 pixels (4 x 6)"
