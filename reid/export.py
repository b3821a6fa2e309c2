"""A recipe's embedding as one module of plain tensors, for `torch.export` and whoever uses it next.

Legend: B images, H height, W width, E dimensions of the embedding.
"""

from typing import Any

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from reid.data.augment import IMAGENET_MEAN, IMAGENET_STD
from reid.recipes.contract import Recipe, RunConfig


def preprocessing(config: RunConfig) -> dict[str, Any]:
    """Return what has to be done to an image file before `embedding`, and what it does itself."""
    return {
        "height": config.height,
        "width": config.width,
        "resize": "Pillow bicubic with antialiasing, whole image, aspect not kept",
        "input": "uint8 (B, height, width, 3), RGB, 0..255",
        "inside the model": {
            "scale": 1 / 255,
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "mirror averaging": True,
            "precision": "float32",
        },
        "output": "float32 (B, E), unit length; compare by Euclidean or cosine distance",
    }


def embedding(recipe: Recipe) -> nn.Module:
    """Return a module: images (B,H,W,3) uint8 RGB -> what retrieval compares, (B,E) float32.

    It holds what of the networks the embedding uses (a teacher, say, without its student and the
    classifiers), normalises by ImageNet's mean and standard deviation, averages with the mirror
    image, and computes in float32. The recipe's networks are switched to evaluation.
    """
    recipe.networks.eval()
    config = recipe.config
    whole = _Whole(recipe)
    with torch.no_grad(), _Seen() as seen:
        whole(torch.zeros((2, config.height, config.width, 3), dtype=torch.uint8))
    return _Flat(whole, seen.tensors).eval()


class _Whole(nn.Module):
    """All of a recipe, from pixels to embedding."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.networks = recipe.networks
        self._embed = recipe.embed
        # In float64, then rounded, as `normalise` has it: the same bits.
        std = torch.tensor(IMAGENET_STD, dtype=torch.float64).view(3, 1, 1)
        mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64).view(3, 1, 1)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("shift", (-mean / std).float())

    def forward(self, images: UInt8[Tensor, "B H W 3"]) -> Float32[Tensor, "B E"]:
        pixels = images.permute(0, 3, 1, 2).float()
        return self._embed(pixels * self.scale + self.shift)


class _Seen(TorchFunctionMode):
    """Notes which tensors functions are called with."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                self.tensors[id(value)] = value  # kept, so that no other gets its id
        return func(*args, **(kwargs or {}))


class _Flat(nn.Module):
    """A module over some of another's tensors, under names that are Python's.

    torch.export writes the names of modules into code, where a part called `global` cannot stand.
    """

    def __init__(self, whole: nn.Module, used: dict[int, Tensor]) -> None:
        super().__init__()
        self._whole = (whole,)  # in a tuple, so that its tensors are not this module's as well
        self._names: dict[str, str] = {}
        for name, value in whole.state_dict(keep_vars=True).items():
            if id(value) in used:
                self._names[name] = f"tensor_{len(self._names)}"
                self.register_buffer(self._names[name], value.detach())

    def forward(self, images: UInt8[Tensor, "B H W 3"]) -> Float32[Tensor, "B E"]:
        tensors = {name: getattr(self, mine) for name, mine in self._names.items()}
        out: Tensor = functional_call(self._whole[0], tensors, (images,))
        return out
