"""How much an algorithm does: operations, bytes and messages as functions of the sizes alone.

A fused multiply and add counts as two operations, as in data sheets. The formulas are those of the
performance study (section 4, "Limit"); nothing here knows a machine.

Legend: N rows, d feature dimensions, K clusters, L candidates.
"""

import math

SEEDING_BLOCK = 64
"""centres that greedy k-means++ draws from one reading of the rows"""
PARALLEL_ROUNDS, PARALLEL_OVERSAMPLING = 5, 2
"""k-means||: rounds, and rows drawn in each as a multiple of K (Bahmani et al. 2012)"""
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


def seeding_flops(num_rows: float, num_features: int, num_clusters: float) -> float:
    """Return what greedy k-means++ takes: 2 N d K L, with L = 2 + int(ln K) candidates a centre."""
    return 2 * num_rows * num_features * num_clusters * (2 + int(math.log(num_clusters)))


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


def neighbor_flops(num_rows: float, num_features: int) -> float:
    """Return what all distances between rows take: 2 N^2 d."""
    return 2 * num_rows**2 * num_features


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
