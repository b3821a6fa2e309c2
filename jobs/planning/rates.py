"""How fast hardware is: the only numbers of `jobs.plan` that come from measuring or data sheets.

Every figure says what it is: M measured (by the performance study on one core of a Sapphire
Rapids, unless said), D from a data sheet, E an estimate. Those of the GPU suppose that distances
between rows and centres are worked out there; none of them has been measured.
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
class Factor:
    """How a time depends on one size: as (size / middle)^exponent.

    `error` is the standard error of the fitted exponent, `largest` the largest measured size. From
    there on the exponent is at least `counted`, that of the operations: what small sizes hide in
    fixed costs, large ones pay.
    """

    middle: float
    exponent: float
    error: float
    largest: float
    counted: float

    def __call__(self, size: float) -> float:
        """Return by how much a size differs from the middle."""
        inside = min(size, self.largest)
        outside = (size / inside) ** max(self.exponent, self.counted)
        return float((inside / self.middle) ** self.exponent * outside)


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """Seconds of one processor core for a whole table, fitted: `seconds` at all middles."""

    seconds: float
    rows: Factor
    features: Factor
    clusters: Factor | None = None

    def _factors(self, rows: float, features: float, clusters: float) -> list[tuple[Factor, float]]:
        found = [(self.rows, rows), (self.features, features)]
        return [*found, (self.clusters, clusters)] if self.clusters else found

    def __call__(self, rows: float, features: float, clusters: float) -> float:
        """Return the seconds of a size."""
        seconds = self.seconds
        for factor, size in self._factors(rows, features, clusters):
            seconds *= factor(size)
        return seconds

    def beyond(self, rows: float, features: float, clusters: float) -> float:
        """Return how many times beyond the largest measured one a size is, 1 if it is not."""
        sizes = self._factors(rows, features, clusters)
        return max(1.0, *(size / factor.largest for factor, size in sizes))


@dataclass(frozen=True, kw_only=True)
class Device:
    """One GPU or one processor core."""

    name: str
    extraction: Law
    greedy: Law | PowerLaw
    parallel: Law | PowerLaw
    lloyd: Law | PowerLaw
    hierarchy: Law | PowerLaw
    memory_bytes_per_s: float
    """reading features where they fit beside the device"""


_MARKET, _DIMENSIONS = 12_936, 2048  # where the study measured

# M by `python -m jobs.benchmark scale`: processor seconds of one shard. The lines down to the end
# mark are what `python -m jobs.benchmarks.scale FILE` prints; docs/scale.md says more.

MEASURED_ON = "AMD EPYC, 1 core, 2026-11-21, commit 32eb7c2"
GREEDY_CORE = PowerLaw(
    seconds=2.46,
    rows=Factor(middle=82400.0, exponent=0.973, error=0.038, largest=1000000, counted=1),
    features=Factor(middle=485.0, exponent=0.609, error=0.052, largest=2048, counted=1),
    clusters=Factor(middle=473.0, exponent=0.776, error=0.042, largest=10000, counted=1),
)
PARALLEL_CORE = PowerLaw(
    seconds=0.851,
    rows=Factor(middle=82400.0, exponent=0.874, error=0.051, largest=1000000, counted=1),
    features=Factor(middle=485.0, exponent=0.628, error=0.069, largest=2048, counted=1),
    clusters=Factor(middle=473.0, exponent=0.912, error=0.056, largest=10000, counted=1),
)
LLOYD_CORE = PowerLaw(
    seconds=0.301,
    rows=Factor(middle=82400.0, exponent=1.024, error=0.033, largest=1000000, counted=1),
    features=Factor(middle=485.0, exponent=0.722, error=0.045, largest=2048, counted=1),
    clusters=Factor(middle=473.0, exponent=0.635, error=0.036, largest=10000, counted=1),
)
HIERARCHY_CORE = PowerLaw(
    seconds=3.31,
    rows=Factor(middle=79600.0, exponent=0.858, error=0.057, largest=1000000, counted=1),
    features=Factor(middle=545.0, exponent=0.535, error=0.034, largest=2048, counted=1),
    clusters=Factor(middle=3900.0, exponent=0.272, error=0.051, largest=50000, counted=0.5),
)
NEIGHBORS_CORE = PowerLaw(
    seconds=4.21,
    rows=Factor(middle=24600.0, exponent=1.786, error=0.024, largest=100000, counted=2),
    features=Factor(middle=588.0, exponent=0.573, error=0.02, largest=2048, counted=1),
)
JACCARD_CORE = PowerLaw(
    seconds=0.768,
    rows=Factor(middle=24600.0, exponent=1.445, error=0.037, largest=100000, counted=1),
    features=Factor(middle=588.0, exponent=0.059, error=0.031, largest=2048, counted=0),
)
# end of what was measured

_H200_MATMUL = Law(work=0.4 * 989e12)  # D bf16 dense x E share reached in distance tiles

H200 = Device(
    name="NVIDIA H200",
    # E: 15,000 to 25,000 forward passes of ResNet-50 a second
    extraction=Law(work=work.extraction_flops(20_000 / 2, "resnet50", height=256, width=128)),
    greedy=_H200_MATMUL,
    parallel=_H200_MATMUL,
    lloyd=_H200_MATMUL,
    hierarchy=_H200_MATMUL,
    memory_bytes_per_s=4.8e12,  # D
)

CPU_CORE = Device(
    name="processor core",
    # M: the images of Market-1501 with mirrors in 4.2 minutes on two cores, bf16
    extraction=Law(
        work=work.extraction_flops(_MARKET, "resnet50", height=256, width=128), seconds=2 * 252
    ),
    greedy=GREEDY_CORE,
    parallel=PARALLEL_CORE,
    lloyd=LLOYD_CORE,
    hierarchy=HIERARCHY_CORE,
    memory_bytes_per_s=14e9,  # M
)

DISTANCES_CORE = Law(work=work.neighbor_flops(_MARKET, _DIMENSIONS), seconds=5.03)
"""M: all distances in float32, by FAISS"""
EXCHANGE_S_PER_ACTOR = 0.06e-3
"""M: 0.24 ms among four actors; E: rank 0 speaks with each in turn, so it grows as their number"""
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
