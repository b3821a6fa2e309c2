"""Data sets by name: each is a function from a folder to a `Dataset`."""

import difflib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from reid.data.datasets import market1501
from reid.types import Dataset

__all__ = ["DATASETS", "load"]


def _synthetic(name: str, root: str | os.PathLike[str]) -> Dataset:
    """Read a world that `reid.data.synthetic.write_world` drew, in Market-1501's layout."""
    return replace(market1501.load(root), name=name)


DATASETS: dict[str, Callable[[str | os.PathLike[str]], Dataset]] = {
    "market1501": market1501.load,
    "synthetic_a": partial(_synthetic, "synthetic_a"),
    "synthetic_b": partial(_synthetic, "synthetic_b"),
}
"""The names the command line takes."""


def load(name: str, root: str | os.PathLike[str]) -> Dataset:
    """Read the data set called `name` from the folder `root`.

    Raises ValueError for an unknown name (with the nearest known ones) and for a folder that is not
    as that data set's reader expects.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS)
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else f"known are {', '.join(sorted(DATASETS))}"
        )
        raise ValueError(f"there is no data set {name!r}; {hint}")
    return DATASETS[name](root)
