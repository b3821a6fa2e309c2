"""The exported embedding: the recipe's own, from pixels, for any number of images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from reid.data import normalise
from reid.export import embedding
from reid.recipes import RUNS, build
from tests.reid.conftest import World, tiny
from tests.reid.thin import thin_networks


@pytest.mark.parametrize("name", ["core_reid_v2-demo", "spcl-demo"])
def test_exported_embedding_is_the_recipes(name: str, tiny_world: World, tmp_path: Path) -> None:
    config = tiny(RUNS[name])
    with thin_networks():
        recipe = build(config, sizes=tiny_world.sizes)
    size = (config.height, config.width, 3)
    module = embedding(recipe)
    example = torch.zeros((2, *size), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()

    recipe.networks.eval()
    for count in (1, 7):
        pixels = np.random.default_rng(count).integers(0, 256, (count, *size), dtype=np.uint8)
        images = torch.from_numpy(pixels)
        with torch.no_grad():
            wanted = recipe.embed(normalise(images))
            torch.testing.assert_close(loaded(images), wanted, rtol=1e-5, atol=1e-6)
        assert wanted.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)

    exported = sum(x.numel() for x in module.buffers())
    assert exported < sum(x.numel() for x in recipe.networks.state_dict().values())
