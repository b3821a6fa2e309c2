"""Rows to ranks, and features whose bits do not depend on the ranks."""

import numpy as np
import pytest
import torch

from reid.data import normalise
from reid.extract import extract, rank_rows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network():
    """Two views of an image; float32 convolution, so that batching could change bits."""
    layer = torch.nn.Conv2d(3, 8, 3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.zero_()

    def features(images):
        maps = layer(images)
        return {"mean": maps.mean((2, 3)), "max": maps.amax((2, 3))}

    return features


def run(network, store, **changes):
    options = {"rows": range(len(store)), "batch_size": 10, "device": CPU, "precision": "float32"}
    return extract(network, store, **{**options, **changes})


@pytest.mark.parametrize("num_rows", [0, 1, 16, 17, 100, 128])
@pytest.mark.parametrize("batch_size", [1, 16, 128])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_ranks_share_the_rows_on_edges_of_batches(num_rows, batch_size, world):
    parts = [rank_rows(num_rows, batch_size=batch_size, rank=r, world=world) for r in range(world)]
    assert [row for part in parts for row in part] == list(range(num_rows))
    assert all(part.start % batch_size == 0 or part.start == num_rows for part in parts)
    batches = [-(-len(part) // batch_size) for part in parts]
    assert max(batches) - min(batches) <= 1


def test_features_are_the_networks_in_row_order(network, tiny_world):
    store = tiny_world.tables["target"].store
    images = normalise(torch.from_numpy(store.read(np.arange(len(store)))))
    with torch.no_grad():
        expected = network(images)
    found = run(network, store)
    assert found.keys() == expected.keys()
    for view, values in found.items():
        assert values.shape == (len(store), 8)  # 64 rows in batches of 10: the padding is gone
        torch.testing.assert_close(values, expected[view], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_the_bits_do_not_depend_on_the_number_of_ranks(network, tiny_world, world):
    store = tiny_world.tables["target"].store
    alone = run(network, store)
    shares = [rank_rows(len(store), batch_size=10, rank=r, world=world) for r in range(world)]
    parts = [run(network, store, rows=rows) for rows in shares]
    for view, values in alone.items():
        assert torch.equal(torch.cat([part[view] for part in parts]), values)


def test_a_rank_without_rows_still_knows_the_views(network, tiny_world):
    calls = []
    found = run(
        network,
        tiny_world.tables["target"].store,
        rows=range(0),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert {view: values.shape for view, values in found.items()} == {
        "mean": (0, 8),
        "max": (0, 8),
    }
    assert calls == []


def test_progress_ends_with_all_rows(network, tiny_world):
    calls = []
    run(
        network,
        tiny_world.tables["target"].store,
        rows=range(10, 35),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(10, 25), (20, 25), (25, 25)]


def test_bfloat16_features_are_stored_as_float32(network, tiny_world):
    store = tiny_world.tables["target"].store
    exact, rough = run(network, store), run(network, store, precision="bfloat16")
    assert all(values.dtype == torch.float32 for values in rough.values())
    assert not torch.equal(exact["max"], rough["max"])
    torch.testing.assert_close(rough["max"], exact["max"], rtol=0.05, atol=0.1)
