"""Codes, their bounds, and the searches built on them: brute force in float64, and sameness."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from reid.clustering import codes, nearest_centers
from reid.clustering.assignment import follow, nothing_found, search
from reid.clustering.codes import CodedRows, code_rows
from reid.clustering.distance import open_pairs, pair_dist_sq

EIGHT_BITS = pytest.mark.skipif(
    not codes.has_int8_products(), reason="this processor's 8-bit products may overflow"
)
FORMS = [
    "float32",
    pytest.param("int8", marks=EIGHT_BITS),
    pytest.param("cpu", marks=EIGHT_BITS),  # as a GPU does it, by torch
]
DistSq = Callable[[np.ndarray, np.ndarray], np.ndarray]


def table(kind: str, num_rows: int, num_features: int, seed: int = 0) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(seed))
    rows = generator.normal(size=(num_rows, num_features))
    if kind == "offset":
        rows += 1000
    elif kind == "scales":
        rows *= 10.0 ** generator.uniform(-6, 6, size=(num_rows, 1))
    elif kind == "whole":
        rows = np.rint(rows)
    elif kind == "peaks":
        rows = rows**9
    elif kind == "zeros":
        rows[generator.random(num_rows) < 0.5] = 0
    return rows.astype(np.float32)


KINDS = ["normal", "offset", "scales", "whole", "peaks", "zeros"]


def all_pairs(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    row, column = np.divmod(np.arange(len(rows) * len(columns)), len(columns))
    return pair_dist_sq(rows, columns, row, column).reshape(len(rows), len(columns))


@pytest.mark.parametrize("num_features", [1, 7, 127, 128, 129, 1000])
def test_the_distance_of_a_pair_is_that_of_float64(
    num_features: int, brute_dist_sq: DistSq
) -> None:
    rows, columns = table("scales", 30, num_features), table("offset", 20, num_features, seed=1)
    expected = brute_dist_sq(rows, columns)
    np.testing.assert_allclose(all_pairs(rows, columns), expected, rtol=2e-6)
    np.testing.assert_array_equal(np.diag(all_pairs(rows, rows)), 0)
    np.testing.assert_array_equal(all_pairs(rows, columns), all_pairs(columns, rows).T)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_as_near_to_their_rows_as_they_say(kind: str, form: str) -> None:
    coded = code_rows(table(kind, 300, 50), form=form)
    values = coded.codes.values
    steps = np.asarray(values, dtype=np.float64)[:, :50]
    points = steps * coded.codes.scale[:, None].astype(np.float64)
    missing = np.linalg.norm(coded.features - coded.shift.astype(np.float64) - points, axis=1)
    assert (missing <= coded.codes.slack).all()
    norms = np.linalg.norm(points, axis=1)
    assert (missing <= 0.06 * norms + 1e-9).all()  # 127 steps to the largest coordinate
    np.testing.assert_allclose(coded.codes.sq_norms, norms**2, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("only_nearest", [False, True])
def test_no_pair_that_matters_is_missed(kind: str, form: str, only_nearest: bool) -> None:
    rows = code_rows(table(kind, 200, 40), form=form)
    columns = rows.code(np.concatenate([table(kind, 90, 40, seed=1), rows.features[:10]]))
    dist_sq = all_pairs(rows.features, columns.features)
    generator = np.random.Generator(np.random.Philox(2))
    limit = np.quantile(dist_sq, 0.2, axis=1) * generator.uniform(0, 2, size=200)
    limit[:20] = np.inf
    limit[20:30] = 0
    limit = limit.astype(np.float32)
    pairs = open_pairs(rows, columns, limit, only_nearest=only_nearest)
    is_open = np.zeros(dist_sq.shape, dtype=bool)
    is_open[pairs.row, pairs.column] = True
    np.testing.assert_array_equal(pairs.dist_sq, dist_sq[pairs.row, pairs.column])
    wanted = dist_sq <= limit[:, None]
    if only_nearest:
        wanted &= dist_sq == dist_sq.min(axis=1, keepdims=True)
    assert not (wanted & ~is_open).any()
    assert (np.where(is_open, np.inf, dist_sq).min(axis=1) >= pairs.beyond).all()
    if kind == "normal":
        assert is_open.sum() < 1.7 * wanted.sum() + 20  # the bounds are of use


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_nearest_centers_are_those_of_all_pairs(kind: str, form: str) -> None:
    rows = code_rows(table(kind, 120, 24), form=form)
    some = table(kind, 1030, 24, seed=1)
    centers = np.concatenate([some, some[::-1], rows.features[:30]])  # each twice
    found = nothing_found(len(rows))
    search(rows, rows.code(centers), np.arange(len(centers)), found)
    dist_sq = all_pairs(rows.features, centers)
    np.testing.assert_array_equal(found.label, dist_sq.argmin(axis=1))  # the lowest of equals
    np.testing.assert_array_equal(found.dist_sq, dist_sq.min(axis=1))
    dist_sq[np.arange(len(rows)), found.label] = np.inf
    assert (found.others <= dist_sq.min(axis=1)).all()


@pytest.mark.parametrize("form", FORMS)
def test_following_moved_centres_is_searching_anew(form: str) -> None:
    generator = np.random.Generator(np.random.Philox(3))
    rows = code_rows(table("whole", 1300, 6), form=form)  # whole numbers: many equal distances
    centers = rows.features[:60].copy()
    found = nothing_found(len(rows))
    follow(rows, centers, np.arange(60), found)
    for num_moved in (5, 1, 30, 0, 59, 60, 2):
        moved = np.sort(generator.choice(60, size=num_moved, replace=False))
        centers[moved] += generator.integers(-1, 2, size=(num_moved, 6))
        follow(rows, centers, moved, found)
        dist_sq = all_pairs(rows.features, centers)
        np.testing.assert_array_equal(found.label, dist_sq.argmin(axis=1))
        np.testing.assert_array_equal(found.dist_sq, dist_sq.min(axis=1))
        dist_sq[np.arange(len(rows)), found.label] = np.inf
        assert (found.others <= dist_sq.min(axis=1)).all()


def test_a_few_moved_centres_meet_few_rows_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = code_rows(table("normal", 2000, 64))
    centers = rows.features[::20].copy()
    found = nothing_found(len(rows))
    follow(rows, centers, np.arange(100), found)
    sizes: list[int] = []

    def count(a: CodedRows, b: CodedRows, *args: object, **options: object) -> object:
        sizes.append(len(a) * len(b))
        return open_pairs(a, b, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("reid.clustering.assignment.open_pairs", count)
    centers[:5] *= np.float32(0.99)
    follow(rows, centers, np.arange(5), found)
    assert sum(sizes) < 0.3 * 2000 * 100


def test_equal_distances_go_to_the_lowest_centre(brute_dist_sq: DistSq) -> None:
    generator = np.random.Generator(np.random.Philox(12))
    centers = generator.integers(-2, 3, size=(150, 40)).astype(np.float32)
    centers = np.concatenate([centers, centers[::-1]])
    rows = generator.integers(-2, 3, size=(1500, 40)).astype(np.float32)
    expected = brute_dist_sq(rows, centers).argmin(axis=1)
    np.testing.assert_array_equal(nearest_centers(rows, centers), expected)
    np.testing.assert_array_equal(nearest_centers(rows[:7], centers), expected[:7])


def test_the_form_suits_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, wide = table("normal", 3, 5), np.zeros((1, 140_000), dtype=np.float32)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for is_able, form in ((True, "int8"), (False, "float32")):
        monkeypatch.setattr(codes, "has_int8_products", lambda able=is_able: able)
        assert code_rows(rows).form == form
        assert code_rows(wide).form == "float32"  # a product could leave 32 bits
    assert code_rows(rows[:0]).codes.values.shape == (0, 5)
