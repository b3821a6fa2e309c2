"""The scale study: fits, counts, made tables, the command, and what docs/scale.md says of them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cluster.group import Clock, GroupPool
from jobs import plan
from jobs.benchmark import main
from jobs.benchmarks import scale, scale_stages
from jobs.benchmarks.scale_fit import FACTORS, LAWS, fit, power_law
from jobs.benchmarks.scale_stages import K1, STAGES, CountedPool, Run, Size, measured
from jobs.planning import rates, work
from jobs.planning.rates import Factor, PowerLaw
from jobs.planning.words import duration
from reid.clustering import BLOCK, hierarchical_kmeans, kmeans, nearest_neighbors, split
from reid.clustering.codes import coded_rows
from reid.clustering.lloyd import lloyd
from reid.clustering.parallel import parallel_seeds
from reid.clustering.seeding import greedy_seeds

Capture = pytest.CaptureFixture[str]
DOCUMENT = Path(__file__).parents[2] / "docs" / "scale.md"


def rows_of(count: int, width: int = 16) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(1))
    means = generator.normal(size=(count // 20, width))
    found = means[generator.integers(len(means), size=count)]
    return (found + 0.3 * generator.normal(size=found.shape)).astype(np.float32)


# Fits


def made_rows(stage: str, noise: float = 0.0) -> list[dict[str, Any]]:
    """Return rows of seconds = 3e-9 N^1.25 d^0.5 K^0.75, times some noise."""
    generator = np.random.Generator(np.random.Philox(2))
    return [
        {
            "stage": stage, "num_shards": 1,
            "num_rows": n, "num_features": d, "num_clusters": k, "work": 1.0,
            "cpu_s": 3e-9 * n**1.25 * d**0.5 * k**0.75 * np.exp(noise * generator.normal()),
        }
        for n in (1e4, 3e4, 1e5) for d in (256, 2048) for k in (100, 1000)
    ]  # fmt: skip


def columns(rows: list[dict[str, Any]], *names: str) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in names}


def test_exact_power_laws_are_recovered() -> None:
    rows = made_rows("greedy")
    names = ("num_rows", "num_features", "num_clusters")
    found = fit(columns(rows, *names), [row["cpu_s"] for row in rows])
    assert list(found.exponents.values()) == pytest.approx([1.25, 0.5, 0.75])
    assert max(found.errors.values()) < 1e-9
    assert found.r2 == pytest.approx(1)
    assert found.num_points == 12
    there = found(num_rows=1e8, num_features=512, num_clusters=1e6)
    assert there == pytest.approx(3e-9 * 1e10 * 512**0.5 * 1e6**0.75)


def test_errors_are_those_of_ordinary_least_squares() -> None:
    rows = made_rows("greedy", noise=0.2)
    names = ("num_rows", "num_features", "num_clusters")
    found = fit(columns(rows, *names), [row["cpu_s"] for row in rows])
    x = np.log([[np.e, *(row[name] for name in names)] for row in rows])
    y = np.log([row["cpu_s"] for row in rows])
    slope = np.linalg.solve(x.T @ x, x.T @ y)
    rest = y - x @ slope
    errors = np.sqrt(rest @ rest / (12 - 4) * np.diag(np.linalg.inv(x.T @ x)))
    np.testing.assert_allclose(list(found.exponents.values()), slope[1:])
    np.testing.assert_allclose(list(found.errors.values()), errors[1:])
    assert found.r2 == pytest.approx(1 - rest.var() / y.var())


def test_factors_that_cannot_be_told_apart_have_no_exponent() -> None:
    n = [1e4, 3e4, 1e5]
    found = fit(
        {"num_rows": n, "num_features": [256] * 3, "num_clusters": [v / 20 for v in n]},
        [2e-5 * v**1.5 for v in n],
    )
    assert found.exponents == pytest.approx({"num_rows": 1.5})
    with pytest.raises(ValueError, match="1 measurements cannot tell 2 unknowns"):
        fit({"num_rows": [1.0, 2.0]}, [1.0])


def test_printed_laws_are_the_fitted_ones() -> None:
    rows = made_rows("greedy", noise=0.1)
    values: dict[str, Any] = {}
    exec("\n".join(scale.law_lines(rows)), {"PowerLaw": PowerLaw, "Factor": Factor}, values)
    law = power_law(rows, "greedy")
    assert values == {"GREEDY_CORE": law}
    assert law is not None
    assert law.clusters is not None
    assert law.rows.exponent == pytest.approx(1.25, abs=0.1)
    assert law(3e4, 512, 300) == pytest.approx(3e-9 * 3e4**1.25 * 512**0.5 * 300**0.75, rel=0.15)
    assert law(3e6, 512, 300) == pytest.approx(law(1e5, 512, 300) * 30**law.rows.exponent)
    assert law.clusters.exponent < law.clusters.counted == 1
    assert law(1e5, 512, 1e4) == pytest.approx(10 * law(1e5, 512, 1e3))  # as operations do
    assert law.beyond(1e7, 2048, 2000) == 100
    assert law.beyond(1e5, 256, 10) == 1


# What is counted


class Telegraph:
    """A star of one process that counts what it is given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def all_gather(self, data: bytes) -> list[bytes]:
        self.sizes.append(len(data))
        return [data]


