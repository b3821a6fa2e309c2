"""How much an algorithm does: operations, bytes and messages as functions of the sizes alone.

A fused multiply and add counts as two operations, as in data sheets. The formulas are those of the
performance study (section 4, "Limit"); nothing here knows a machine.

Legend: N rows, d feature dimensions, K clusters, L candidates of a centre.
"""

import math

SEEDING_CANDIDATES = 512
"""candidates that greedy k-means++ draws, and the rows meet, at a time"""
PARALLEL_ROUNDS, PARALLEL_OVERSAMPLING = 3, 1
"""k-means||: rounds, and rows drawn in each as a multiple of K"""
TILE = 1024
"""rows of a tile of the search for neighbours"""
MEASURED_ITERATIONS, MEASURED_K1 = 5, 30
"""of the scale study"""
PROBED_CELLS = 32
"""cells whose rows a row is compared with by an inverted file"""
ENTRIES_PER_NEIGHBOR = 3
"""entries of a row's expanded k-reciprocal vector as a multiple of k1 (40 to 90 at k1 = 30)"""
SPARSE_ENTRY_BYTES = 8
"""a column number and a value"""

FORWARD_GMACS = {
    "resnet18": 1.99,
    "resnet34": 3.65,
    "resnet50": 4.05,
    "resnet101": 6.48,
    "resnet152": 8.90,
}
"""billions of multiplications and additions of one image of 256 x 128, last stride 1"""


def extraction_flops(num_images: float, backbone: str, *, height: int, width: int) -> float:
    """Return what the features of images and their mirrors take."""
    macs = FORWARD_GMACS[backbone] * 1e9 * height * width / (256 * 128)
    return num_images * 2 * 2 * macs


def num_trials(num_clusters: float) -> int:
    """Return how many candidates compete for a centre: L = 2 + int(ln K)."""
    return 2 + int(math.log(num_clusters))


def seeding_flops(num_rows: float, num_features: int, num_clusters: float) -> float:
    """Return what greedy k-means++ takes: 2 N d K L."""
    return 2 * num_rows * num_features * num_clusters * num_trials(num_clusters)


def seeding_blocks(num_clusters: float) -> float:
    """Return how many times greedy k-means++ draws candidates; the first few draws are small."""
    trials = num_trials(num_clusters)
    most = SEEDING_CANDIDATES / trials  # centres from one draw
    doublings = math.log2(max(min(most, num_clusters) / 2, 1))
    return 1 + doublings + num_clusters / most


def seeding_messages(num_clusters: float) -> float:
    """Return the exchanges of greedy k-means++: one a centre, three a draw (count, draw, meet)."""
    return num_clusters + 3 * seeding_blocks(num_clusters)


def parallel_seeding_messages(num_clusters: float) -> float:
    """Return the exchanges of k-means||, whose choice among its candidates is a greedy one."""
    return 3 * (PARALLEL_ROUNDS + 2) + seeding_messages(num_clusters)


def lloyd_messages(iterations: float) -> float:
    """Return the exchanges of Lloyd's iterations, with the two ends."""
    return iterations + 3


def hierarchy_messages(num_clusters: float) -> tuple[float, float]:
    """Return the exchanges of seeding both levels, a cell at a time, and of an iteration of all."""
    coarse, part = hierarchy(num_clusters)
    seeding = seeding_messages(coarse) + coarse * (2 + seeding_messages(part) + lloyd_messages(0))
    return seeding, 1 + coarse


def lloyd_flops(num_rows: float, num_features: int, num_clusters: float) -> float:
    """Return what one assignment of rows to centres takes: 2 N d K."""
    return 2 * num_rows * num_features * num_clusters


def parallel_seeding_flops(num_rows: float, num_features: int, num_clusters: float) -> float:
    """Return what k-means|| takes: its candidates' distances, and greedy seeding among these."""
    candidates = PARALLEL_ROUNDS * PARALLEL_OVERSAMPLING * num_clusters
    distances = lloyd_flops(num_rows, num_features, candidates)
    return distances + seeding_flops(candidates, num_features, num_clusters)


def hierarchy(num_clusters: float) -> tuple[float, float]:
    """Return (coarse clusters, clusters in each) of a hierarchy of two levels: both sqrt K."""
    coarse = float(round(math.sqrt(num_clusters)))
    return coarse, num_clusters / coarse


def hierarchy_seeding_flops(num_rows: float, num_features: int, num_clusters: float) -> float:
    """Return what seeding both levels takes: each row is seen by one cell of the second."""
    return sum(seeding_flops(num_rows, num_features, part) for part in hierarchy(num_clusters))


def hierarchy_lloyd_flops(num_rows: float, num_features: int, num_clusters: float) -> float:
    """Return what an iteration of both levels takes: 2 N d (K1 + K / K1)."""
    return lloyd_flops(num_rows, num_features, sum(hierarchy(num_clusters)))


def hierarchy_unit_flops(num_rows: float, num_features: int, num_clusters: float) -> float:
    """Return what the hierarchy of the scale study takes: seeds and a few iterations."""
    size = (num_rows, num_features, num_clusters)
    return hierarchy_seeding_flops(*size) + MEASURED_ITERATIONS * hierarchy_lloyd_flops(*size)


def neighbor_flops(num_rows: float, num_features: int) -> float:
    """Return what all distances between rows take: 2 N^2 d."""
    return 2 * num_rows**2 * num_features


def neighbor_share(num_shards: float) -> float:
    """Return the share of these that shards work out: each pair once on a shard, twice across."""
    return 1 - 0.5 / num_shards


def neighbor_messages(num_rows: float, num_shards: float) -> float:
    """Return the exchanges of the search: every tile is compared, measured, and handed out."""
    tiles = num_rows / TILE
    return 8 + 2 * (tiles + tiles / num_shards)


def probed_flops(num_rows: float, num_features: int) -> float:
    """Return what distances to sqrt N cells and to the rows of a few of them take."""
    cells = math.sqrt(num_rows)
    return 2 * num_rows * num_features * (cells + PROBED_CELLS * num_rows / cells)


def jaccard_entries(num_rows: float, k1: int) -> float:
    """Return the stored entries of all expanded k-reciprocal vectors."""
    return num_rows * ENTRIES_PER_NEIGHBOR * k1


def jaccard_adds(num_rows: float, k1: int) -> float:
    """Return the additions of minima that sparse Jaccard distances take: N (entries a row)^2."""
    return num_rows * (ENTRIES_PER_NEIGHBOR * k1) ** 2


def feature_bytes(num_rows: float, num_features: int, number_bytes: int) -> float:
    """Return what a feature matrix takes."""
    return num_rows * num_features * number_bytes


def pixel_bytes(num_images: float, *, height: int, width: int) -> float:
    """Return what decoded images take, three bytes a pixel."""
    return num_images * height * width * 3
