"""The loader on NVIDIA DALI: decoding, geometry and augmentation in one pipeline, GPU or CPU.

It carries out the plans of `steps.planner`, so both loaders show the same rows, boxes and mirrors.
Geometry, grey patches and erasing are the same numbers as `augment.apply`'s (normalised values to
float32 rounding); images decoded here instead of read from a `PixelStore` differ by the decoder and
by the rounding of the resize. Channels are exchanged by `augment`'s own code after the pipeline.
Colour jitter comes first and has no exact equal in DALI: a view with it leaves the pipeline decoded
and resized, and all its augmentation is `augment.apply` on the same device.

Legend: B images of a batch on one rank, H height, W width.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, types
from torch import Tensor

from reid.data.augment import AugmentConfig, AugmentParams, apply
from reid.data.colour import mix_channels_
from reid.data.encoded_store import EncodedStore
from reid.data.patches import GREY_WEIGHTS
from reid.data.prefetch import Loader
from reid.data.steps import ImageStore, Plan


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """What a pipeline is built for; `number` gives the draws of a step pipelines of their own."""

    number: int
    batch_size: int
    height: int
    width: int
    decodes: bool
    gpu: int | None


def _shape_of(plan: Plan, store: ImageStore, number: int, device: torch.device) -> _Shape:
    gpu = None
    if device.type == "cuda":
        gpu = torch.cuda.current_device() if device.index is None else device.index
    return _Shape(
        number=number,
        batch_size=len(plan.rows),
        height=store.height,
        width=store.width,
        decodes=isinstance(store, EncodedStore),
        gpu=gpu,
    )


class _Pipe:
    """A pipeline; the loader's thread, not DALI, runs ahead, so a closed loader leaves nothing."""

    def __init__(self, shape: _Shape, configs: tuple[AugmentConfig, ...]) -> None:
        self._pipeline = Pipeline(
            batch_size=shape.batch_size,
            num_threads=len(os.sched_getaffinity(0)),
            device_id=shape.gpu,
            exec_dynamic=True,
            prefetch_queue_depth=1,
        )
        with self._pipeline:
            images = _source(shape)
            views = [_graph(images, shape, config, view) for view, config in enumerate(configs)]
            self._pipeline.set_outputs(*views)
        self._pipeline.build()

    def images(self, store: ImageStore, plan: Plan) -> list[Float32[Tensor, "B 3 H W"]]:
        """Return the images of each of a plan's views, channels_last."""
        feed = self._pipeline.feed_input
        if isinstance(store, EncodedStore):
            feed("encoded", store.encoded(plan.rows))
        else:
            feed("pixels", store.read(plan.rows))
        views = list(zip(plan.params, plan.augment, strict=True))
        for view, (params, config) in enumerate(views):
            if not config.colour_jitter:
                feed(f"matrix{view}", _matrix(params, width=store.width, pad=config.pad))
                for name, box in (("grey", params.grey_box), ("erase", params.erase_box)):
                    feed(f"{name}_anchor{view}", box[:, :2].astype(np.float32))
                    feed(f"{name}_shape{view}", box[:, 2:].astype(np.float32))
        outputs = self._pipeline.run()
        return [
            _finish(torch.utils.dlpack.from_dlpack(output.as_tensor()), *view)
            for output, view in zip(outputs, views, strict=True)
        ]


def _finish(output: Tensor, params: AugmentParams, config: AugmentConfig) -> Tensor:
    """Do what DALI leaves of a view."""
    if config.colour_jitter:
        images = apply(output, params, config)
    else:
        images = output.permute(0, 3, 1, 2)
        images = images.clone() if output.is_cuda else images
        mix_channels_(images, params.channel)
    if output.is_cuda:  # DALI writes over the output as soon as it is let go
        torch.cuda.current_stream(output.device).synchronize()
    return images


_pipe = lru_cache(maxsize=16)(_Pipe)


def _matrix(params: AugmentParams, *, width: int, pad: int) -> Float32[NDArray[Any], "B 2 3"]:
    """Return the maps from a result's coordinates to the source's: crop offset, then mirror."""
    down, right = (params.offset - pad).T
    matrix = np.zeros((len(params.flip), 2, 3), dtype=np.float32)
    matrix[:, 0, 0] = np.where(params.flip, -1, 1)
    matrix[:, 0, 2] = np.where(params.flip, width - right, right)
    matrix[:, 1, 1] = 1
    matrix[:, 1, 2] = down
    return matrix


def _source(shape: _Shape) -> Any:
    """Return the node of the images at their size, HWC uint8."""
    if shape.decodes:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        decoded = fn.decoders.image(
            encoded, device="cpu" if shape.gpu is None else "mixed", output_type=types.RGB
        )
        return fn.resize(decoded, size=(shape.height, shape.width), interp_type=types.INTERP_CUBIC)
    images = fn.external_source(name="pixels", layout="HWC", dtype=types.UINT8, ndim=3)
    return images if shape.gpu is None else images.gpu()


def _graph(images: Any, shape: _Shape, config: AugmentConfig, view: int) -> Any:
    """Return the node of a view, HWC float32 in the order of `augment.apply` without its ends."""
    if config.colour_jitter:
        return images

    def source(name: str, ndim: int) -> Any:
        return fn.external_source(name=f"{name}{view}", dtype=types.FLOAT, ndim=ndim)

    images = fn.warp_affine(
        images,
        matrix=source("matrix", 2),
        interp_type=types.INTERP_NN,
        inverse_map=True,
        device="cpu" if shape.gpu is None else "gpu",
        fill_value=None if config.pad_mode == "edge" else 0,  # None repeats the edge
    )
    images = _grey(images, source("grey_anchor", 1), source("grey_shape", 1))
    images = fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="HWC",
        mean=[255 * value for value in config.mean],
        std=[255 * value for value in config.std],
    )
    return fn.erase(
        images,
        anchor=source("erase_anchor", 1),
        shape=source("erase_shape", 1),
        axis_names="HW",
        fill_value=config.erasing_fill,
    )


def _grey(images: Any, anchor: Any, shape: Any) -> Any:
    """Return uint8 images with one box each turned to grey, to the values of Pillow's mode "L"."""
    weights = np.array(GREY_WEIGHTS, dtype=np.int32)
    sums = fn.reductions.sum(images * types.Constant(weights), axes=(2,), keep_dims=True)
    luma = fn.cast((sums + (1 << 15)) // (1 << 16), dtype=types.UINT8)
    outside = fn.erase(images * 0 + 1, anchor=anchor, shape=shape, axis_names="HW", fill_value=0)
    return fn.cast(images * outside + luma * (1 - outside), dtype=types.UINT8)


def _images(
    plan: Plan, store: ImageStore, number: int, device: torch.device
) -> list[Float32[Tensor, "B 3 H W"]]:
    return _pipe(_shape_of(plan, store, number, device), plan.augment).images(store, plan)


dali_loader = Loader(_images)
"""The loader whose pipelines live as long as the process: a round only brings other plans.

Images are decoded by DALI where a table's store is an `EncodedStore`, on the GPU when `device` is
one.
"""