def test_counts_are_those_of_actors() -> None:
    features = rows_of(1500)
    counted = CountedPool(features, 1)
    star: Any = Telegraph()
    shard = split(features, 1).shards[0]
    group = GroupPool(shard, star, Clock(), num_rows=1500, num_features=16)
    for pool in (counted, group):
        kmeans(pool, 20, seed=0, max_iterations=3)
        nearest_neighbors(pool, 5)
    assert counted.messages == len(star.sizes)
    assert counted.num_bytes == pytest.approx(sum(star.sizes), rel=0.02)


def test_counting_changes_no_result() -> None:
    features = rows_of(3000)
    found = kmeans(CountedPool(features, 3), 20, seed=0)
    np.testing.assert_array_equal(found.labels, kmeans(split(features, 1), 20, seed=0).labels)


@pytest.mark.parametrize("num_clusters", [50, 400])
def test_seeding_sends_as_many_messages_as_planned(num_clusters: int) -> None:
    pool, seeds = CountedPool(rows_of(4000), 2), range(3)
    for seed in seeds:
        greedy_seeds(pool, num_clusters, seed=seed)
    sent = pool.messages / len(seeds)
    assert sent == pytest.approx(work.seeding_messages(num_clusters), rel=0.1)
    pool.forget()
    for seed in seeds:
        parallel_seeds(pool, num_clusters, seed=seed)
    sent = pool.messages / len(seeds)
    assert sent == pytest.approx(work.parallel_seeding_messages(num_clusters), rel=0.1)


def test_iterations_send_as_many_messages_and_at_most_as_many_bytes_as_planned() -> None:
    features = rows_of(4000)
    pool, clusters, width = CountedPool(features, 2), 50, features.shape[1]
    lloyd(pool, features[:clusters], max_iterations=4)
    assert pool.messages == work.lloyd_messages(4)
    sums = 2 * clusters * (8 * width + 16)
    labels = 4000 * 12
    assert pool.num_bytes < 5 * sums + labels + pool.messages * 2 * 1000
    first = CountedPool(features, 2)
    lloyd(first, features[:clusters], max_iterations=1)
    assert first.num_bytes > sums + labels


def test_two_levels_send_as_many_messages_as_planned() -> None:
    pool = CountedPool(rows_of(6000), 2)
    hierarchical_kmeans(pool, 400, seed=0, flat_clusters=0, flat_iterations=0, max_iterations=2)
    seeding, iteration = work.hierarchy_messages(400)
    # cells of 20 clusters draw candidates more often; with 60 or more it is 6 % at most
    assert pool.messages == pytest.approx(seeding + 2 * iteration, rel=0.2)


@pytest.mark.parametrize("num_shards", [1, 3])
def test_neighbours_send_as_many_messages_and_bytes_as_planned(num_shards: int) -> None:
    features = rows_of(6 * BLOCK)
    pool = CountedPool(features, num_shards)
    nearest_neighbors(pool, 5)
    planned = work.neighbor_messages(len(features), num_shards)
    assert pool.messages == pytest.approx(planned, abs=2)
    tables = 2 * work.feature_bytes(*features.shape, 4) + len(features) * 5 * 12
    assert pool.num_bytes == pytest.approx(tables, rel=0.05)


# What is measured


def test_codes_are_made_each_time_they_are_measured() -> None:
    run = Run(pool=CountedPool(rows_of(2000), 2))
    size = Size(num_rows=2000, num_features=16, num_shards=2)
    made = []
    for _ in range(2):
        measured("codes", run, size)
        made.append([coded_rows(shard) for shard in run.pool.shards])
    assert all(before is not after for before, after in zip(*made, strict=True))


