"""What the comparison of methods runs: worlds, cases and their variants, runs and their starts."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from reid.recipes import RUNS

World = Literal["person", "vehicle"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Source and target, their images' size, and how many times the persons' rounds they have."""

    source: str
    target: str
    height: int
    width: int
    times: int


WORLDS: Mapping[World, Pair] = {
    "person": Pair(source="synthetic_a", target="synthetic_b", height=64, width=32, times=1),
    "vehicle": Pair(
        source="synthetic_vehicle_a", target="synthetic_vehicle_b", height=48, width=48, times=3
    ),
}
"""About as many pixels, so that an update costs the same; vehicles are learned slowly (LOG.md)."""

ABLATIONS: Mapping[str, str] = {
    "core_reid_v2, half the clusters": "core_reid_v2 --num-clusters 125",
    "core_reid_v2, twice the clusters": "core_reid_v2 --num-clusters 500",
    "core_reid_v2, fusion trained": "core_reid_v2 --fusion trained",
    "core_reid_v2, rate falls by a cosine": "core_reid_v2 --optim.lr-decay cosine",
    "core_reid_v1, no ECAB": "core_reid_v1 --no-ecab",
    "core_reid_v1, no BMFN": "core_reid_v1 --no-bmfn",
    "lf2, no fusion": "lf2 --fusion none",
    "mmt, no soft terms": "mmt --soft-identity 0 --soft-triplet 0",
    "inclr, no accuracy term": "inclr --accuracy 0",
    "inclr, no refinement by parts": "inclr --onehot-weight 1 --aals-from 1000",
    "inclr, all accuracy weights 1": "inclr --accuracy-scale 0",
    "inclr, credibility by C_u": "inclr --credibility external",
    "inclr, k-means": "inclr --cluster kmeans --num-clusters 250",
    "inclr, no teaching by the other": "inclr --no-mmt-soft",
    "spcl, no reliability criterion": "spcl --no-self-paced",
    "spcl, rows kept over rounds (published)": "spcl --memory kept",
    "spcl, memory momentum 0": "spcl --memory-momentum 0",
    "spcl, memory momentum 0.8": "spcl --memory-momentum 0.8",
    "cluster_contrast, memory momentum 0.9": "cluster_contrast --memory-momentum 0.9",
    "pplr, labels not refined by parts": "pplr --onehot-weight 1",
    "pplr, parts not smoothed by agreement": "pplr --aals-from 1000",
}
"""Methods with a part off or changed, as words of `jobs.train`: the method, then options.

CORE-ReID V2 without SECAB is `core_reid_v1`, bit for bit: their demo runs differ in nothing else.
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A line of the table: its method, and the options that make it a variant."""

    name: str
    method: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """A case on one world with one seed: its rounds, and the runs it starts from by field."""

    world: World
    case: Case
    seed: int
    rounds: int
    starts: tuple[tuple[str, "Run"], ...] = ()

    @property
    def name(self) -> str:
        """Its folder below the storage."""
        return f"{self.world}-{re.sub(r'[^A-Za-z0-9.=-]+', '_', self.case.name)}-seed{self.seed}"


SOURCE = Case(name="source", method="source")
BEGUN = Case(name="source begun", method="source")
"""What a second source network begins with: half the rounds, with the first one's seed."""
BOUND = Case(name="supervised", method="supervised")
DIRECT = "direct transfer"
"""What a source run is called in the table: its score on the target."""


def cases_of(
    only: Sequence[str] = (), *, ablations: bool = False, vary: Sequence[str] = ()
) -> list[Case]:
    """Return methods (all unless given) and their variants. ValueError for an unknown method."""
    known = [name.removesuffix("-demo") for name in RUNS if name.endswith("-demo")]
    methods = [name for name in known if name not in (SOURCE.method, BOUND.method)]
    chosen = [name for name in methods if not only or name in only]
    variants = {name: shlex.split(text) for name, text in ABLATIONS.items() if ablations}
    variants = {name: words for name, words in variants.items() if words[0] in chosen}
    variants |= {text: shlex.split(text) for text in vary}
    for name in (*only, *(words[0] for words in variants.values())):
        if name not in methods:
            raise ValueError(f"there is no method {name!r}; known are {methods}")
    return [
        *(Case(name=name, method=name) for name in chosen),
        *(Case(name=n, method=w[0], changes=tuple(w[1:])) for n, w in variants.items()),
    ]


def source_run(world: World, seed: int, *, rounds: int, place: int = 0) -> Run:
    """Return the run that a method's first (0) or second (1) network starts from.

    The second one has as many rounds: half of them with the first one's seed, the others, from that
    backbone on, with a seed of its own, so that both lie in one space (LOG.md).
    """
    if place == 0:
        return Run(world=world, case=SOURCE, seed=seed, rounds=rounds)
    begun = Run(world=world, case=BEGUN, seed=seed, rounds=rounds // 2)
    own = {"seed": 1000 * place + seed, "rounds": rounds - begun.rounds}
    return Run(world=world, case=SOURCE, starts=(("initial", begun),), **own)


def run_of(world: World, seed: int, case: Case, *, source_rounds: int, rounds: int) -> Run:
    """Return a case's run: behind the source stage, or with its rounds where it starts afresh."""
    starts = tuple(
        (field, source_run(world, seed, rounds=source_rounds, place=place))
        for place, field in enumerate(RUNS[f"{case.method}-demo"].starts)
    )
    own = rounds + (0 if starts else source_rounds)
    return Run(world=world, case=case, seed=seed, rounds=own, starts=starts)


def stages_of(runs: Iterable[Run]) -> list[list[Run]]:
    """Return runs and all they start from, each once, behind the stages that it needs."""
    deeper: list[list[Run]] = []
    needed = list(runs)
    while needed:
        deeper.append(needed)
        needed = [start for run in needed for _, start in run.starts]
    stages: list[list[Run]] = []
    for stage in reversed(deeper):
        known = {run for before in stages for run in before}
        stages.append([run for run in dict.fromkeys(stage) if run not in known])
    return stages
