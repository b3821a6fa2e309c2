"""What every method is to the loop: a config and six methods."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor, nn

from reid.clustering import DBSCANConfig, ShardPool
from reid.data.augment import AugmentConfig
from reid.data.steps import Draw, Table
from reid.models.backbones import BackboneName
from reid.recipes.published import Published
from reid.types import Batch, PseudoLabels


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Adam and its schedule."""

    lr: float = 3.5e-4
    """learning rate after the warm-up"""
    weight_decay: float = 5e-4
    """L2 penalty inside Adam, as the field's code has it (not decoupled)"""
    clip_norm: float | None = None
    """largest gradient norm of a step; None leaves gradients alone"""
    warmup_rounds: int = 0
    """rounds of linear growth from a hundredth of the learning rate"""
    milestones: tuple[int, ...] = ()
    """rounds after which the learning rate is divided by ten"""
    lr_decay: Literal["none", "cosine"] = "none"
    """after the warm-up: hold the rate (published), or let it fall to zero with the last step"""
    optimizer_reset: bool = False
    """forget Adam's moments at each round, as released mean-teacher code does"""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        if self.lr <= 0:
            raise ValueError(f"optim.lr is {self.lr}; it must be above 0")
        if self.weight_decay < 0:
            raise ValueError(f"optim.weight_decay is {self.weight_decay}; it must not be negative")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(
                f"optim.clip_norm is {self.clip_norm}; it must be above 0, or None for no limit"
            )
        if self.warmup_rounds < 0:
            raise ValueError(
                f"optim.warmup_rounds is {self.warmup_rounds}; it must not be negative"
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What to train, whatever the method; where it runs is `cluster.config.ClusterConfig`."""

    source: str = "market1501"
    """labelled data set: a reader's name, or READER:FOLDER where its folder has another name"""
    target: str = "cuhk03_np"
    """unlabelled data set, named in the same way, on whose test split the run is evaluated"""
    backbone: BackboneName = "resnet50"
    weights: str | None = "imagenet"
    """first weights of the backbone: `imagenet` (torchvision's, none for IBN-a), a file, or None"""
    last_stride: Literal[1, 2] | None = None
    """stride of the backbone's last stage; None: 1 for ResNet-50 and deeper, else 2 (published)"""
    height: int = 256
    """image height in pixels"""
    width: int = 128
    """image width in pixels"""
    num_rounds: int = 80
    """rounds of extract, cluster, train (supervised: epochs)"""
    steps_per_round: int = 400
    """optimizer updates a round"""
    num_identities: int = 32
    """identities in a batch, over all workers"""
    num_instances: int = 4
    """images of each identity in a batch"""
    norm_group: int | None = None
    """images of a worker that share BatchNorm statistics; None: all of them"""
    optim: OptimConfig = OptimConfig()
    augment: AugmentConfig = AugmentConfig()
    eval_every_rounds: int = 1
    """rounds between evaluations on the test split (the last round is always evaluated)"""
    selection: Literal["last", "oracle"] = "last"
    """which round is reported: the last, or the best on target test labels (for comparability)"""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """arithmetic of the networks; features, losses and weights stay float32"""
    extract_batch: int = 128
    """images at a time when features are extracted; part of the result's last bits"""
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        rounds = ("num_rounds", "steps_per_round", "eval_every_rounds")
        self.check_range("height", "width", "extract_batch", *rounds, least=1)
        if self.num_identities < 2 or self.num_instances < 2:
            raise ValueError(
                f"a batch of {self.num_identities} identities x {self.num_instances} images has no "
                "triplet; give --num-identities and --num-instances of 2 or more"
            )
        if self.norm_group is not None and self.norm_group < 2:
            raise ValueError(
                f"norm_group is {self.norm_group}; give 2 images or more, or None for all"
            )

    @property
    def starts(self) -> dict[str, str]:
        """{field: source run or checkpoint file that a backbone starts from}; none: `weights`."""
        return {}

    @property
    def reads_source(self) -> bool:
        """Whether labelled source images are trained on."""
        return False

    @property
    def clusters(self) -> bool:
        """Whether target images are clustered each round."""
        return True

    def check_range(self, *names: str, least: int = 0, most: int | None = None) -> None:
        """Raise ValueError for fields outside `least` to `most`."""
        for name in names:
            value = getattr(self, name)
            if not least <= value <= (inf if most is None else most):
                be = f"be at least {least}" if most is None else f"lie between {least} and {most}"
                raise ValueError(f"{name} is {value}; it must {be}")

    def check_target(self, num_images: int) -> None:
        """Raise ValueError for settings that a target of so many training images cannot train."""

    @property
    def stride(self) -> Literal[1, 2]:
        """The last stage's stride, resolved."""
        if self.last_stride is not None:
            return self.last_stride
        return 2 if self.backbone.startswith(("resnet18", "resnet34")) else 1


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a recipe's networks and memories are sized by, besides its config."""

    num_identities: int
    """identities of the source's training images, 0 where none are read"""
    num_images: int
    """training images of the target"""


Starts = Mapping[str, Mapping[str, Tensor]]
"""The weights of the student of each of `RunConfig.starts`: `backbone.*`, `neck.*` and others."""
NO_STARTS: Starts = MappingProxyType({})


MEMORY = "memory."
"""Where in a recipe's `networks` buffers lie whose number of rows differs from round to round."""


@runtime_checkable
class Recipe(Protocol):
    """A published method: its networks, what is clustered, what is minimised.

    `networks` holds everything the method learns (students, teachers, a `memory` of buffers): the
    loop moves, saves and switches it as a whole. `student` is the trainable part, which the loop
    replaces by its gradient-averaging wrapper. `views` are clustered each round, none where labels
    are given; `draws` are the batches of a step. `label` may leave a view without labels.
    """

    networks: nn.ModuleDict
    student: Any

    @property
    def config(self) -> RunConfig:
        """What was asked for."""
        ...

    @property
    def sizes(self) -> Sizes:
        """What it was built for."""
        ...

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the clustered features."""
        ...

    @property
    def draws(self) -> tuple[Draw, ...]:
        """The batches of a step."""
        ...

    def features(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B D"]]:
        """Return what is clustered, a unit-length matrix a view (evaluation mode, no gradient)."""
        ...

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Return what retrieval compares, unit length (evaluation mode, no gradient)."""
        ...

    def label(self, pools: Mapping[str, ShardPool], *, round: int) -> dict[str, PseudoLabels]:
        """Cluster the extracted rows, in one process: a pure function of (rows, round, seed)."""
        ...

    def begin_round(self, labels: Mapping[str, PseudoLabels]) -> None:
        """Reset what depends on the round's labels: classifier rows, memories, counters."""
        ...

    def losses(self, batches: Mapping[str, Batch]) -> dict[str, Float[Tensor, ""]]:
        """Return named, already weighted terms of one step; their sum is minimised."""
        ...

    def after_step(self, *, step: int) -> None:
        """Update teacher or memory; `step` counts from 0 over the whole run."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A recipe with a memory of whole tables, clustered instead of new features."""

    def remember(self, extract: "Extract", tables: Mapping[str, Table], *, round: int) -> None:
        """Fill the memory from features of whole tables, or leave it: called before each round."""
        ...

    def remembered(self) -> dict[str, Float[Tensor, "N D"]]:
        """Return the rows to cluster, a unit-length matrix a view."""
        ...


@runtime_checkable
class CameraAware(Protocol):
    """A recipe whose labelling asks which camera took an image."""

    def know_cameras(self, camid: Int64[np.ndarray, "N"]) -> None:
        """Keep the cameras of the target's training images: called before rounds begin or go on."""
        ...


Extract = Callable[[str, Callable[[Tensor], Tensor]], Tensor]
"""Called with (table, function of images (B,3,H,W)); returns all rows' values on every rank."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method as the commands know it: its config's class, its recipe, its named runs."""

    config: type[RunConfig]
    recipe: Callable[..., Recipe]
    """called with (config, sizes=Sizes, starts=Starts)"""
    runs: Mapping[str, RunConfig]
    published: Mapping[str, Published] = field(default_factory=dict)
    """what papers say of runs, by the run's name"""


def target_draw(config: RunConfig) -> Draw:
    """Return the batch of a method that draws one of target images by their global labels."""
    return Draw(
        name="target",
        table="target",
        labels="global",
        num_identities=config.num_identities,
        num_instances=config.num_instances,
    )


def check_clusters(num_clusters: int, num_images: int) -> None:
    """Refuse more clusters than images."""
    if num_clusters > num_images:
        raise ValueError(
            f"num_clusters is {num_clusters}, but the target has only {num_images} training "
            "images; give fewer clusters with --num-clusters"
        )


def check_room(num_clusters: int, max_clusters: int) -> None:
    """Refuse more clusters than classifiers have room for."""
    if num_clusters > max_clusters:
        raise ValueError(
            f"there are {num_clusters} clusters and max_clusters is {max_clusters}; give "
            f"--max-clusters {num_clusters} or more, or cluster more loosely (a larger eps)"
        )


def check_teacher(config: RunConfig) -> None:
    """Refuse what no mean teacher trains with: its `num_clusters`, `ema_momentum`, `smoothing`."""
    config.check_range("num_clusters", least=2)
    config.check_range("ema_momentum", "smoothing", most=1)


class DemoSettings(TypedDict):
    """Fields of all the demo's runs."""

    source: str
    target: str
    backbone: BackboneName
    weights: None
    last_stride: Literal[1, 2]
    height: int
    width: int
    num_identities: int
    norm_group: None
    augment: AugmentConfig


DEMO: DemoSettings = {
    "source": "synthetic_a",
    "target": "synthetic_b",
    "backbone": "resnet18",
    "weights": None,
    "last_stride": 2,
    "height": 64,
    "width": 32,
    "num_identities": 16,
    "norm_group": None,
    "augment": AugmentConfig(pad=3),
}


DEMO_DBSCAN = DBSCANConfig(k1=12, k2=4, eps=0.55)
"""The demo's density clustering: its identities have 12 images."""

DEMO_UNLABELLED: DemoSettings = {**DEMO, "source": DEMO["target"]}
"""The demo of methods that read no source."""


class DemoBudget(DemoSettings):
    """Fields of all the demo's adaptations, so that methods compare under one budget."""

    initial: str
    num_clusters: int
    num_rounds: int
    steps_per_round: int
    eval_every_rounds: int
    ema_momentum: float
    optim: OptimConfig


DEMO_BUDGET: DemoBudget = {
    **DEMO,
    "initial": "source-demo",
    "num_clusters": 250,
    "num_rounds": 8,
    "steps_per_round": 60,
    "eval_every_rounds": 2,
    "ema_momentum": 0.99,
    "optim": OptimConfig(lr=7e-4, optimizer_reset=True),
}


def round_seed(seed: int, *stream: int) -> int:
    """Return a 63-bit seed for one purpose of a run, such as (round, view): independent streams."""
    return int(np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)[0] >> 1)
