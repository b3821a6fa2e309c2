"""How fast hardware is: the only numbers of `jobs.plan` that come from measuring or data sheets.

Every figure says what it is: M measured by the performance study (Sapphire Rapids with AMX, one
core unless said), D from a data sheet, E an estimate. A new measurement replaces a `Law`. Those of
the GPU suppose that its distances between rows and centres are worked out there.
"""

from dataclasses import dataclass

from jobs.planning import work


@dataclass(frozen=True, kw_only=True)
class Law:
    """Seconds that one device takes: `seconds` for `work` operations, growing as work^exponent."""

    work: float
    seconds: float = 1.0
    exponent: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no machine does."""
        if self.work <= 0 or self.seconds <= 0 or self.exponent <= 0:
            raise ValueError(f"{self}: work, seconds and exponent must be above 0")

    def __call__(self, amount: float) -> float:
        """Return the seconds of some work."""
        return float(self.seconds * (amount / self.work) ** self.exponent)


@dataclass(frozen=True, kw_only=True)
class Device:
    """One GPU or one processor core."""

    name: str
    extraction: Law
    seeding: Law
    lloyd: Law
    neighbors: Law
    memory_bytes_per_s: float
    """reading features where they fit beside the device"""
    exchange_s: float
    """one small all-gather among the devices that cluster"""


_MARKET, _DIMENSIONS, _CLUSTERS = 12_936, 2048, 700  # where the study measured
_MSMT17, _K1 = 32_621, 30

_H200_MATMUL = Law(work=0.4 * 989e12)  # D bf16 dense x E share reached in distance tiles

H200 = Device(
    name="NVIDIA H200",
    # E: 15,000 to 25,000 forward passes of ResNet-50 a second
    extraction=Law(work=work.extraction_flops(20_000 / 2, "resnet50", height=256, width=128)),
    seeding=_H200_MATMUL,
    lloyd=_H200_MATMUL,
    neighbors=_H200_MATMUL,
    memory_bytes_per_s=4.8e12,  # D
    exchange_s=30e-6,  # E: a small all-reduce of NCCL
)

CPU_CORE = Device(
    name="processor core",
    # M: the images of Market-1501 with mirrors in 4.2 minutes on two cores, bf16
    extraction=Law(
        work=work.extraction_flops(_MARKET, "resnet50", height=256, width=128), seconds=2 * 252
    ),
    seeding=Law(work=work.seeding_flops(_MARKET, _DIMENSIONS, _CLUSTERS), seconds=3.3),  # M fp32
    lloyd=Law(work=work.lloyd_flops(_MARKET, _DIMENSIONS, _CLUSTERS), seconds=0.30),  # M fp32
    neighbors=Law(work=work.neighbor_flops(_MARKET, _DIMENSIONS), seconds=5.03),  # M FAISS, flat
    memory_bytes_per_s=14e9,  # M
    exchange_s=0.3e-3,  # the target of the actors' own process group (gloo)
)

JACCARD_CORE = Law(work=work.jaccard_adds(_MSMT17, _K1), seconds=5.5)
"""M: k-reciprocal vectors and sparse Jaccard distances of MSMT17, on one core"""
DECODED_IMAGES_PER_S = 3500.0
"""M: JPEGs of 344 x 136 that one core decodes"""
DISK_BYTES_PER_S = 6e9
"""E: local NVMe of a node, reading"""
HOST_LINK_BYTES_PER_S = 55e9
"""D: host memory to one GPU, PCIe 5 x16"""
NETWORK_BYTES_PER_S = 50e9
"""D: one 400 Gb/s link, of each GPU, or of each node without GPUs"""
USABLE = 0.8
"""E: share of a memory that features may fill; the rest is work space"""
