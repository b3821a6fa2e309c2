"""The planner: published figures, how things grow, what is advised, the command."""

import json
import math
import runpy
import sys
from dataclasses import replace
from typing import Any

import pytest

from jobs import plan
from jobs.planning import work
from jobs.planning.advice import EXACT_NEIGHBORS_UP_TO, PCA_FEATURES, advise
from jobs.planning.estimate import SAMPLED_ROWS, Step, steps
from jobs.planning.given import Fleet, Workload
from jobs.planning.rates import (
    CPU_CORE,
    EXCHANGE_S_PER_ACTOR,
    GREEDY_CORE,
    H200,
    MEASURED_ON,
    NEIGHBORS_CORE,
    Factor,
    Law,
)
from jobs.planning.words import amount, digits, duration
from reid.clustering import pairs, parallel, scores, seeding
from reid.clustering.hierarchy import FLAT_CLUSTERS
from reid.clustering.parallel import GREEDY_CLUSTERS

Capture = pytest.CaptureFixture[str]

H200_BF16, CPU_FP32 = 989e12, 270e9
"""FLOP/s of the published table: an H200's data sheet, two measured cores"""
MINUTE, HOUR = 60, 3600
D = 2048
MARKET, MSMT17, VERI_WILD, HUNDRED_MILLION = 12_936, 32_621, 277_797, 10**8


def load_of(images: float, clusters: float, **changes: Any) -> Workload:
    return Workload(num_images=int(images), num_clusters=int(clusters), num_features=D, **changes)


