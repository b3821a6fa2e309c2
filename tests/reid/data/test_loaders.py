"""Which loader a run takes."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reid.data import AugmentConfig, Draw, Table, loaders, open_pixels, torch_loader
from reid.data.dali_loader import dali_loader
from reid.data.encoded_store import EncodedStore
from reid.data.prefetch import Loader
from reid.data.steps import Plan

N, SIZE = 8, {"height": 16, "width": 8}
DRAWS = [Draw(name="all", table="target", labels="global", num_identities=2, num_instances=2)]
CPU = torch.device("cpu")


@pytest.fixture
def paths(tmp_path: Path) -> np.ndarray:
    rng = np.random.default_rng(0)
    names = [str(tmp_path / f"{row}.jpg") for row in range(N)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)).save(name)
    return np.array(names)


def tables(store: Any) -> dict[str, Table]:
    """Return a table without labels, as it is before the first clustering."""
    return {"target": Table(store=store, camid=np.zeros(N, dtype=np.int64), labels={})}


def busy(milliseconds: float) -> Loader:
    """Return a loader whose every step takes so much processor time."""

    def images(plan: Plan, *_: Any) -> list[torch.Tensor]:
        assert plan.spec.labels is None
        until = time.process_time() + milliseconds / 1e3
        while time.process_time() < until:
            pass
        return [torch.zeros(len(plan.rows), 3, 16, 8)]

    return Loader(images)


@pytest.mark.parametrize(("torch_ms", "dali_ms", "wanted"), [(8, 2, "dali"), (2, 8, "torch")])
def test_the_cheaper_one_is_taken_and_both_costs_are_said(
    paths, monkeypatch, torch_ms, dali_ms, wanted
):
    made = {"torch": busy(torch_ms), "dali": busy(dali_ms)}
    monkeypatch.setattr(loaders, "by_name", made.__getitem__)
    stores = {"target": tables(EncodedStore(paths, **SIZE))["target"]}
    name, why = loaders.quickest(stores, DRAWS, augment=AugmentConfig(), device=CPU)
    assert name == wanted
    assert why.startswith("images of 16x8 from EncodedStore: torch_loader ")
    assert why.endswith(f" ms of processor time a step, so {wanted}_loader")


def test_real_loaders_of_either_store_are_tried_out(paths, tmp_path):
    for store in (EncodedStore(paths, **SIZE), open_pixels(paths, **SIZE, cache_dir=tmp_path)):
        pad = AugmentConfig(pad=2)
        name, why = loaders.quickest(tables(store), DRAWS, augment=pad, device=CPU)
        assert f"so {name}_loader" in why
        assert type(store).__name__ in why


def test_files_that_dali_decodes_otherwise_are_left_to_torch(paths):
    Image.open(paths[3]).convert("RGBA").save(odd := paths[3].replace("jpg", "png"))
    store = EncodedStore(np.array([*paths[:3], odd, *paths[4:]]), **SIZE)
    name, why = loaders.quickest(tables(store), DRAWS, augment=AugmentConfig(), device=CPU)
    assert name == "torch"
    assert why.endswith(": torch_loader, as DALI reads files that are no JPEG otherwise")


def test_without_dali_there_is_one(paths, monkeypatch):
    monkeypatch.setattr(loaders, "find_spec", lambda name: None)
    store = EncodedStore(paths, **SIZE)
    name, why = loaders.quickest(tables(store), DRAWS, augment=AugmentConfig(), device=CPU)
    assert (name, why) == (
        "torch",
        "images of 16x8 from EncodedStore: torch_loader, as DALI is not installed",
    )


def test_names():
    assert loaders.by_name("torch") is torch_loader
    assert loaders.by_name("dali") is dali_loader
