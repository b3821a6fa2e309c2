"""Losses and memories over two processes: they train as one process with the whole batch.

One start of two processes does all the work; the tests look at what they brought back.
"""

from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.nn.functional as F

from reid import dist
from reid.losses import batch_hard_triplet, soft_softmax_triplet, softmax_triplet
from reid.memory import ClusterMemory, HybridMemory

WORLD, STEPS, B, D = 2, 3, 12, 5
COUNTS = [5, 2]
JOBS = ("softmax", "soft", "hard", "hybrid", "cluster", "hardest_cluster")


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_memory(job):
    if job == "hybrid":
        return HybridMemory(drawn(9, D, seed=1), torch.tensor([0, 0, 1, 2, 1, 0, 3, 4, 4]))
    return ClusterMemory(drawn(9, D, seed=1), hard=job == "hardest_cluster")


def triplet(job, features, taught, labels):
    if job == "soft":
        return soft_softmax_triplet(features, taught, labels)
    return {"softmax": softmax_triplet, "hard": batch_hard_triplet}[job](features, labels)


def train(job, rank, world):
    """Return weights, rows and losses after a few steps on this rank's part of each batch."""
    layer = torch.nn.Linear(4, D)
    with torch.no_grad():
        layer.weight.copy_(drawn(D, 4, seed=2))
        layer.bias.zero_()
    wrapped, memory, losses = dist.wrap(layer), make_memory(job), []
    part = slice(rank * B // world, (rank + 1) * B // world)
    for step in range(STEPS):
        images, taught = drawn(B, 4, seed=10 + step), drawn(B, D, seed=20 + step)
        # Labels of one rank alone: its own mining would find no negatives, or other ones.
        labels = torch.arange(B) % 4 + 4 * (torch.arange(B) >= B // 2)
        index = torch.randint(0, 9, (B,), generator=torch.Generator().manual_seed(30 + step))
        features = wrapped(images[part])
        if job in ("softmax", "soft", "hard"):
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
        memory.update(features, index[part])
        losses.append(float(dist.average(loss.detach())))
    rows = memory.bank if job == "hybrid" else memory.centers
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


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=WORLD
    )
    found = {job: train(job, rank, WORLD) for job in JOBS}
    torch.save(found | {"uneven": uneven(rank)}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, pytestconfig):
    """Return what each of the two processes found."""
    folder = tmp_path_factory.mktemp("gathered")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(pytestconfig.rootpath)  # where the processes find this module
        torch.multiprocessing.spawn(work, (folder,), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("job", JOBS)
def test_two_ranks_train_as_one(job, ranks):
    alone = train(job, 0, 1)
    assert not torch.allclose(alone["weights"], drawn(D, 4, seed=2), atol=1e-2)
    for found in ranks:
        torch.testing.assert_close(found[job]["weights"], alone["weights"], rtol=0, atol=1e-6)
        torch.testing.assert_close(found[job]["rows"], alone["rows"], rtol=0, atol=1e-6)
        assert found[job]["losses"] == pytest.approx(alone["losses"], rel=1e-6)
    assert torch.equal(ranks[0][job]["rows"], ranks[1][job]["rows"])


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
        assert torch.equal(found["uneven"]["rows"], rows)
        assert found["uneven"]["needs_gradient"] == (True, False)
        torch.testing.assert_close(found["uneven"]["gradient"], weight.grad, rtol=0, atol=1e-6)
        assert torch.equal(found["uneven"]["half"], rows.bfloat16())


def test_alone_the_batch_is_gathered_already():
    rows = drawn(4, 3, seed=3).requires_grad_()
    assert dist.gather_batch(rows) is rows
