"""Two processes over gloo: collectives, averaged gradients, and a run with equal weights.

One start of two processes does all the work; the tests look at what they brought back.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed

from reid import dist
from reid.evaluate import embed_all
from reid.extract import extract
from reid.fit import fit
from reid.recipes import build
from reid.recipes.contract import OptimConfig

CPU = torch.device("cpu")
COUNTS = [3, 1]
WORLD = 2


def numbers(rank: int, count: int) -> torch.Tensor:
    return torch.arange(count * 2).reshape(count, 2) + 100 * rank


def collectives(rank: int) -> dict:
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.fill_(rank)
    norm.running_var.fill_(10.0 * (rank + 1))
    norm.num_batches_tracked.fill_(7 + rank)
    norm.register_buffer("memory", torch.full((3,), float(rank)))
    dist.average_buffers(norm)
    layer = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    wrapped = dist.wrap(layer)
    wrapped(torch.full((4, 2), float(rank + 1))).mean().backward()
    return {
        "place": (dist.rank(), dist.world_size()),
        "rows": dist.all_gather_rows(numbers(rank, COUNTS[rank])),
        "only_last": dist.all_gather_rows(numbers(rank, 2 * rank)),
        "average": dist.average(torch.tensor([float(rank), 4.0])),
        "buffers": {name: value.clone() for name, value in norm.named_buffers()},
        "gradient": layer.weight.grad,
        "unwrapped": dist.unwrap(wrapped) is layer and wrapped is not layer,
    }


def digest(module: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def training(config, backbone, world, hooks) -> dict:
    recipe = build(config, sizes=world.sizes, backbones={"initial": backbone})
    fit(recipe, world.tables, test=world.test, hooks=hooks, device=CPU)
    query = world.test.query_pixels  # fewer rows than one batch: the first rank has none
    rows = {"rows": range(len(query)), "batch_size": config.extract_batch}
    alone = extract(
        lambda images: {"embed": recipe.embed(images)},
        query,
        **rows,
        device=CPU,
        precision="float32",
    )
    return {
        "digest": digest(recipe.networks),
        "metrics": hooks.reports[-1].metrics,
        "labels": [value.labels for of in hooks.labellings for value in of.labels.values()],
        "series": [report.series for report in hooks.reports],
        "saves": hooks.saved_at,
        "alone": alone["embed"],
        "shared": embed_all(recipe, query, device=CPU),
    }


def work(rank: int, folder: Path, jobs: dict) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=WORLD
    )
    found = {"collectives": collectives(rank)}
    for name, job in jobs.items():
        found[name] = training(**job)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, pytestconfig, tiny_world, tiny_configs, make_recipe, make_hooks):
    """Return what each of the two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    configs = {
        "mean_teacher": replace(tiny_configs["mean_teacher"], num_rounds=2, steps_per_round=2),
        "core_reid_v2": replace(
            tiny_configs["core_reid_v2"],
            batches="three",
            num_rounds=1,
            steps_per_round=2,
            optim=OptimConfig(optimizer_reset=True),
        ),
    }
    backbone = make_recipe(configs["mean_teacher"]).student.backbone.state_dict()
    jobs = {
        name: {"config": c, "backbone": backbone, "world": tiny_world, "hooks": make_hooks()}
        for name, c in configs.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(pytestconfig.rootpath)  # where the processes find this module
        torch.multiprocessing.spawn(work, (folder, jobs), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


def test_rows_arrive_in_rank_order_on_every_rank(ranks):
    expected = torch.cat([numbers(rank, count) for rank, count in enumerate(COUNTS)])
    for rank, found in enumerate(ranks):
        assert found["collectives"]["place"] == (rank, WORLD)
        assert torch.equal(found["collectives"]["rows"], expected)
        assert torch.equal(found["collectives"]["only_last"], numbers(1, 2))


def test_averages_are_over_ranks(ranks):
    for found in ranks:
        assert torch.equal(found["collectives"]["average"], torch.tensor([0.5, 4.0]))


def test_statistics_are_averaged_and_other_buffers_are_not(ranks):
    for rank, found in enumerate(ranks):
        buffers = found["collectives"]["buffers"]
        assert torch.equal(buffers["running_mean"], torch.full((2,), 0.5))
        assert torch.equal(buffers["running_var"], torch.full((2,), 15.0))
        assert int(buffers["num_batches_tracked"]) == 7 + rank
        assert torch.equal(buffers["memory"], torch.full((3,), float(rank)))


def test_wrapped_gradients_are_averaged(ranks):
    for found in ranks:  # of mean(w x): x, which is 1 on one rank and 2 on the other
        assert found["collectives"]["unwrapped"]
        torch.testing.assert_close(found["collectives"]["gradient"], torch.full((1, 2), 1.5))


@pytest.mark.parametrize("method", ["mean_teacher", "core_reid_v2"])
def test_ranks_end_with_equal_weights_labels_and_scores(method, ranks):
    first, second = (found[method] for found in ranks)
    assert first["digest"] == second["digest"]
    assert first["metrics"] == second["metrics"]
    assert first["labels"]
    for mine, other in zip(first["labels"], second["labels"], strict=True):
        assert (mine == other).all()
    # Each rank has its own part of the batch, and only the first saves.
    assert first["series"] != second["series"]
    assert first["saves"][-1][1] == 0
    assert second["saves"] == []


@pytest.mark.parametrize("method", ["mean_teacher", "core_reid_v2"])
def test_features_have_the_same_bits_on_two_ranks_as_on_one(method, ranks):
    for found in ranks:
        assert torch.equal(found[method]["shared"], found[method]["alone"])


def test_alone_everything_is_itself():
    layer = torch.nn.BatchNorm1d(3)
    layer.running_mean.fill_(3.0)
    rows = torch.arange(6).reshape(3, 2)
    assert (dist.rank(), dist.world_size()) == (0, 1)
    assert dist.wrap(layer) is layer is dist.unwrap(layer)
    assert torch.equal(dist.all_gather_rows(rows), rows)
    assert torch.equal(dist.average(rows), rows)
    dist.average_buffers(layer)
    assert torch.equal(layer.running_mean, torch.full((3,), 3.0))
