"""Nearest neighbours: brute force as the oracle, whatever the precision and the shards."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from reid.clustering import Neighbors, nearest_neighbors, products, split
from reid.clustering import search as search_module
from reid.clustering.listing import Wanted
from reid.clustering.neighbor_candidates import ALL, OTHER, SAME
from reid.clustering.products import BFLOAT16, FLOAT32, Product, fastest_product, growth, sq_norm
from reid.clustering.search import search

SHARDS = [2, 3, 8, 16]
Make = Callable[..., np.ndarray]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def grid(num_rows: int, num_features: int, *, seed: int) -> np.ndarray:
    """Return whole numbers: distances are exact, many are equal and many rows as well."""
    return generator(seed).integers(-1, 2, size=(num_rows, num_features)).astype(np.float32)


def brute_distances(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    wide = columns.astype(np.float64)
    return np.stack([((row - wide) ** 2).sum(axis=1) for row in rows]).astype(np.float32)


def brute(features: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Neighbors:
    """Return the k smallest of each row of the distance matrix, ties by index, itself first."""
    distance = brute_distances(features, features)
    order_by = distance.astype(np.float64)
    np.fill_diagonal(order_by, -1)
    if allowed is not None:
        order_by[~allowed] = np.inf
    indices = np.argsort(order_by, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(order_by, indices, axis=1)
    return Neighbors(
        distances=np.maximum(found, 0).astype(np.float32),
        indices=np.where(np.isinf(found), -1, indices),
    )


def assert_same(ours: Neighbors, expected: Neighbors) -> None:
    np.testing.assert_array_equal(ours.indices, expected.indices)
    np.testing.assert_array_equal(ours.distances, expected.distances)


def first_bits(numbers: np.ndarray, bits: int) -> np.ndarray:
    fraction, exponent = np.frexp(numbers)
    return np.ldexp(np.round(fraction * 2**bits) / 2**bits, exponent).astype(np.float32)


def coarse(bits: int, *, output_error: float) -> Product:
    """Return a product that keeps only the first bits of its operands and of its results."""
    return replace(
        FLOAT32,
        name="coarse",
        prepare=lambda rows, center: first_bits(rows - center, bits),
        multiply=lambda left, right: first_bits(left @ right.T, bits),
        output_error=output_error,
    )


COARSE = coarse(4, output_error=1.01 * 2.0**-4)


@pytest.mark.parametrize("num_features", [1, 3, 64, 333])
@pytest.mark.parametrize(("num_rows", "k"), [(40, 40), (1030, 9)])
def test_ties_and_equal_rows_go_to_the_lowest_index_after_the_row_itself(
    num_rows: int, k: int, num_features: int
) -> None:
    features = grid(num_rows, num_features, seed=num_rows)
    ours = nearest_neighbors(features, k)
    assert ours.distances.dtype == np.float32
    assert ours.indices.dtype == np.int64
    np.testing.assert_array_equal(ours.indices[:, 0], np.arange(num_rows))
    assert_same(ours, brute(features, k))


@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e-19, 1e6])
def test_features_of_any_size_and_offset(scale: float, shift: float, identities: Make) -> None:
    features = (scale * (identities(700, 130, 40, seed=1) + shift)).astype(np.float32)
    ours, expected = nearest_neighbors(features, 12), brute(features, 12)
    np.testing.assert_allclose(ours.distances, expected.distances, rtol=2e-7, atol=1e-45)
    # Where two are equal but for the order of a sum, either may come first.
    differ = ours.indices != expected.indices
    assert differ.mean() < 1e-3
    assert all(len(set(row)) == 12 for row in ours.indices)


@pytest.mark.parametrize("product", [FLOAT32, BFLOAT16, COARSE], ids=lambda p: p.name)
@pytest.mark.parametrize("num_rows", [50, 2100])
def test_the_precision_of_the_product_does_not_matter(
    product: Product, num_rows: int, identities: Make
) -> None:
    for features in (identities(num_rows, 64, 60, seed=2), grid(num_rows, 6, seed=3)):
        ours = search(split(features, 2), [Wanted(k=8)], product=product).lists[0]
        assert_same(ours, search(split(features, 1), [Wanted(k=8)], product=FLOAT32).lists[0])
        if num_rows == 50:
            np.testing.assert_array_equal(ours.indices, brute(features, 8).indices)


def test_a_product_with_a_wrong_bound_is_wrong(identities: Make) -> None:
    features = identities(600, 64, 30, seed=4)
    liar = replace(COARSE, prepare=FLOAT32.prepare, output_error=0.0)
    ours = search(split(features, 1), [Wanted(k=8)], product=liar).lists[0]
    assert (ours.indices != brute(features, 8).indices).any()


@pytest.mark.parametrize("product", [FLOAT32, BFLOAT16], ids=lambda p: p.name)
@pytest.mark.parametrize("num_features", [1, 7, 512, 3000])
def test_the_bounds_of_the_products_hold(product: Product, num_features: int) -> None:
    rng = generator(num_features)
    rows = rng.normal(size=(80, num_features)) * 10.0 ** rng.integers(-5, 6, size=(80, 1))
    rows[:20] = np.abs(rows[:20])  # sums without cancellation
    rows[20:30] = 1 + 2.0**-8 * (1 - 1e-3)  # each number rounded as far as can be
    center = np.zeros(num_features, dtype=np.float32)
    operand = product.prepare(rows.astype(np.float32), center)
    rounded = product.widen(operand)
    exact = rounded.astype(np.float64)
    length = np.linalg.norm(exact, axis=1)
    error = np.abs(product.multiply(operand, operand) - exact @ exact.T)
    bound = growth(num_features) * length[:, None] * length
    assert (np.abs(sq_norm(rounded) - length**2) <= bound.diagonal()).all()
    bound += product.output_error * length[:, None] * length
    assert (error <= bound).all()
    if product is BFLOAT16:
        assert (error > bound / 4).any()  # a bound four times smaller would be wrong


@pytest.mark.parametrize(
    ("bfloat16_s", "wanted"),
    [(1.0, "bfloat16"), (3.9, "float32"), (16.0, "float32")],  # a hair faster is not enough
)
def test_bfloat16_is_taken_where_it_is_much_faster(
    bfloat16_s: float, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def taking(seconds: float, product: Product) -> Product:
        def multiply(*_: object) -> None:
            clock[0] += seconds

        return replace(product, multiply=multiply)

    monkeypatch.setattr(products.time, "process_time", lambda: clock[0])
    monkeypatch.setattr(products, "FLOAT32", taking(4.0, FLOAT32))
    monkeypatch.setattr(products, "BFLOAT16", taking(bfloat16_s, BFLOAT16))
    assert fastest_product.__wrapped__().name == wanted  # past the cache


@pytest.mark.parametrize("num_shards", SHARDS)
@pytest.mark.parametrize("num_rows", [1023, 1025, 5000])
def test_the_same_bits_for_any_number_of_shards(
    num_rows: int, num_shards: int, identities: Make
) -> None:
    features = identities(num_rows, 24, 30, seed=num_rows)
    features[-40:] = features[:40]  # equal rows, far apart
    expected = nearest_neighbors(features, 10)
    assert_same(nearest_neighbors(split(features, num_shards), 10), expected)


def test_features_too_close_together_for_bfloat16(
    monkeypatch: pytest.MonkeyPatch, identities: Make
) -> None:
    asked = []

    def counted(*operands: object) -> np.ndarray:
        asked.append(1)
        return BFLOAT16.multiply(*operands)

    monkeypatch.setattr(
        search_module, "fastest_product", lambda: replace(BFLOAT16, multiply=counted)
    )
    features = identities(2500, 8, 30, seed=12)
    features[:, :2] += 3 * np.sign(features[:, :1])  # two lumps: the mean is in neither
    pool = split(features, 1)
    assert_same(nearest_neighbors(pool, 30), search(pool, [Wanted(k=30)], product=FLOAT32).lists[0])
    assert 0 < len(asked) < 6  # of 6 products of tiles; float32 made them all


@pytest.mark.parametrize("num_shards", [1, 3])
def test_more_equal_rows_than_candidates_are_held(num_shards: int, identities: Make) -> None:
    features = identities(2500, 40, 50, seed=5)
    features[100:2400:7] = features[99]  # 329 of them, all over the shards
    features[5:60:5] = features[5]
    pool = split(features, num_shards)
    assert_same(nearest_neighbors(pool, 6), brute(features, 6))


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_all_rows_equal(value: float) -> None:
    features = np.full((2100, 50), value, dtype=np.float32)
    ours = nearest_neighbors(split(features, 2), 4)
    assert (ours.distances == 0).all()
    np.testing.assert_array_equal(ours.indices[3:], [[row, 0, 1, 2] for row in range(3, 2100)])
    np.testing.assert_array_equal(ours.indices[:3], [[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 3]])


def test_one_long_row_among_short_ones(identities: Make) -> None:
    features = identities(1200, 30, 30, seed=6)
    features[700] *= 1e4
    assert_same(nearest_neighbors(features, 5), brute(features, 5))


@pytest.mark.parametrize("num_shards", [1, 3])
def test_lists_by_camera(num_shards: int, identities: Make) -> None:
    features = identities(1100, 12, 90, seed=7)
    camid = generator(8).integers(-3, 3, size=len(features)) * 10**12
    camid[11] = 7  # a camera of one image
    camid[[500, 1050]] = 8
    wanted = [
        Wanted(k=5, cameras=SAME),
        Wanted(k=9, cameras=OTHER),
        Wanted(k=1, cameras=ALL),
        Wanted(k=1, cameras=OTHER),
    ]
    found = search(split(features, num_shards), wanted, camid=camid).lists
    same = camid[:, None] == camid
    everyone = np.ones_like(same)
    for one, allowed in zip(found, (same, ~same, everyone, ~same), strict=True):
        k = one.indices.shape[1]
        expected = brute(features, k, allowed)
        np.testing.assert_array_equal(one.indices, expected.indices)
        np.testing.assert_allclose(one.distances, expected.distances, rtol=2e-7)
    assert found[0].indices[11].tolist() == [11, -1, -1, -1, -1]
    assert found[0].indices[500].tolist() == [500, 1050, -1, -1, -1]


@pytest.mark.parametrize("product", [FLOAT32, BFLOAT16, COARSE], ids=lambda p: p.name)
def test_the_farthest_distance(product: Product, identities: Make) -> None:
    for num_rows in (1, 2, 2100):
        features = identities(num_rows, 40, 30, seed=9)
        found = search(split(features, 2), [Wanted(k=1)], farthest=True, product=product)
        expected = brute_distances(features, features).max(axis=1)
        np.testing.assert_allclose(found.farthest, expected, rtol=2e-7)


def test_any_array_or_tensor_is_taken(identities: Make) -> None:
    features = identities(300, 20, 30, seed=10)
    expected = nearest_neighbors(features, 4)
    wide = np.zeros((300, 40), dtype=np.float64)
    wide[:, ::2] = features
    assert_same(nearest_neighbors(wide[:, ::2], 4), expected)
    assert_same(nearest_neighbors(torch.from_numpy(features).requires_grad_(), 4), expected)
    features.flags.writeable = False
    assert_same(nearest_neighbors(features, 4), expected)


def test_bad_questions_are_refused(identities: Make) -> None:
    features = identities(30, 4, 5, seed=11)
    for k in (0, 31):
        with pytest.raises(ValueError, match=f"k is {k} and there are 30 rows: choose"):
            nearest_neighbors(features, k)
    features[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 30 rows hold NaN .* row 7 the first"):
        nearest_neighbors(features, 3)
    features[7, 2] = 1e19
    with (
        np.errstate(over="ignore"),
        pytest.raises(ValueError, match="float32 cannot hold the square; normalise"),
    ):
        nearest_neighbors(features, 3)
