"""A recipe's scores: its embeddings, all rows in order, ranked by the Market protocol."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reid import evaluate as module
from reid.data import normalise
from reid.evaluate import embed_all, evaluate, metrics, query_cameras
from reid.evaluation import retrieval
from reid.recipes.contract import Sizes
from reid.recipes.source import Source
from reid.types import Retrieval

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe(tiny_configs, make_recipe):
    return make_recipe(tiny_configs["mean_teacher"])


def rows_of(store):
    return normalise(torch.from_numpy(store.read(np.arange(len(store)))))


def ids(test):
    return {
        "query_pids": test.query.pid,
        "query_camids": test.query.camid,
        "gallery_pids": test.gallery.pid,
        "gallery_camids": test.gallery.camid,
    }


def test_every_image_is_embedded_in_row_order(recipe, tiny_world):
    store = tiny_world.test.gallery_pixels
    recipe.networks.eval()
    calls = []
    found = embed_all(recipe, store, device=CPU, progress=lambda *at: calls.append(at))
    with torch.no_grad():
        expected = recipe.embed(rows_of(store))
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(store)))
    assert calls[-1] == (len(store), len(store))


def test_scores_are_those_of_the_embeddings(recipe, tiny_world):
    test = tiny_world.test
    recipe.networks.train()
    found = evaluate(recipe, test, device=CPU)
    assert not any(part.training for part in recipe.networks.modules())
    query, gallery = (
        embed_all(recipe, store, device=CPU) for store in (test.query_pixels, test.gallery_pixels)
    )
    expected = retrieval(query, gallery, **ids(test))
    assert found.scores.mAP == expected.mAP
    assert found.scores.mINP == expected.mINP
    np.testing.assert_array_equal(found.scores.cmc, expected.cmc)
    np.testing.assert_array_equal(found.scores.ap, expected.ap)


def test_the_first_results_are_the_closest_rows_that_are_no_junk(recipe, tiny_world):
    test = tiny_world.test
    found = evaluate(recipe, test, device=CPU)
    query, gallery = (
        embed_all(recipe, store, device=CPU).double()
        for store in (test.query_pixels, test.gallery_pixels)
    )
    distance = torch.cdist(query, gallery).numpy()
    assert found.top.shape == (len(test.query), 10)
    for row, top in enumerate(found.top):
        own = (test.gallery.pid == test.query.pid[row]) & (
            test.gallery.camid == test.query.camid[row]
        )
        kept = np.flatnonzero(~own & (test.gallery.pid != -1))
        shown = top[top >= 0]
        assert len(shown) == min(10, len(kept))
        assert set(shown) <= set(kept)
        closest = np.sort(distance[row, kept])[: len(shown)]
        np.testing.assert_allclose(distance[row, shown], closest, atol=1e-5)


def test_the_tile_does_not_matter(recipe, tiny_world, monkeypatch):
    whole = evaluate(recipe, tiny_world.test, device=CPU)
    monkeypatch.setattr(module, "TILE", 3)
    tiled = evaluate(recipe, tiny_world.test, device=CPU)
    np.testing.assert_array_equal(tiled.top, whole.top)


def test_an_embedding_that_knows_the_identity_scores_one(tiny_world, tiny_configs):
    """Pixels to one-hot identities: each query finds all of its matches before anything else."""
    test = tiny_world.test
    pids = np.concatenate([test.query.pid, test.gallery.pid])
    images = torch.cat([rows_of(test.query_pixels), rows_of(test.gallery_pixels)])
    names, codes = np.unique(pids, return_inverse=True)
    code = {image.numpy().tobytes(): int(c) for image, c in zip(images, codes, strict=True)}

    def embed(images):
        known = torch.tensor([code[image.numpy().tobytes()] for image in images])
        return torch.nn.functional.one_hot(known, len(names)).float()

    config = replace(tiny_configs["source"], extract_batch=7)
    oracle = Source(config, sizes=Sizes(num_identities=2, num_images=64))
    oracle.embed = embed
    scores = evaluate(oracle, test, device=CPU).scores
    assert (scores.mAP, scores.mINP, scores.cmc[0]) == (1.0, 1.0, 1.0)
    assert scores.num_valid_queries == len(test.query)


def test_metrics_are_named_as_people_quote_them():
    cmc = np.linspace(0.1, 0.9, 10)
    scores = Retrieval(mAP=0.5, cmc=cmc, mINP=0.25, num_valid_queries=2, ap=np.array([0.4, 0.6]))
    assert metrics(scores) == {
        "mAP": 0.5,
        "rank1": cmc[0],
        "rank5": cmc[4],
        "rank10": cmc[9],
        "mINP": 0.25,
    }
    short = Retrieval(mAP=0.5, cmc=cmc[:5], mINP=0.25, num_valid_queries=2, ap=scores.ap)
    assert metrics(short).keys() == {"mAP", "rank1", "rank5", "mINP"}


def test_data_without_cameras_keeps_its_matches(recipe, tiny_world):
    test = tiny_world.test
    np.testing.assert_array_equal(query_cameras(test), test.query.camid)
    query, gallery = (replace(s, camid=np.zeros_like(s.camid)) for s in (test.query, test.gallery))
    blind = replace(test, query=query, gallery=gallery)
    assert not set(query_cameras(blind)) & set(gallery.camid)
    assert query_cameras(blind).shape == query.camid.shape
    assert evaluate(recipe, blind, device=CPU).scores.num_valid_queries == len(query)