def fleet_of(gpus: int, **changes: Any) -> Fleet:
    size = {"num_nodes": max(gpus // 8, 1), "cores_per_node": 96}
    memory = {"gpu_memory": 141e9, "host_memory": 2e12}
    return Fleet(num_gpus=gpus, **{**size, **memory, **changes})


def printed(value: float, digits: int) -> float:
    """Return a value with as many digits as it was published with."""
    return float(f"{value:.{digits}g}")


def check_published(seconds: float, text: str) -> None:
    """Compare with a published time in as many decimals as it has."""
    value, unit = text.split()
    found = seconds / {"ms": 1e-3, "s": 1, "min": MINUTE, "h": HOUR}[unit]
    assert round(found, len(value.partition(".")[2])) == float(value)


# Published figures (performance study, section 4.1 to 4.3)


@pytest.mark.parametrize(
    ("images", "clusters", "lloyd", "seeding"),
    [
        (MARKET, 700, "0.04 ms", "0.3 ms"),
        (MSMT17, 1500, "0.2 ms", "2 ms"),
        (VERI_WILD, 30_671, "35 ms", "0.42 s"),
        (HUNDRED_MILLION, 10**4, "4.1 s", "46 s"),
        (HUNDRED_MILLION, 10**6, "6.9 min", "1.7 h"),
    ],
)
def test_operations_of_kmeans_are_those_of_the_published_times_at_peak(
    images: int, clusters: int, lloyd: str, seeding: str
) -> None:
    check_published(work.lloyd_flops(images, D, clusters) / H200_BF16, lloyd)
    check_published(work.seeding_flops(images, D, clusters) / H200_BF16, seeding)


def test_operations_of_smaller_rounds_on_two_cores() -> None:
    check_published(work.lloyd_flops(MARKET, D, 700) / CPU_FP32, "137 ms")
    check_published(work.seeding_flops(MARKET, D, 700) / CPU_FP32, "1.1 s")
    check_published(work.neighbor_flops(MARKET, D) / CPU_FP32, "2.5 s")
    check_published(work.lloyd_flops(MSMT17, D, 1500) / CPU_FP32, "0.74 s")
    check_published(work.seeding_flops(MSMT17, D, 1500) / CPU_FP32, "6.7 s")
    check_published(work.seeding_flops(VERI_WILD, D, 30_671) / CPU_FP32, "26 min")


def test_neighbours_of_a_hundred_million() -> None:
    seconds = work.neighbor_flops(HUNDRED_MILLION, D) / H200_BF16
    check_published(seconds, "11.5 h")
    check_published(seconds / 64, "11 min")


def test_the_hierarchy_is_500_times_cheaper() -> None:
    levels = work.hierarchy_lloyd_flops(HUNDRED_MILLION, D, 10**6)
    assert printed(levels, 1) == 8e14
    assert work.lloyd_flops(HUNDRED_MILLION, D, 10**6) / levels == pytest.approx(500)


def test_bytes_are_the_published_ones() -> None:
    assert work.pixel_bytes(1, height=256, width=128) == 98_304
    assert printed(work.pixel_bytes(HUNDRED_MILLION, height=256, width=128), 3) == 9.83e12
    assert printed(work.feature_bytes(HUNDRED_MILLION, D, 2), 2) == 410e9
    assert printed(work.feature_bytes(HUNDRED_MILLION, 256, 2), 2) == 51e9
    entries = {MARKET: 9e6, MSMT17: 23e6, VERI_WILD: 0.2e9, HUNDRED_MILLION: 72e9}
    for images, published in entries.items():
        found = work.jaccard_entries(images, 30) * work.SPARSE_ENTRY_BYTES
        assert found == pytest.approx(published, rel=0.04)


def test_extraction_is_as_the_study_expects() -> None:
    per_image = work.extraction_flops(1, "resnet50", height=256, width=128)
    assert printed(per_image, 3) == 16.2e9
    assert 2.5 * HOUR < H200.extraction(per_image * HUNDRED_MILLION) < 3.5 * HOUR
    assert CPU_CORE.extraction(per_image * MARKET / 2) == pytest.approx(4.2 * MINUTE)
    assert work.extraction_flops(1, "resnet50", height=256, width=256) == 2 * per_image


def test_constants_are_those_of_the_algorithms() -> None:
    assert SAMPLED_ROWS == scores.SAMPLE
    assert work.TILE == pairs.TILE
    assert work.SEEDING_CANDIDATES == seeding._MOST_CANDIDATES
    assert work.PARALLEL_ROUNDS == parallel._ROUNDS
    assert work.PARALLEL_OVERSAMPLING == parallel._PER_ROUND
    for clusters in (1, 2, 3, 20, 21, 700, 10**6):
        assert work.num_trials(clusters) == seeding.default_trials(clusters)


# How things grow


def steps_of(load: Workload, fleet: Fleet) -> dict[str, Step]:
    return steps(load, fleet, "gpu" if fleet.num_gpus else "host")


def test_twice_the_images() -> None:
    one, two = load_of(1e6, 1e4), load_of(2e6, 1e4)
    assert two.all_bytes == 2 * one.all_bytes
    assert two.pixel_bytes == 2 * one.pixel_bytes
    before, after = steps_of(one, fleet_of(8)), steps_of(two, fleet_of(8))
    for name in ("decode", "extract", "seed_greedy", "lloyd_flat", "lloyd_hierarchy", "jaccard"):
        assert after[name].work == pytest.approx(2 * before[name].work)
        assert after[name].messages == before[name].messages
    assert after["neighbors"].work == 4 * before["neighbors"].work
    assert after["neighbors_probed"].work == pytest.approx(2**1.5 * before["neighbors_probed"].work)


def test_twice_the_gpus_share_the_arithmetic() -> None:
    load = load_of(HUNDRED_MILLION, 10**4)
    few, many = steps_of(load, fleet_of(8)), steps_of(load, fleet_of(16))
    assert few["neighbors"].limit == many["neighbors"].limit == "arithmetic"
    assert few["seed_greedy"].work == many["seed_greedy"].work
    for name in ("neighbors", "extract"):
        assert 1.8 < few[name].seconds / many[name].seconds <= 2


def test_three_views_are_three_clusterings() -> None:
    one, three = (steps_of(load_of(1e6, 1e4, num_views=v), fleet_of(8)) for v in (1, 3))
    for name in ("seed_greedy", "lloyd_flat", "seed_hierarchy", "health"):
        assert three[name].work == pytest.approx(3 * one[name].work)
        assert three[name].messages == pytest.approx(3 * one[name].messages)
        assert three[name].seconds == pytest.approx(3 * one[name].seconds)
    assert three["neighbors"] == one["neighbors"]


def test_every_centre_of_the_greedy_draw_is_a_message() -> None:
    found = steps_of(load_of(1e6, 3e4), fleet_of(64))["seed_greedy"]
    assert 30_000 < found.messages < 1.1 * 30_000
    assert found.limit == "messages"
    assert found.seconds > 30_000 * 64 * EXCHANGE_S_PER_ACTOR


def test_one_device_has_nobody_to_talk_to() -> None:
    load = load_of(1e6, 3e4)
    found = steps_of(load, fleet_of(1))
    seeding = H200.greedy(work.seeding_flops(1e6, D, 3e4))
    assert found["seed_greedy"].seconds == pytest.approx(seeding)
    iterations = H200.lloyd(20 * work.lloyd_flops(1e6, D, 3e4))
    assert found["lloyd_flat"].seconds == pytest.approx(iterations)


def test_slower_places_take_longer() -> None:
    load, fleet = load_of(HUNDRED_MILLION, 10**4), fleet_of(64)
    gpu, host, files = (steps(load, fleet, p)["lloyd_flat"] for p in ("gpu", "host", "files"))
    assert gpu.seconds <= host.seconds < files.seconds
    assert files.limit == "reading"
    assert files.seconds >= 20 * load.all_bytes / (8 * 6e9)


def test_a_law_passes_through_its_measurement() -> None:
    law = Law(work=1e9, seconds=3.0, exponent=1.5)
    assert law(1e9) == 3.0
    assert law(4e9) == pytest.approx(3 * 8)
    with pytest.raises(ValueError, match="above 0"):
        Law(work=0)


def test_fitted_laws_are_used_as_they_are_and_told() -> None:
    load, fleet = load_of(1e5, 300), fleet_of(0, cores_per_node=4)
    found = steps_of(load, fleet)
    assert CPU_CORE.greedy is GREEDY_CORE
    waiting = found["seed_greedy"].messages * fleet.exchange_s
    seconds = GREEDY_CORE(1e5, D, 300) / 4 + waiting
    assert found["seed_greedy"].seconds == pytest.approx(seconds, rel=1e-3)
    views = steps_of(replace(load, num_views=3), fleet)
    assert views["neighbors"].seconds == found["neighbors"].seconds
    far = advise(load_of(HUNDRED_MILLION, 10**4), fleet_of(8)).reasons[-1]
    beyond = HUNDRED_MILLION / NEIGHBORS_CORE.rows.largest
    assert f"neighbours {digits(beyond, 2)}x" in far
    assert MEASURED_ON in far


def test_beyond_what_was_measured_growth_is_that_of_the_operations() -> None:
    factor = Factor(middle=10, exponent=0.5, error=0.1, largest=100, counted=1)
    assert factor(10) == 1
    assert factor(40) == 2
    assert factor(1000) == pytest.approx(10 * 10**0.5)
    assert replace(factor, counted=0)(1000) == pytest.approx(10)


def test_shards_of_their_own_work_out_most_pairs_twice() -> None:
    assert work.neighbor_share(1) == 0.5
    assert work.neighbor_share(4) == pytest.approx(4 * (1 / 32 + 3 / 16))  # own half, others whole


# What is advised


@pytest.mark.parametrize(
    ("gpus", "changes", "place", "features", "number_bytes"),
    [
        (64, {}, "gpu", D, 4),
        (6, {}, "gpu", D, 2),
        (1, {}, "gpu", PCA_FEATURES, 2),
        (1, {"gpu_memory": 40e9}, "host", D, 4),
        (1, {"gpu_memory": 40e9, "host_memory": 900e9}, "files", D, 4),
        (0, {}, "host", D, 4),
        (0, {"host_memory": 600e9}, "host", D, 2),
        (0, {"host_memory": 40e9}, "files", D, 4),
    ],
)
def test_features_lie_in_the_first_place_they_fit(
    gpus: int, changes: dict[str, Any], place: str, features: int, number_bytes: int
) -> None:
    advice = advise(load_of(HUNDRED_MILLION, 10**4), fleet_of(gpus, **changes))
    assert (advice.place, advice.stored.num_features) == (place, features)
    assert advice.stored.number_bytes == number_bytes
    assert advice.stored.all_bytes <= fleet_of(gpus, **changes).room(advice.place)
    assert amount(load_of(HUNDRED_MILLION, 10**4).all_bytes, "B") in advice.reasons[0]


@pytest.mark.parametrize(
    ("images", "clusters", "gpus", "views", "seeding"),
    [
        (MARKET, 700, 0, 3, "greedy"),
        (1e6, GREEDY_CLUSTERS, 64, 1, "greedy"),
        (1e6, GREEDY_CLUSTERS + 1, 64, 1, "parallel"),
        (VERI_WILD, 30_671, 1, 1, "parallel"),
        (1e6, FLAT_CLUSTERS, 64, 3, "parallel"),
        (1e6, FLAT_CLUSTERS + 1, 64, 3, "hierarchy"),
        (HUNDRED_MILLION, 10**6, 64, 1, "hierarchy"),
    ],
)
def test_seeding_follows_the_clusters(
    images: float, clusters: int, gpus: int, views: int, seeding: str
) -> None:
    advice = advise(load_of(images, clusters, num_views=views), fleet_of(gpus))
    assert advice.seeding == seeding
    assert advice.reasons[1].startswith(f"{seeding}: ")


def test_neighbours_beyond_reach_are_told() -> None:
    near = advise(load_of(EXACT_NEIGHBORS_UP_TO, 10**4), fleet_of(8)).reasons[2]
    far = advise(load_of(EXACT_NEIGHBORS_UP_TO + 1, 10**4), fleet_of(8)).reasons[2]
    assert "approximate" not in near
    assert "grow with the square" in far


def test_pca_is_named_where_clustering_takes_longest() -> None:
    load = load_of(1e6, FLAT_CLUSTERS, iterations=300)
    slow = advise(load, fleet_of(1))
    names = ("seed_parallel", "lloyd_flat")
    small = steps_of(replace(load, num_features=PCA_FEATURES), fleet_of(1))
    ratio = sum(slow.steps[name].seconds / sum(small[n].seconds for n in names) for name in names)
    assert f"PCA to 256 dimensions would make it about {digits(ratio, 2)}x" in slow.reasons[3]
    quick = advise(load_of(MARKET, 700), fleet_of(1))
    assert not any("PCA" in reason for reason in quick.reasons)


def test_many_exchanges_are_told() -> None:
    load = load_of(HUNDRED_MILLION, 10**6)
    (many,) = [reason for reason in advise(load, fleet_of(64)).reasons if "exchanges" in reason]
    assert many.startswith("k-means mostly waits for 1,")
    assert "among 64 actors, 3.8 ms each" in many
    assert not any("exchanges" in reason for reason in advise(load, fleet_of(1)).reasons)


# Words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (9.8304e12, "9.83 TB"), (4.1e28, "4.1e+04 YB")],
)
def test_amounts(value: float, text: str) -> None:
    assert amount(value, "B") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1e-6, "< 0.1 ms"), (3e-4, "0.3 ms"), (0.05, "50 ms"), (4.12, "4.1 s"), (59, "59 s"),
        (6.9 * MINUTE, "6.9 min"), (41_400, "12 h"), (3 * 86_400, "3.0 d"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# The command


def options(**changes: Any) -> plan.Options:
    return plan.Options(**{"images": 100e6, "clusters": 1e6, "gpus": 64, **changes})


def test_tables_and_json_say_the_same(capsys: Capture) -> None:
    plan.main(options())
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["workload"]["num_images"] == HUNDRED_MILLION
    assert result["fleet"]["num_nodes"] == 8
    sizes = {row["what"]: row for row in result["memory"]}
    assert sizes["decoded images"]["bytes_each"] == HUNDRED_MILLION * 98_304 / 8
    assert sizes["features as asked"]["bytes"] == HUNDRED_MILLION * D * 4
    assert "9.83 TB" in err
    assert "64 x NVIDIA H200" in err
    for step in result["steps"].values():
        assert step["name"] in err
        assert duration(step["seconds"]) in err
        assert math.isfinite(step["seconds"])
    used = ("extract", "seed_hierarchy", "lloyd_hierarchy", "health")
    total = sum(result["steps"][name]["seconds"] for name in used)
    assert result["seconds"]["k-means"] == pytest.approx(total)
    for reason in result["advice"]["reasons"]:
        assert f"* {reason}" in err


def test_clusters_default_to_the_published_ratio(capsys: Capture) -> None:
    plan.main(options(images=12936, clusters=None, gpus=0, nodes=1, cores=2))
    result = json.loads(capsys.readouterr().out)
    assert result["workload"]["num_clusters"] == 646
    assert result["steps"]["extract"]["seconds"] == pytest.approx(4.2 * MINUTE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": 1.5}, "--images is 1.5; give a whole number"),
        ({"images": math.inf}, "--images is inf; give a whole number"),
        ({"images": 1, "clusters": None}, "there are 1 images; a clustering takes at least 2"),
        ({"clusters": 1e9}, "there are to be 1000000000 clusters; choose from 2 to the 100000000"),
        ({"clusters": 1}, "there are to be 1 clusters"),
        ({"features": 0}, "num_features is 0; it must be at least 1"),
        ({"gpus": -1}, "there are -1 GPUs; give 0"),
        ({"nodes": 0}, "there are 0 nodes of 96 cores"),
        ({"gpu_memory_gb": math.nan}, "give more than 0"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    changes: dict[str, Any], words: str, capsys: Capture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        plan.main(options(**changes))
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["jobs.plan", *arguments])
    runpy.run_path(plan.__file__, run_name="__main__")


def test_the_command_line_takes_large_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    run_command(monkeypatch, "--images", "100e6", "--gpus", "64", "--precision", "bfloat16")
    result = json.loads(capsys.readouterr().out)
    assert result["workload"]["num_clusters"] == 5_000_000
    assert result["workload"]["number_bytes"] == 2


def test_help_names_options_and_units(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, "--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for word in ("--images", "--clusters", "--host-memory-gb", "GB", "pixels", "dimensions"):
        assert word in text


def test_views_change_memory_and_more_of_everything_never_less_time() -> None:
    base = load_of(1e6, 1e4)
    for field in ("num_images", "num_clusters", "num_features", "num_views", "iterations", "k1"):
        more = replace(base, **{field: 2 * getattr(base, field)})
        before, after = steps_of(base, fleet_of(8)), steps_of(more, fleet_of(8))
        assert all(after[name].seconds >= before[name].seconds for name in before)
        assert more.all_bytes >= base.all_bytes
