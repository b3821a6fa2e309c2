"""k-means and exhaustive search of FAISS, to compare with. The only file that imports faiss.

Legend: N rows, D feature dimensions, K centres, k neighbours.
"""

import faiss
import numpy as np
from jaxtyping import Float32, Int64


def faiss_kmeans(
    rows: Float32[np.ndarray, "N D"], centers: Float32[np.ndarray, "K D"], *, iterations: int
) -> Float32[np.ndarray, "K D"]:
    """Return the centres (K,D) after some of Lloyd's iterations on the CPU, from given ones.

    All rows take part; FAISS samples 256 a centre unless told otherwise.
    """
    num_centers, num_features = centers.shape
    search = faiss.Kmeans(
        num_features,
        num_centers,
        niter=iterations,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    search.train(rows, init_centroids=centers)
    return np.asarray(search.centroids)


def exhaustive_search(
    rows: Float32[np.ndarray, "N D"], k: int
) -> tuple[Float32[np.ndarray, "N k"], Int64[np.ndarray, "N k"]]:
    """Return squared distances and indices (N,k) of each row's nearest by the CPU's flat index."""
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    distances, indices = index.search(rows, k)
    return distances, indices
