"""Nearest neighbours by FAISS, on the GPU when FAISS sees one. The only file that imports faiss.

Legend: n rows, D feature dimensions, K centres.
"""

import threading
from functools import cache
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32, Int64

from reid.clustering.shards import BLOCK

# FAISS's GPU resources own one scratch memory and serve one search at a time.
_gpu_lock = threading.Lock()


@cache
def _gpu_resources() -> Any:
    return faiss.StandardGpuResources()


def _search(
    queries: Float32[np.ndarray, "n D"], rows: Float32[np.ndarray, "K D"], k: int
) -> tuple[Float32[np.ndarray, "n k"], Int64[np.ndarray, "n k"]]:
    if faiss.get_num_gpus() == 0:
        distances, indices = faiss.knn(queries, rows, k)
    else:
        with _gpu_lock:
            distances, indices = faiss.knn_gpu(_gpu_resources(), queries, rows, k)
    return distances, indices


def nearest_centers(
    rows: Float32[np.ndarray, "n D"], centers: Float32[np.ndarray, "K D"]
) -> Int64[np.ndarray, "n"]:
    """Return for each row the index of the closest centre in squared L2 distance.

    Equal distances (in float32, as FAISS computes them) go to the lowest index. The search runs in
    blocks of `BLOCK` rows from the first row on: FAISS takes another kernel for few queries, and
    with fixed blocks a row meets the same one however the table is split.
    """
    labels = np.empty(len(rows), dtype=np.int64)
    for low in range(0, len(rows), BLOCK):
        labels[low : low + BLOCK] = _search(rows[low : low + BLOCK], centers, 1)[1][:, 0]
    return labels


def exhaustive_search(
    rows: Float32[np.ndarray, "n D"], k: int
) -> tuple[Float32[np.ndarray, "n k"], Int64[np.ndarray, "n k"]]:
    """Return FAISS's k nearest rows of each row by its flat index on the CPU, for comparisons."""
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    distances, indices = index.search(rows, k)
    return distances, indices
