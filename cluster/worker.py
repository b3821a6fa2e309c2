"""One training process: set the device, open what the run reads, build the recipe, fit."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch

from cluster import checkpoints, direct
from cluster.config import ClusterConfig
from cluster.hooks import RunHooks
from cluster.inputs import Inputs, open_inputs
from cluster.links import Link
from cluster.storage import Folder
from reid import dist
from reid.checkpoint import RunState
from reid.data.loaders import LoaderName, quickest
from reid.fit import fit
from reid.models import below
from reid.recipes import Recipe, RunConfig, build, restore

log = logging.getLogger(__name__)

STUDENT = "student."
"""where a run keeps the weights that another starts from"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run: its name, what to train, where, and the checkpoints it starts from."""

    name: str
    config: RunConfig
    where: ClusterConfig
    starts: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Folder:
        """The run's folder."""
        return Folder(self.where.storage) / self.name

    @property
    def num_shards(self) -> int:
        """Clustering actors of the run: none where labels are given."""
        return self.where.num_shards if self.config.clusters else 0


def work(job: Job, link: Link, *, inputs: Inputs | None = None) -> None:
    """Train a job from its last checkpoint to its end, as one rank of its group."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    for name in ("reid", "cluster"):
        logging.getLogger(name).setLevel(logging.INFO)
    torch.set_num_threads(job.where.threads_per_worker)
    device = pick_device(job.where)
    data = inputs or open_inputs(job.config, job.where, show=link.progress)
    recipe = make_recipe(job, data)
    state = checkpoints.latest(job.folder)
    if state is not None:
        log.info("%s goes on from round %d, step %d", job.name, state.round, state.step)
    if job.config.clusters:
        first = partial(first_network, job, data)
        direct.score(job.folder, first, data.test, link, device=device)
    hooks = RunHooks(
        job.folder,
        link,
        pixels=data.tables["target"].store,
        truth=data.truth,
        camid=data.tables["target"].camid,
        device=device,
        num_rounds=job.config.num_rounds,
        keep_best=job.config.selection == "oracle",
    )
    fit(
        recipe,
        data.tables,
        test=data.test,
        hooks=hooks,
        device=device,
        loader=pick_loader(job, recipe, data, state, link, device=device),
        state=state,
        save_every_steps=job.where.save_every_steps,
    )


def make_recipe(job: Job, data: Inputs) -> Recipe:
    """Return the job's recipe with its first weights; ValueError when they do not fit."""
    starts = {
        start: start_weights(path, job.config.backbone, option=start)
        for start, path in job.starts.items()
    }
    return build(job.config, sizes=data.sizes, starts=starts)


def first_network(job: Job, data: Inputs) -> Recipe:
    """Return the (first) network that a job starts from, else its own with first weights."""
    if job.starts:
        return restore(checkpoints.read(next(iter(job.starts.values()))))
    return build(job.config, sizes=data.sizes)


def start_weights(path: str, expected: str, *, option: str) -> dict[str, torch.Tensor]:
    """Return the student of a checkpoint; ValueError when its backbone is another one.

    `option` is the field of the config that names it.
    """
    state: RunState = checkpoints.read(path)
    check_backbone(path, str(state.config.get("backbone")), expected, option=option)
    return below(state.networks, STUDENT)


def check_backbone(start: str, found: str, expected: str, *, option: str) -> None:
    """Refuse a start with another backbone than the run's; `option` is the field that names it."""
    if found != expected:
        raise ValueError(
            f"{start} holds a {found}, but the run asks for {expected}; give --backbone {found} or "
            f"another --{option.replace('_', '-')}"
        )


def pick_loader(
    job: Job,
    recipe: Recipe,
    data: Inputs,
    state: RunState | None,
    link: Link,
    *,
    device: torch.device,
) -> LoaderName:
    """Return the loader asked for, or the run's so far, or the one rank 0 finds quickest.

    The costs found are logged and shown.
    """
    if job.where.loader != "quickest":
        return job.where.loader
    if state is not None:
        return state.loader
    found: tuple[LoaderName, str] | None = None
    if dist.rank() == 0:
        found = quickest(data.tables, recipe.draws, augment=job.config.augment, device=device)
        log.info("%s", found[1])
        link.progress("loader", 1, 1, found[1])
    return dist.from_first(found)[0]


def pick_device(where: ClusterConfig) -> torch.device:
    """Return this process's device: its local rank's GPU, or the CPU.

    ValueError where a GPU is asked for and this process sees none.
    """
    if not where.use_gpu:
        return torch.device("cpu")
    if not (num_gpus := torch.cuda.device_count()):
        raise ValueError(
            "a GPU is asked for and there is none here, or its driver does not work; run it where "
            "nvidia-smi lists one, or without use-gpu"
        )
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % num_gpus)
    torch.cuda.set_device(device)
    return device
