"""Direct transfer: what is found on the target's test split before any adaptation."""

import io
from collections.abc import Callable

import numpy as np
import torch

from cluster.links import Link
from cluster.storage import Folder
from reid import dist
from reid.evaluate import Evaluation, TestSplit, evaluate
from reid.recipes import Recipe
from reid.types import Retrieval

FILE = "direct_transfer.npz"


def score(
    run: Folder, make: Callable[[], Recipe], test: TestSplit, link: Link, *, device: torch.device
) -> None:
    """Keep a first network's scores and rankings in a run's folder, unless they are there.

    By all ranks, which have the run's devices: the process that starts a run may have none.
    """
    if link.agree(lambda: run.exists(FILE)):
        return
    recipe = make()
    recipe.networks.to(device)
    found = evaluate(
        recipe,
        test,
        device=device,
        progress=lambda done, total: link.progress("direct transfer", done, total, ""),
    )
    if dist.rank() == 0:
        array = io.BytesIO()
        np.savez(array, top=found.top, **vars(found.scores))
        run.write(FILE, array.getvalue())


def kept(run: Folder) -> Evaluation:
    """Return what `score` kept."""
    with np.load(io.BytesIO(run.read(FILE)), allow_pickle=False) as found:
        scores = Retrieval(
            mAP=float(found["mAP"]),
            cmc=found["cmc"],
            mINP=float(found["mINP"]),
            num_valid_queries=int(found["num_valid_queries"]),
            ap=found["ap"],
        )
        return Evaluation(scores=scores, top=found["top"])