def test_the_search_is_no_part_of_the_jaccard_stage() -> None:
    features = rows_of(4000, 64)
    run, size = Run(pool=CountedPool(features, 1)), Size(num_rows=4000, num_features=64)
    row = measured("jaccard", run, size)
    assert run.distance is not None
    assert run.distance.shape == (4000, 4000)
    assert row["cpu_s"] > 0
    assert row["wall_s"] > 0
    assert row["work"] == work.jaccard_adds(4000, K1)
    within, _ = run.pool.spent[STAGES["jaccard"].without]
    assert within > 0


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure small tables, everything once."""
    monkeypatch.setattr(scale, "SIZES", (300, 600))
    monkeypatch.setattr(scale, "DIMENSIONS", (16, 32))
    monkeypatch.setattr(scale, "CLUSTERS", 10)
    monkeypatch.setattr(scale, "SWEEP_ROWS", 600)
    monkeypatch.setattr(scale, "SWEEP_CLUSTERS", (5, 30))
    monkeypatch.setattr(scale, "MORE_ROWS_A_CLUSTER", (50,))
    monkeypatch.setattr(scale, "SHARD_ROWS", 600)
    monkeypatch.setattr(scale, "SHARDS", (2,))
    monkeypatch.setattr(scale, "_WARM_UP_ROWS", 200)
    monkeypatch.setattr(scale_stages, "_ENOUGH_S", 1e-9)


def test_the_command_measures_fits_and_draws(
    tiny: None, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.benchmark.console", Console(stderr=True, width=150))
    file, figure = tmp_path / "rows.json", tmp_path / "scale.png"
    main(["scale", "--json", str(file), "--figure", str(figure), "--folder", str(tmp_path)])
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"rows.json", "scale.png"}
    result = json.loads(file.read_text())
    assert {row["stage"] for row in result["rows"]} == set(FACTORS)
    assert all(row["cpu_s"] > 0 and row["peak_mib"] >= 0 for row in result["rows"])
    told = capsys.readouterr().err
    assert "600 x 16, 30" in told
    assert "NEIGHBORS_CORE = PowerLaw(" in told
    scale.main(str(file))
    printed = capsys.readouterr().out
    assert result["machine"] in printed
    for stage in LAWS:
        assert f"{stage.upper()}_CORE = PowerLaw(" in printed
        assert f"| {stage} |" in printed


def test_what_would_take_too_long_is_left_out(tiny: None, tmp_path: Path) -> None:
    options = scale.Options(largest=600, longest=0.0, folder=str(tmp_path))
    rows = scale.measure(options, show=lambda *_: None)
    out = [row for row in rows if "left_out" in row]
    assert {row["stage"] for row in rows if "cpu_s" in row} >= {"greedy", "neighbors"}
    assert all(
        row["num_rows"] == 300 for row in rows if row["stage"] == "neighbors" and row not in out
    )
    assert {row["stage"] for row in out} >= {"greedy", "parallel", "lloyd", "neighbors", "jaccard"}
    told = scale.left_out(rows)
    assert len(told) == len(out)
    assert any("would take about" in line for line in told)


def test_files_too_large_are_left_out(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "LARGEST_FILE", 4 * 300 * 16)
    options = scale.Options(largest=300, folder=str(tmp_path))
    rows = scale.measure(options, show=lambda *_: None)
    assert {row["num_features"] for row in rows if "cpu_s" in row} == {16}
    assert all("the file would exceed" in row["left_out"] for row in rows if "left_out" in row)


# What is written


def test_the_document_quotes_the_laws_that_the_planner_uses() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert rates.MEASURED_ON in text
    for stage in LAWS:
        law: PowerLaw = getattr(rates, f"{stage.upper()}_CORE")
        factors = [law.rows, law.features, *([law.clusters] if law.clusters else [])]
        cells = [f"{f.exponent:.2f} ± {f.error:.2f}" for f in factors]
        assert re.search(rf"^\| {stage} \| {re.escape(' | '.join(cells))} \|", text, re.MULTILINE)


def planned(capsys: Capture, **options: Any) -> tuple[str, dict[str, Any]]:
    plan.main(plan.Options(images=100e6, clusters=1e6, **options))
    out, err = capsys.readouterr()
    return err, json.loads(out)


def test_the_document_quotes_the_plan(capsys: Capture) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, gpus in (("gpus", 64), ("processors", 0)):
        table, _ = planned(capsys, gpus=gpus, nodes=8)
        quoted = text.partition(f"<!-- plan: {name} -->\n```text\n")[2].partition("```")[0]
        assert quoted.split() == table.split()
    for gpus in (8, 16, 32, 64):
        for features in (256, 2048):
            _, result = planned(capsys, gpus=gpus, features=features)
            names = ("extract", "seed_hierarchy", "lloyd_hierarchy", "neighbors")
            cells = [duration(result["steps"][name]["seconds"]) for name in names]
            assert f"| {gpus} | {features} | {' | '.join(cells)} |" in text
