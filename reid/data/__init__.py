"""From image files to batches: pixels decoded once, rows drawn purely, batches augmented whole."""

from reid.data.augment import AugmentConfig, AugmentParams, apply, draw, normalise
from reid.data.decoding import UndecodableImages
from reid.data.pixel_store import PixelStore, open_pixels
from reid.data.samplers import PKIndex, pk_index, pk_rows, random_rows
from reid.data.steps import AugmentedDraw, Draw, ImageStore, Table
from reid.data.torch_loader import read_batches, torch_loader

__all__ = [
    "AugmentConfig",
    "AugmentParams",
    "AugmentedDraw",
    "Draw",
    "ImageStore",
    "PKIndex",
    "PixelStore",
    "Table",
    "UndecodableImages",
    "apply",
    "draw",
    "normalise",
    "open_pixels",
    "pk_index",
    "pk_rows",
    "random_rows",
    "read_batches",
    "torch_loader",
]
