"""Made features that clustering is measured on.

Legend: N rows, D feature dimensions.
"""

import numpy as np
from jaxtyping import Float32


def made_features(
    num_rows: int,
    num_features: int,
    *,
    seed: int = 0,
    rank: int = 128,
    num_cameras: int = 6,
    camera_shift: float = 0.7,
    spread: float = 1.25,
    noise: float = 0.35,
) -> Float32[np.ndarray, "N D"]:
    """Return unit rows (N,D) as networks make them: identities of low rank, shifted by camera.

    17 images of an identity on average (Market-1501 has as many), in no order; `spread` within an
    identity, in the same few dimensions, varies among images, `noise` is in all dimensions.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    num_identities = max(1, num_rows // 17)
    identity = rng.integers(num_identities, size=num_rows)
    camera = rng.integers(num_cameras, size=num_rows)
    latent = rng.normal(size=(num_identities, rank))[identity]
    latent += camera_shift * rng.normal(size=(num_cameras, rank))[camera]
    latent += spread * rng.uniform(0.5, 1.5, (num_rows, 1)) * rng.normal(size=(num_rows, rank))
    axes = rng.normal(size=(rank, num_features)) / np.sqrt(rank)
    features: Float32[np.ndarray, "N D"] = latent.astype(np.float32) @ axes.astype(np.float32)
    for low in range(0, num_rows, 1024):
        rows = features[low : low + 1024]
        rows += noise * rng.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return features
