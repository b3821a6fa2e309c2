"""Score a recipe on a test split: every rank extracts its part, all get the scores."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from reid.data.steps import ImageStore
from reid.evaluation import retrieval
from reid.evaluation.report import ranked_gallery
from reid.extract import Progress, extract_all
from reid.recipes.contract import Recipe
from reid.types import Retrieval, Split

TILE = 256
"""queries ranked at a time: bounds memory"""


@dataclass(frozen=True, kw_only=True)
class TestSplit:
    """Images to search with and in."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    query: Split
    gallery: Split
    query_pixels: ImageStore
    gallery_pixels: ImageStore


def embed_all(
    recipe: Recipe, store: ImageStore, *, device: torch.device, progress: Progress | None = None
) -> Float32[Tensor, "N E"]:
    """Return the embeddings of every image of a store, in row order, on every rank."""
    return extract_all(
        recipe.embed,
        store,
        batch_size=recipe.config.extract_batch,
        device=device,
        precision=recipe.config.precision,
        progress=progress,
    ).cpu()


def query_cameras(test: TestSplit) -> Int64[np.ndarray, "Q"]:
    """Return the queries' cameras; -1, which no gallery image has, where all images share one.

    Data without cameras then keeps its matches, which as views of one camera would all be junk.
    """
    camid = test.query.camid
    one = len(np.unique(np.concatenate([camid, test.gallery.camid]))) == 1
    return np.full_like(camid, -1) if one else camid


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores, and the first gallery rows of every query (Q,k), junk removed, for pictures."""

    scores: Retrieval
    top: NDArray[np.int64]


def evaluate(
    recipe: Recipe, test: TestSplit, *, device: torch.device, progress: Progress | None = None
) -> Evaluation:
    """Return the Market-protocol scores of the recipe's embedding; networks in evaluation mode."""
    recipe.networks.eval()
    query, gallery = (
        embed_all(recipe, store, device=device, progress=progress)
        for store in (test.query_pixels, test.gallery_pixels)
    )
    ids: dict[str, Any] = {
        "query_pids": test.query.pid,
        "query_camids": query_cameras(test),
        "gallery_pids": test.gallery.pid,
        "gallery_camids": test.gallery.camid,
    }
    scores = retrieval(query, gallery, **ids)
    queries = np.arange(len(query))
    tiles = [
        ranked_gallery(query, gallery, **ids, queries=rows)
        for rows in np.array_split(queries, -(-len(queries) // TILE))
    ]
    return Evaluation(scores=scores, top=np.concatenate(tiles))


def metrics(scores: Retrieval) -> dict[str, float]:
    """Return the scores people quote, as fractions."""
    ranks = {f"rank{k}": float(scores.cmc[k - 1]) for k in (1, 5, 10) if k <= len(scores.cmc)}
    return {"mAP": scores.mAP, **ranks, "mINP": scores.mINP}
