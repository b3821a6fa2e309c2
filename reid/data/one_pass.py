"""Crop, grey, normalise and erase on the CPU in one pass: an image stays in the processor's cache.

Legend: b images, H height, W width, L = 3W bytes of a row of pixels.
"""

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from reid.compiled import compiled
from reid.data.patches import GREY_WEIGHTS

_RED, _GREEN, _BLUE = (np.uint32(weight) for weight in GREY_WEIGHTS)
_HALF, _BITS = np.uint32(1 << 15), np.uint32(16)


@compiled
def one_pass(  # noqa: PLR0912 (one compiled function calls no other)
    images: UInt8[np.ndarray, "b H L"],
    flip: Bool[np.ndarray, "b"],
    offset: Int64[np.ndarray, "b 2"],
    pad: int,
    is_zero_padded: bool,
    grey_box: Int64[np.ndarray, "b 4"],
    erase_box: Int64[np.ndarray, "b 4"],
    scale: Float32[np.ndarray, "L"],
    shift: Float32[np.ndarray, "L"],
    fill: Float32[np.ndarray, "L"],
    result: Float32[np.ndarray, "b H L"],
) -> None:
    """Write images mirrored, padded and cropped, one box grey, times scale plus shift, one erased.

    Bit-equal to the tensor operations of `augment.apply`.
    """
    # Innermost loops run from 0 over slices of rows, and backwards by unsigned numbers: only where
    # no index can be negative does the compiler make vector instructions of them.
    batch, height, length = images.shape
    width = length // 3
    pixels = np.empty((height, length), np.uint8)
    for image in range(batch):
        first = offset[image, 1] - pad
        begin = min(max(0, -first), width)  # columns begin..end are inside the image
        end = max(begin, min(width, width - first))
        left_edge, right_edge = (length - 3, 0) if flip[image] else (0, length - 3)
        for y in range(height):
            inside = y + offset[image, 0] - pad
            above = images[image, min(max(inside, 0), height - 1)]
            row = pixels[y, 3 * begin : 3 * end]
            if flip[image]:
                part = above[3 * (width - end - first) : 3 * (width - begin - first)]
                for x in range(end - begin):
                    pixel = np.uint64(len(part) - 3) - np.uint64(3 * x)
                    row[3 * x] = part[pixel]
                    row[3 * x + 1] = part[pixel + np.uint64(1)]
                    row[3 * x + 2] = part[pixel + np.uint64(2)]
            else:
                part = above[3 * (begin + first) : 3 * (end + first)]
                for byte in range(len(row)):
                    row[byte] = part[byte]
            if is_zero_padded:
                pixels[y, : 3 * begin] = 0
                pixels[y, 3 * end :] = 0
                if not 0 <= inside < height:
                    row[:] = 0
            else:
                for byte in range(3 * begin):
                    pixels[y, byte] = above[left_edge + byte % 3]
                for byte in range(length - 3 * end):
                    pixels[y, 3 * end + byte] = above[right_edge + byte % 3]
        top, left, box_height, box_width = grey_box[image]
        for y in range(top, top + box_height):
            row = pixels[y, 3 * left : 3 * (left + box_width)]
            for x in range(box_width):
                red, green, blue = row[3 * x], row[3 * x + 1], row[3 * x + 2]
                luma = (_RED * red + _GREEN * green + _BLUE * blue + _HALF) >> _BITS
                row[3 * x] = row[3 * x + 1] = row[3 * x + 2] = luma
        for y in range(height):
            for byte in range(length):
                result[image, y, byte] = np.float32(pixels[y, byte]) * scale[byte] + shift[byte]
        top, left, box_height, box_width = erase_box[image]
        for y in range(top, top + box_height):
            erased = result[image, y, 3 * left : 3 * (left + box_width)]
            for byte in range(len(erased)):
                erased[byte] = fill[byte]
