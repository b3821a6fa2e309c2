"""Golden curves: the losses of every demo run over 20 steps, on a thin network and a tiny world.

    python -m tests.reid.recipes.golden [--write] [RUN ...]

prints where the curves differ from those stored in tests/golden/curves/, and exits with 1 where
one does; `--write` stores all. Digits are those of one thread in float32: on the processor and with
the library versions of `machine.json` a refactoring leaves every one of them as it is. (Elsewhere
store them with the code before the refactoring, and compare.)

Other processors round otherwise, and what follows amplifies it. Measured, AVX512 against AVX2: at
the runs' own learning rates differences grow two- to threefold a step, from 1e-7 to the losses' own
size in 15 steps; at `LEARNING_RATE` they stay below 1e-5 for seven steps and below 1e-4 for ten.
Clusterings turn a last bit into another label. So elsewhere the first round alone is compared, and
`tolerance` grows with the step; where first labels differ they must be `ALIKE`, and losses, which
follow them, are not compared.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from reid.data import normalise
from reid.fit import fit
from reid.recipes import RUNS, build
from tests.reid.conftest import CPU, Recording, World, make_world, tiny
from tests.reid.thin import thin_networks

CURVES = Path(__file__).parents[2] / "golden" / "curves"
# "supervised-demo" is "source-demo" on other images; the tiny world has one table for both.
DEMOS = [name for name in RUNS if name.endswith("-demo") and name != "supervised-demo"]
ROUNDS, STEPS = 2, 10
SEED = 1
LEARNING_RATE = 1e-5
ALIKE = 0.9
"""Adjusted Rand index that a last bit leaves between two labellings."""
MACHINE = CURVES / "machine.json"

Labels = dict[str, list[int]]
Curve = dict[str, Any]
"""`losses`: {term: a value a step}; `labels`: for each round {view: a label an image}."""


def tolerance(step: int) -> float:
    """Return by how much of its value a loss of the first round may differ elsewhere."""
    return 1e-5 * 2**step


def machine() -> dict[str, str]:
    """Return what the last digits depend on: the processor, and who does arithmetic on it."""
    names = ("vendor_id", "cpu family", "model", "model name", "stepping", "cache size", "flags")
    text = Path("/proc/cpuinfo").read_text().partition("\n\n")[0] + "\n"
    lines = [line for line in text.splitlines() if line.partition("\t")[0].strip() in names]
    return {
        "processor": hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16],
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def is_recorded_here() -> bool:
    """Tell whether the stored curves are of this machine."""
    return bool(json.loads(MACHINE.read_text()) == machine())


def record(name: str, world: World) -> Curve:
    """Train a demo run in the tiny world, with one thread."""
    config = tiny(RUNS[name])
    optim = replace(config.optim, lr=LEARNING_RATE)
    config = replace(config, num_rounds=ROUNDS, steps_per_round=STEPS, optim=optim, seed=SEED)
    store = world.tables["target"].store
    hooks, threads = Recording(store), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            images = normalise(torch.from_numpy(store.read(np.arange(len(store)))))
            with thin_networks(images):
                recipe = build(config, sizes=world.sizes)
            fit(recipe, world.tables, test=world.test, hooks=hooks, device=CPU)
    finally:
        torch.set_num_threads(threads)
    terms = hooks.reports[0].series.keys()
    losses = {term: [x for report in hooks.reports for x in report.series[term]] for term in terms}
    return {
        "losses": {term: [float(f"{x:.9g}") for x in of] for term, of in losses.items()},
        "labels": [
            {view: found.labels.tolist() for view, found in labelling.labels.items()}
            for labelling in hooks.labellings
        ],
    }


def stored(name: str) -> Curve:
    """Return the curve of a run's file."""
    return json.loads((CURVES / f"{name}.json").read_text())


def store(name: str, curve: Curve) -> None:
    """Write a run's file: a line a loss term."""
    lines = [f"  {json.dumps(term)}: {json.dumps(of)}" for term, of in curve["losses"].items()]
    rounds = [f"  {json.dumps(of)}" for of in curve["labels"]]
    text = '{\n "losses": {\n%s\n },\n "labels": [\n%s\n ]\n}\n'
    CURVES.mkdir(parents=True, exist_ok=True)
    (CURVES / f"{name}.json").write_text(text % (",\n".join(lines), ",\n".join(rounds)))


def agreements(found: Labels, known: Labels) -> dict[str, float]:
    """Return {view: adjusted Rand index} of those views whose labels are not the known ones."""
    apart = [view for view in known if found[view] != known[view]]
    return {view: adjusted_rand_score(known[view], found[view]) for view in apart}


def differences(found: Curve, known: Curve, *, exact: bool) -> Iterator[str]:
    """Yield a line for each term and each labelling that is not the known one.

    Not `exact`: of the first round only, losses up to `tolerance`.
    """
    rounds, steps = (ROUNDS, ROUNDS * STEPS) if exact else (1, STEPS)
    labellings = [*zip(found["labels"], known["labels"], strict=True)]
    for round, (labels, before) in enumerate(labellings[:rounds]):
        for view, ari in agreements(labels, before).items():
            yield f"labels of round {round}, {view}: adjusted Rand index {ari:.2f}"
    for term in known["losses"].keys() ^ found["losses"].keys():
        yield f"{term}: {'new' if term in found['losses'] else 'gone'}"
    for term in known["losses"].keys() & found["losses"].keys():
        pairs = [*zip(found["losses"][term], known["losses"][term], strict=True)][:steps]
        apart = [abs(new - old) / max(abs(old), 1e-12) for new, old in pairs]
        allowed = [0.0 if exact else tolerance(step) for step in range(steps)]
        over = [step for step, x in enumerate(apart) if x > allowed[step]]
        if over:
            most = max(over, key=apart.__getitem__)
            new, old = pairs[most]
            values = f"{old} -> {new}, {apart[most]:.1e} of it"
            yield f"{term}: from step {over[0]} on, and most in step {most}: {values}"


def main() -> None:
    """Compare, or store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help="demo runs (default: all)")
    parser.add_argument("--write", action="store_true", help="store the curves")
    options = parser.parse_args()
    if unknown := set(options.runs) - set(DEMOS):
        parser.error(f"no demo run is called {', '.join(sorted(unknown))}: {', '.join(DEMOS)}")
    if MACHINE.exists() and not is_recorded_here():
        print("The stored curves are of another machine: last digits, and second rounds, differ.")
        if options.write and options.runs:
            parser.error("--write stores the curves of one machine: leave out RUN")
    changed = False
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        for name in options.runs or DEMOS:
            curve = record(name, world)
            is_new = not (CURVES / f"{name}.json").exists()
            lines = ["new"] if is_new else [*differences(curve, stored(name), exact=True)]
            changed = changed or bool(lines)
            print(f"{name}: {'; '.join(lines) or 'the same'}", flush=True)
            if options.write:
                store(name, curve)
    if options.write:
        MACHINE.write_text(json.dumps(machine(), indent=1) + "\n")
    sys.exit(changed and not options.write)


if __name__ == "__main__":
    main()
