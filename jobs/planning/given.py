"""What an estimate is asked for: a workload and a fleet."""

import math
from dataclasses import dataclass
from typing import Literal

from jobs.planning import rates, work
from jobs.planning.rates import Device

Place = Literal["gpu", "host", "files"]
"""where features lie: GPU memory, host memory, memory-mapped files"""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is to be clustered, and how its features are stored."""

    num_images: int
    num_features: int
    num_clusters: int
    number_bytes: int = 4
    num_views: int = 1
    iterations: int = 20
    k1: int = 30
    backbone: str = "resnet50"
    height: int = 256
    width: int = 128

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be clustered."""
        for name in ("num_features", "num_views", "iterations", "k1", "height", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_images < 2:
            raise ValueError(f"there are {self.num_images} images; a clustering takes at least 2")
        if not 2 <= self.num_clusters <= self.num_images:
            raise ValueError(
                f"there are to be {self.num_clusters} clusters; choose from 2 to the "
                f"{self.num_images} images"
            )

    @property
    def view_bytes(self) -> float:
        """The features of one view."""
        return work.feature_bytes(self.num_images, self.num_features, self.number_bytes)

    @property
    def all_bytes(self) -> float:
        """The features of all views."""
        return self.num_views * self.view_bytes

    @property
    def pixel_bytes(self) -> float:
        """The decoded images."""
        return work.pixel_bytes(self.num_images, height=self.height, width=self.width)


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What it runs on. Memory in bytes, of one GPU and of one node; 0 GPUs: the cores do it all."""

    num_gpus: int
    num_nodes: int
    cores_per_node: int
    gpu_memory: float
    host_memory: float

    def __post_init__(self) -> None:
        """Refuse fleets that are none."""
        if self.num_gpus < 0:
            raise ValueError(f"there are {self.num_gpus} GPUs; give 0 (processors only) or more")
        if self.num_nodes < 1 or self.cores_per_node < 1:
            raise ValueError(
                f"there are {self.num_nodes} nodes of {self.cores_per_node} cores; give at least 1 "
                "of each"
            )
        if not (self.gpu_memory > 0 and self.host_memory > 0):
            raise ValueError(
                f"GPUs have {self.gpu_memory:g} and hosts {self.host_memory:g} bytes of memory; "
                "give more than 0"
            )

    @property
    def device(self) -> Device:
        """What extracts and clusters."""
        return rates.H200 if self.num_gpus else rates.CPU_CORE

    @property
    def num_cores(self) -> int:
        """Processor cores of all nodes."""
        return self.num_nodes * self.cores_per_node

    @property
    def num_devices(self) -> int:
        """How many devices there are."""
        return self.num_gpus or self.num_cores

    @property
    def exchange_s(self) -> float:
        """Seconds of one small exchange among actors, one a device; a single one has none."""
        return rates.EXCHANGE_S_PER_ACTOR * self.num_devices * (self.num_devices > 1)

    @property
    def num_links(self) -> int:
        """Network links: one a GPU, or one a node."""
        return self.num_gpus or self.num_nodes

    def room(self, place: Place) -> float:
        """Return the bytes of features for which a place has room."""
        if place == "gpu":
            return rates.USABLE * self.num_gpus * self.gpu_memory
        return rates.USABLE * self.num_nodes * self.host_memory if place == "host" else math.inf

    def bytes_per_s(self, place: Place) -> float:
        """Return how fast all devices together read features that lie there."""
        if place == "files":
            return rates.DISK_BYTES_PER_S * self.num_nodes
        if place == "host" and self.num_gpus:
            return rates.HOST_LINK_BYTES_PER_S * self.num_gpus
        return self.device.memory_bytes_per_s * self.num_devices
