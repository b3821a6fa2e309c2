"""Two processes over gloo: collectives, averaged gradients, and runs with equal weights.

One start of two processes does all the work; the tests look at what they brought back.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.nn.functional as F

from reid import dist
from reid.evaluate import embed_all
from reid.extract import extract
from reid.fit import fit
from reid.losses import batch_hard_triplet, soft_softmax_triplet, softmax_triplet
from reid.memory import ClusterMemory, HybridMemory
from reid.models import EnsembleFusion, convert_ghost_norm_
from reid.recipes import METHODS, build
from reid.recipes.contract import OptimConfig
from reid.recipes.mining import MiningConfig
from reid.types import Batch, PseudoLabels
from tests.reid.thin import CHANNELS, thin_networks

CPU = torch.device("cpu")
COUNTS = [3, 1]
WORLD = 2
STEPS, B, D = 3, 12, 5
TRIPLETS = ("softmax", "soft", "hard")
GROUP = 4  # rows that share BatchNorm statistics, of one rank
MINING = [name for name, method in METHODS.items() if issubclass(method.config, MiningConfig)]
REMEMBERING = ("spcl", "spcl_usl", "cluster_contrast")
MEMORIES = ("hybrid", "hybrid_once", "cluster", "hardest_cluster")


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


def training(config, world, hooks) -> dict:
    with thin_networks():
        recipe = build(config, sizes=world.sizes)
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
        "state": recipe.networks.state_dict(),
        "metrics": hooks.reports[-1].metrics,
        "labels": [value.labels for of in hooks.labellings for value in of.labels.values()],
        "series": [report.series for report in hooks.reports],
        "saves": hooks.saved_at,
        "alone": alone["embed"],
        "shared": embed_all(recipe, query, device=CPU),
    }


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_memory(job):
    if job.startswith("hybrid"):
        return HybridMemory(drawn(9, D, seed=1), torch.tensor([0, 0, 1, 2, 1, 0, 3, 4, 4]))
    return ClusterMemory(drawn(9, D, seed=1), hard=job == "hardest_cluster")


def triplet(job, features, taught, labels):
    if job == "soft":
        return soft_softmax_triplet(features, taught, labels)
    return {"softmax": softmax_triplet, "hard": batch_hard_triplet}[job](features, labels)


def train_steps(job, rank, world):
    """Return weights, rows and losses after a few steps on this rank's part of each batch."""
    layer = torch.nn.Linear(4, D)
    with torch.no_grad():
        layer.weight.copy_(drawn(D, 4, seed=2))
        layer.bias.zero_()
    wrapped, memory, losses = dist.wrap(layer), make_memory(job), []
    part = slice(rank * B // world, (rank + 1) * B // world)
    for step in range(STEPS):
        images, taught = drawn(B, 4, seed=10 + step), drawn(B, D, seed=20 + step)
        # Each rank has identities of its own: mining in its rows alone finds other negatives.
        labels = torch.arange(B) % 4 + 4 * (torch.arange(B) >= B // 2)
        index = torch.randint(0, 9, (B,), generator=torch.Generator().manual_seed(30 + step))
        features = wrapped(images[part])
        if job in TRIPLETS:
            loss = triplet(
                job,
                dist.gather_batch(features),
                dist.all_gather_rows(taught[part]),
                dist.all_gather_rows(labels[part]),
            )
        else:
            features = F.normalize(features)
            loss = memory.loss(features, index[part])
        layer.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.sub_(0.1 * parameter.grad)
        update = memory.update_once if job == "hybrid_once" else memory.update
        update(features.detach(), index[part])
        losses.append(float(dist.average(loss.detach())))
    rows = memory.bank if job.startswith("hybrid") else memory.centers
    return {"weights": layer.weight.detach(), "rows": rows, "losses": losses}


def uneven(rank):
    """Return the gathered rows of different counts, and one weight's averaged gradient."""
    rows = drawn(sum(COUNTS), 3, seed=3)
    weight = torch.nn.Parameter(torch.ones(3))
    own = rows.split(COUNTS)[rank] * weight
    gathered = dist.gather_batch(own)
    gathered.square().mean().backward()
    half = dist.gather_batch(own.detach().bfloat16())
    return {
        "rows": gathered.detach(),
        "gradient": dist.average(weight.grad),
        "half": half,
        "needs_gradient": (gathered.requires_grad, half.requires_grad),
    }


def whole_batches(recipe):
    """Return {draw: batch of all ranks}, in float64."""
    config = recipe.config
    size = config.num_identities * config.num_instances
    # Half the identities on each rank: mining in its rows alone finds other negatives.
    labels, rows = torch.arange(size) // config.num_instances, torch.arange(size)
    found = {}
    for seed, draw in enumerate(recipe.draws):
        images, second = (drawn(size, 3, 32, 16, seed=7 + 2 * seed + i).double() for i in (0, 1))
        names = recipe.views if draw.labels in recipe.views else (draw.labels,)
        found[draw.name] = Batch(
            images=images,
            second=second if draw.views == 2 else None,
            index=rows,
            labels={} if draw.labels is None else dict.fromkeys(names, labels),
            camid=rows,
        )
    return found


def part_of(batch, part):
    return Batch(
        images=batch.images[part],
        second=None if batch.second is None else batch.second[part],
        index=batch.index[part],
        labels={name: of[part] for name, of in batch.labels.items()},
        camid=batch.camid[part],
    )


def mining_step(config, sizes, rank, world):
    """Return what a step makes of this rank's part of its batches, in float64.

    `terms`: the loss terms; `apart`: the same with triplets of this rank alone; averaged over
    ranks: `gradients` and `statistics` of BatchNorm.
    """
    with thin_networks():
        recipe = build(config, sizes=sizes)
    for module in list(recipe.networks.modules()):
        if isinstance(module, EnsembleFusion):  # published: behind what the GPUs shared
            convert_ghost_norm_(module, group=GROUP)
    recipe.networks.double().train()
    agreement = drawn(sizes.num_images, 2, seed=6).double().sigmoid().numpy()
    found = PseudoLabels(
        labels=np.arange(sizes.num_images) % config.num_identities,
        centers=drawn(config.num_identities, CHANNELS, seed=5).double().numpy(),
        extras={"agreement": agreement} if len(recipe.views) > 1 else {},
    )
    recipe.begin_round(dict.fromkeys(recipe.views, found))
    recipe.student = dist.wrap(recipe.student)
    batches = whole_batches(recipe)
    size = config.num_identities * config.num_instances
    part = slice(rank * size // world, (rank + 1) * size // world)
    batches = {name: part_of(batch, part) for name, batch in batches.items()}
    terms = recipe.losses(batches)
    torch.stack(list(terms.values())).sum().backward()
    dist.average_buffers(recipe.networks)
    student = dist.unwrap(recipe.student)
    statistics = {n: x.clone() for n, x in recipe.networks.named_buffers() if "running" in n}
    recipe.config = replace(config, mining="local")
    with torch.no_grad():
        apart = recipe.losses(batches)
    return {
        "gradients": {n: p.grad for n, p in student.named_parameters() if p.requires_grad},
        "statistics": statistics,
        "terms": {name: float(value.detach()) for name, value in terms.items()},
        "apart": {name: float(value) for name, value in apart.items()},
    }


def work(rank: int, folder: Path, jobs: dict, steps: dict) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=WORLD
    )
    gathered = {job: train_steps(job, rank, WORLD) for job in (*TRIPLETS, *MEMORIES)}
    gathered["uneven"] = uneven(rank)
    found = {"collectives": collectives(rank), "gathered": gathered}
    for name, job in jobs.items():
        found[name] = training(**job)
    found["steps"] = {name: mining_step(*of, rank, WORLD) for name, of in steps.items()}
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def start(_: int, *arguments) -> None:
    """Start all ranks as forks of this process, which has imported everything and run nothing."""
    torch.multiprocessing.start_processes(work, arguments, nprocs=WORLD, start_method="fork")


@pytest.fixture(scope="module")
def shared_steps(tiny_configs, tiny_world):
    """Return {method: (config, sizes)} of a step that ranks share: groups are within each rank."""
    changes = {"weights": None, "norm_group": GROUP, "num_clusters": 4, "fusion": "trained"}

    def change(config):
        return replace(config, **{k: v for k, v in changes.items() if hasattr(config, k)})

    return {name: (change(tiny_configs[name]), tiny_world.sizes) for name in MINING}


@pytest.fixture(scope="module")
def grouped(tiny_configs):
    """Return {run: config} of runs with a memory, whose BatchNorm groups are within each rank."""
    changes = {"num_rounds": 1, "steps_per_round": 2, "norm_group": GROUP}
    return {f"{name}_grouped": replace(tiny_configs[name], **changes) for name in REMEMBERING}


@pytest.fixture(scope="module")
def ranks(
    tmp_path_factory, pytestconfig, tiny_world, tiny_configs, make_hooks, shared_steps, grouped
):
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
        "cluster_contrast": replace(tiny_configs["cluster_contrast"], num_rounds=2),
        "pplr": replace(tiny_configs["pplr"], camera_weight=0.5, num_rounds=1),
        "mmt_dbscan": replace(tiny_configs["mmt_dbscan"], num_rounds=1, steps_per_round=1),
        **grouped,
    }
    jobs = {
        name: {"config": config, "world": tiny_world, "hooks": make_hooks()}
        for name, config in configs.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(pytestconfig.rootpath)  # where the processes find this module
        torch.multiprocessing.spawn(start, (folder, jobs, shared_steps), nprocs=1)
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


@pytest.mark.parametrize(
    "method", ["mean_teacher", "core_reid_v2", "cluster_contrast", "pplr", "mmt_dbscan"]
)
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


@pytest.mark.parametrize("job", [*TRIPLETS, *MEMORIES])
def test_two_ranks_train_as_one(job, ranks):
    alone = train_steps(job, 0, 1)
    assert not torch.allclose(alone["weights"], drawn(D, 4, seed=2), atol=1e-2)
    for found in ranks:
        torch.testing.assert_close(
            found["gathered"][job]["weights"], alone["weights"], rtol=0, atol=1e-6
        )
        torch.testing.assert_close(found["gathered"][job]["rows"], alone["rows"], rtol=0, atol=1e-6)
        assert found["gathered"][job]["losses"] == pytest.approx(alone["losses"], rel=1e-6)
    assert torch.equal(ranks[0]["gathered"][job]["rows"], ranks[1]["gathered"][job]["rows"])


@pytest.mark.parametrize("name", MINING)
def test_gathered_triplets_teach_two_ranks_what_they_teach_one(name, shared_steps, ranks):
    alone, exact = mining_step(*shared_steps[name], 0, 1), {"rtol": 1e-9, "atol": 1e-12}
    mined = [term for term in alone["terms"] if term.startswith(("triplet", "soft_tri", "fused"))]
    assert mined
    assert max(gradient.abs().max() for gradient in alone["gradients"].values()) > 1e-3
    assert alone["apart"] == pytest.approx(alone["terms"], rel=1e-12)
    for found in ranks:
        step = found["steps"][name]
        torch.testing.assert_close(step["gradients"], alone["gradients"], **exact)
        # Ranks exchange statistics in float32.
        torch.testing.assert_close(step["statistics"], alone["statistics"], rtol=1e-5, atol=1e-8)
        for term in mined:
            assert step["terms"][term] == pytest.approx(alone["terms"][term], rel=1e-9)
            assert step["apart"][term] != pytest.approx(alone["terms"][term], rel=1e-4)


@pytest.mark.parametrize("name", REMEMBERING)
def test_runs_with_a_memory_end_on_two_ranks_as_on_one(
    name, ranks, grouped, tiny_world, make_hooks
):
    alone = training(grouped[f"{name}_grouped"], tiny_world, make_hooks())
    first, second = (found[f"{name}_grouped"] for found in ranks)
    (rows,) = (key for key in alone["state"] if key in ("memory.bank", "memory.centers"))
    # Adam turns the last bits of the smallest gradients into steps of a whole learning rate.
    torch.testing.assert_close(first["state"][rows], alone["state"][rows], rtol=0, atol=1e-3)
    (mine,), (other,), (whole,) = first["series"], second["series"], alone["series"]
    for term, expected in whole.items():
        found = [(a + b) / 2 for a, b in zip(mine[term], other[term], strict=True)]
        assert found == pytest.approx(expected, rel=1e-4)
        assert term == "lr" or mine[term] != other[term]


def test_mining_of_each_rank_alone_would_differ():
    features, labels = drawn(B, D, seed=4), torch.arange(B) % 4 + 4 * (torch.arange(B) >= B // 2)
    half = B // 2
    apart = softmax_triplet(features[:half], labels[:half]) / 2
    apart = apart + softmax_triplet(features[half:], labels[half:]) / 2
    assert abs(float(apart - softmax_triplet(features, labels))) > 1e-2


def test_ranks_with_different_numbers_of_rows_have_the_gradient_of_all(ranks):
    rows = drawn(sum(COUNTS), 3, seed=3)
    weight = torch.ones(3, requires_grad=True)
    (rows * weight).square().mean().backward()
    for found in ranks:
        assert torch.equal(found["gathered"]["uneven"]["rows"], rows)
        assert found["gathered"]["uneven"]["needs_gradient"] == (True, False)
        torch.testing.assert_close(
            found["gathered"]["uneven"]["gradient"], weight.grad, rtol=0, atol=1e-6
        )
        assert torch.equal(found["gathered"]["uneven"]["half"], rows.bfloat16())


def test_alone_everything_is_itself():
    layer = torch.nn.BatchNorm1d(3)
    layer.running_mean.fill_(3.0)
    rows = torch.arange(6).reshape(3, 2)
    assert (dist.rank(), dist.world_size()) == (0, 1)
    assert dist.wrap(layer) is layer is dist.unwrap(layer)
    assert torch.equal(dist.all_gather_rows(rows), rows)
    assert dist.gather_batch(rows) is rows
    assert torch.equal(dist.average(rows), rows)
    dist.average_buffers(layer)
    assert torch.equal(layer.running_mean, torch.full((3,), 3.0))
