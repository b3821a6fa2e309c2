"""Which images of a table decode, found once and remembered, for tables that may leave some out.

A row's number is an image's identity everywhere, so images are left out here, before there is a
table of pixels to number.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from reid.data import files
from reid.data.decoding import MAX_PIXELS, POLICY, why_not

_BLOCK = 256  # images between two calls of `progress`


def undecodable(
    paths: Shaped[np.ndarray, "N"],
    *,
    cache_dir: str | Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, str]:
    """Return the rows of `paths` (N,) str whose images are missing or do not decode, and why.

    All images are decoded once; the answer is kept in `cache_dir` until one of them changes.
    `progress(done, N)` is called as they are, never when the answer was there.
    """
    names: list[str] = paths.tolist()
    with files.open_threads(names) as threads:
        key = files.fingerprint(names, threads, rule=f"{POLICY}\0{MAX_PIXELS}")
        file = Path(cache_dir) / f"{key}.undecodable.json"
        if file.is_file():
            return {int(row): reason for row, reason in json.loads(file.read_bytes()).items()}
        reasons: list[str] = []
        for start in range(0, len(names), _BLOCK):
            reasons += threads.map(why_not, names[start : start + _BLOCK])
            if progress is not None:
                progress(len(reasons), len(names))
    found = {row: reason for row, reason in enumerate(reasons) if reason}
    files.write(str(file), json.dumps(found).encode())
    return found
