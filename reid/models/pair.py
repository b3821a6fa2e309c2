"""Two networks as one module: MMT's two students, or its two mean teachers.

Legend: B images, H x W pixels.
"""

from typing import Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from reid.models.network import NetOutput

Net = TypeVar("Net", bound=nn.Module)


class NetPair(nn.Module, Generic[Net]):
    """Two networks of one architecture, each with a view of the images of its own.

    One module, so that one optimizer, one distributed wrapper and one `ema_update` serve both.
    """

    def __init__(self, first: Net, second: Net) -> None:
        super().__init__()
        self.first: Net = first
        self.second: Net = second

    @property
    def nets(self) -> tuple[Net, Net]:
        """Return both networks."""
        return self.first, self.second

    def forward(
        self, images: Float[Tensor, "B 3 H W"], second_images: Float[Tensor, "B 3 H W"]
    ) -> tuple[NetOutput, NetOutput]:
        """Return the first network's output of `images`, the second's of `second_images`."""
        return self.first(images), self.second(second_images)
