"""Pictures: which rows are shown, what colours frame them, what is plotted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.spatial.distance import cdist

from reid.evaluation import (
    NO_RESULT,
    Ranking,
    choose_queries,
    ranked_gallery,
    ranking_figure,
    rounds_figure,
    save_figure,
)
from reid.evaluation.report import QUERY, RIGHT, WRONG
from reid.types import Retrieval, Split


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def scores(ap: np.ndarray, mean: float = 0.5) -> Retrieval:
    return Retrieval(mAP=mean, cmc=np.ones(3), mINP=0.5, num_valid_queries=len(ap), ap=ap)


def split(pid: list[int], camid: list[int]) -> Split:
    path = np.array([str(row) for row in range(len(pid))])
    return Split(path=path, pid=np.array(pid), camid=np.array(camid))


@pytest.mark.parametrize("num_results", [5, 60])
def test_ranked_gallery_is_the_order_without_junk(num_results: int) -> None:
    rng = generator(1)
    query_features = rng.normal(size=(12, 8)).astype(np.float32)
    gallery_features = rng.normal(size=(40, 8)).astype(np.float32)
    query_pids, gallery_pids = rng.integers(1, 5, 12), rng.integers(-1, 5, 40)
    query_camids, gallery_camids = rng.integers(0, 2, 12), rng.integers(0, 2, 40)
    queries = np.array([7, 0, 3])
    rows = ranked_gallery(
        query_features,
        torch.from_numpy(gallery_features),
        query_pids=query_pids,
        query_camids=query_camids,
        gallery_pids=gallery_pids,
        gallery_camids=gallery_camids,
        queries=queries,
        num_results=num_results,
    )
    distance = cdist(query_features, gallery_features)
    for query, shown in zip(queries, rows, strict=True):
        own = (gallery_pids == query_pids[query]) & (gallery_camids == query_camids[query])
        order = [
            row for row in distance[query].argsort() if gallery_pids[row] != -1 and not own[row]
        ]
        expected = (order + [NO_RESULT] * num_results)[:num_results]
        assert shown.tolist() == expected
    assert rows.shape == (3, num_results)
    assert rows.dtype == np.int64


def test_chosen_queries_are_the_middles_of_equal_groups() -> None:
    after = generator(2).permutation(100) / 100
    chosen = choose_queries(scores(np.full(100, 0.5)), scores(after), 4)
    assert after[chosen].tolist() == [0.87, 0.62, 0.37, 0.12]


def test_choice_skips_queries_without_match_and_orders_ties_by_ap_before() -> None:
    before = scores(np.array([0.3, np.nan, 0.1, 0.2]))
    after = scores(np.array([1.0, np.nan, 1.0, 1.0]))
    assert choose_queries(before, after, 3).tolist() == [0, 3, 2]
    assert choose_queries(before, after, 1).tolist() == [3]
    for num in (0, 4):
        with pytest.raises(ValueError, match=f"num={num} queries of 3"):
            choose_queries(before, after, num)


@pytest.fixture
def example() -> tuple[Figure, np.ndarray, np.ndarray]:
    """Two queries, three results, two rankings; the second line of query 1 lacks a result."""
    rng = generator(3)
    query_images = rng.integers(0, 256, (3, 64, 32, 3)).astype(np.uint8)
    gallery_images = rng.integers(0, 256, (5, 64, 32, 3)).astype(np.uint8)
    ap = np.array([0.25, np.nan, 0.75])
    figure = ranking_figure(
        np.array([2, 0]),
        rankings=[
            Ranking(name="before", scores=scores(ap, 0.125), rows=np.array([[0, 1, 2], [2, 3, 4]])),
            Ranking(name="after", scores=scores(ap, 0.5), rows=np.array([[3, 4, 0], [1, 0, -1]])),
        ],
        query=split([1, 9, 2], [0, 1, 2]),
        gallery=split([2, 1, 0, 2, 1], [5, 6, 7, 8, 9]),
        query_images=query_images,
        gallery_images=lambda row: gallery_images[row],
        title="A title",
    )
    return figure, query_images, gallery_images


def frame(axes: Axes) -> tuple[float, ...]:
    return tuple(axes.spines["left"].get_edgecolor()[:3])


def test_frames_and_images(example: tuple[Figure, np.ndarray, np.ndarray]) -> None:
    figure, query_images, gallery_images = example
    # Query 2 has pid 2 (gallery rows 0 and 3), query 0 has pid 1 (gallery rows 1 and 4).
    expected = [
        (query_images[2], QUERY, "query, cam 2"),
        (gallery_images[0], RIGHT, "\N{CHECK MARK} cam 5"),
        (gallery_images[1], WRONG, "\N{BALLOT X} cam 6"),
        (gallery_images[2], WRONG, "\N{BALLOT X} cam 7"),
        (gallery_images[3], RIGHT, "\N{CHECK MARK} cam 8"),
        (gallery_images[4], WRONG, "\N{BALLOT X} cam 9"),
        (gallery_images[0], RIGHT, "\N{CHECK MARK} cam 5"),
        (query_images[0], QUERY, "query, cam 0"),
        (gallery_images[2], WRONG, "\N{BALLOT X} cam 7"),
        (gallery_images[3], WRONG, "\N{BALLOT X} cam 8"),
        (gallery_images[4], RIGHT, "\N{CHECK MARK} cam 9"),
        (gallery_images[1], RIGHT, "\N{CHECK MARK} cam 6"),
        (gallery_images[0], WRONG, "\N{BALLOT X} cam 5"),
    ]
    assert len(figure.axes) == len(expected)
    for axes, (image, color, label) in zip(figure.axes, expected, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
        assert axes.images[0].get_interpolation() == "nearest"
        assert frame(axes) == to_rgb(color)
        assert axes.get_xlabel() == label


def test_text_of_a_ranking(example: tuple[Figure, np.ndarray, np.ndarray]) -> None:
    texts = [text.get_text() for text in example[0].texts]
    assert texts[:5] == [
        "A title",
        "mAP: before 12.5 % \N{RIGHTWARDS ARROW} after 50.0 %",
        *"123",
    ]
    lines = ["before\nAP 75.0 %", "after\nAP 75.0 %", "before\nAP 25.0 %", "after\nAP 25.0 %"]
    assert texts[-4:] == lines


def test_nothing_overlaps(example: tuple[Figure, np.ndarray, np.ndarray]) -> None:
    figure = example[0]
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [text.get_window_extent() for text in figure.texts]
    for index, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0
        assert figure.bbox.y0 <= box.y0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_saved_pixels_show_the_frames(
    example: tuple[Figure, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    figure = example[0]
    path = tmp_path / "ranking.png"
    path.write_text("an older file")
    save_figure(figure, path)
    assert [file.name for file in tmp_path.iterdir()] == ["ranking.png"]
    pixels = imread(path)[..., :3]
    height, width, _ = pixels.shape
    for axes in figure.axes:
        box = axes.get_position()
        row, column = int((1 - (box.y0 + box.y1) / 2) * height), int(box.x0 * width)
        np.testing.assert_allclose(pixels[row, column], frame(axes), rtol=0, atol=1 / 255)


def test_a_failed_save_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "picture.unknown"
    path.write_text("an older file")
    with pytest.raises(ValueError, match="unknown"):
        save_figure(Figure(), path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["an older file"]


def test_rounds_are_plotted_in_percent() -> None:
    rounds = [
        {"round": 0, "num_clusters": 30, "mAP": 0.25, "rank1": 0.5, "ari": 0.125},
        {"round": 1, "num_clusters": 25, "mAP": None, "ari": 0.25},
        {"round": 2, "num_clusters": 20, "mAP": 0.5, "rank1": 0.75, "ari": 0.5},
    ]
    direct_transfer = {"mAP": 0.125, "rank1": 0.375}
    figure = rounds_figure(rounds, direct_transfer=direct_transfer, title="A run")
    plotted = [
        [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]
        for axes in figure.axes
    ]
    assert plotted == [
        [
            ([1, 3], [25, 50]),
            ([0, 1], [12.5, 12.5]),  # axhline: fractions of the width
            ([1, 3], [50, 75]),
            ([0, 1], [37.5, 37.5]),
        ],
        [([1, 2, 3], [30, 25, 20])],
        [([1, 2, 3], [0.125, 0.25, 0.5])],
    ]
    assert [line.get_linestyle() for line in figure.axes[0].get_lines()] == ["-", "--", "-", "--"]
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "mAP, last 50.0 %"


def test_rounds_without_optional_values() -> None:
    figure = rounds_figure(
        [{"round": 0, "num_clusters": 3, "mAP": None}], direct_transfer={"mAP": 0.5}, title="A run"
    )
    assert [len(axes.get_lines()) for axes in figure.axes] == [1, 1]
    with pytest.raises(ValueError, match="no round to plot"):
        rounds_figure([], direct_transfer={}, title="A run")
