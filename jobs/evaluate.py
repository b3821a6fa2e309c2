"""Score a checkpoint on a data set's test split; metrics as JSON on standard output.

python -m jobs.evaluate --checkpoint runs/demo --dataset market1501 --root data/market1501
"""

import dataclasses
import json
import sys
from typing import Literal

import tyro

from cluster import checkpoints
from cluster.config import ClusterConfig
from cluster.inputs import open_data, open_test
from cluster.worker import pick_device
from jobs.console import exit_codes, progress_bars
from reid.evaluate import evaluate, metrics
from reid.recipes import restore


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to score."""

    checkpoint: str
    """a run's folder (its last checkpoint) or a .pt file, local or s3://"""
    dataset: str
    """name of the data set"""
    root: str
    """folder of the data set; of a table also s3://"""
    on_undecodable: Literal["error", "skip"] = "error"
    """images that do not decode: stop, or leave them out and say so"""
    cache: str = "runs/cache"
    """folder for decoded images"""
    use_gpu: bool = False
    """extract on the GPU"""


def main(options: Options) -> None:
    """Print the metrics."""
    with exit_codes(), progress_bars() as show:
        recipe = restore(checkpoints.read(options.checkpoint))
        where = ClusterConfig(
            cache=options.cache, use_gpu=options.use_gpu, on_undecodable=options.on_undecodable
        )
        data = open_data(options.dataset, options.root, where, show=show)
        test = open_test(data, recipe.config, where, show=show)
        device = pick_device(where)
        recipe.networks.to(device)
        done = evaluate(
            recipe,
            test,
            device=device,
            progress=lambda done, total: show("extract", done, total, ""),
        )
    print(json.dumps({**metrics(done.scores), "num_valid_queries": done.scores.num_valid_queries}))


if __name__ == "__main__":
    main(tyro.cli(Options, args=sys.argv[1:], prog="jobs.evaluate", description=__doc__))
