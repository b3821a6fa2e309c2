"""The shape of the project: who imports what, how long things are, what no file may contain.

A check takes the root of a tree and returns its findings, "path:line: what". Each runs on the
project, where it must find nothing, and on small trees with one planted fault each, where it must
find just that.
"""

import ast
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("reid", "cluster", "jobs")
Check = Callable[[Path], list[str]]

MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 300
MAX_RECIPE_LINES = 200

# Who alone may import it: a folder (ending in "/") or a file.
OWNERS = {
    "faiss": "reid/clustering/nearest.py",
    "nvidia": "reid/data/dali_loader.py",
    "numba": "reid/compiled.py",
    "torch.distributed": "reid/dist.py",
    "ray": "cluster/",
    "mlflow": "cluster/tracking.py",
}

# Parts of reid that stand alone: what they may import of reid besides themselves.
PARTS = {
    "types": set(),
    "compiled": set(),
    "dist": set(),
    "precision": set(),
    "models": {"types", "dist", "precision"},
    "losses": {"types", "dist", "precision"},
    "memory": {"types", "dist"},
    "clustering": {"types", "dist", "compiled"},
    "evaluation": {"types", "dist", "clustering"},
    "data": {"types", "dist", "compiled"},
}

# The loop and its helpers know the contract, no method, no loss, no network.
LOOP = ("fit", "extract", "evaluate", "optim")
HIDDEN_FROM_LOOP = ("models", "losses", "memory", "recipes")
CONTRACT = "reid.recipes.contract"

GLOBAL_RNG_OWNER = (
    "reid/models/weights.py"  # torch's own initialisers draw from the global generator
)
SEEDED_BY_ARGUMENT = {"PCG64", "Philox", "RandomState", "SeedSequence", "default_rng"}
SEEDED_NUMPY = SEEDED_BY_ARGUMENT | {"BitGenerator", "Generator"}
GLOBAL_TORCH = {"manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state"}
TORCH_SAMPLERS = {"bernoulli", "multinomial", "normal", "rand", "randint", "randn", "randperm"}
TORCH_SAMPLERS |= {"rand_like", "randint_like", "randn_like"}

# Put together from pieces, so that this file does not contain what it looks for.
REGISTRIES = [
    "pypi" + ".org",
    "pypi" + ".nvidia",
    "python" + "hosted",
    "anaconda" + ".org",
    "download.pytorch" + ".org/whl",
    "/pypi" + "/simple",
]
MACHINE_PATH = re.compile(r"(?<![\w.~/})-])/(?:" + "|".join(["work", "root"]) + r")(?![\w-])")


@dataclass(frozen=True, kw_only=True)
class Module:
    """One parsed Python file; `path` is relative to the root, with "/"."""

    path: str
    text: str
    tree: ast.Module


def modules(root: Path, *folders: str) -> Iterator[Module]:
    """Yield the Python files under the folders of a tree."""
    for folder in folders:
        for file in sorted((root / folder).rglob("*.py")):
            text = file.read_text()
            yield Module(path=file.relative_to(root).as_posix(), text=text, tree=ast.parse(text))


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of an attribute chain, "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """Yield (full dotted name, line) of each import; `from a import b` is `a.b`."""
    package = module.path.split("/")[:-1]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def within(name: str, parent: str) -> bool:
    """Tell whether a dotted name is the parent or below it."""
    return f"{name}.".startswith(f"{parent}.")


def project_texts(root: Path) -> Iterator[tuple[str, str]]:
    """Yield (relative path, text) of each text file that .gitignore lets in."""
    ignored = [".git"]
    if (root / ".gitignore").exists():
        lines = (root / ".gitignore").read_text().splitlines()
        ignored += [line.strip("/") for line in lines if line and not line.startswith("#")]
    for folder, folders, files in os.walk(root):
        kept = [n for n in folders if not any(fnmatch.fnmatch(n, p) for p in ignored)]
        folders[:] = sorted(kept)
        for name in sorted(files):
            content = (Path(folder) / name).read_bytes()
            if b"\0" not in content and not any(fnmatch.fnmatch(name, p) for p in ignored):
                path = (Path(folder) / name).relative_to(root).as_posix()
                yield path, content.decode("utf-8", errors="replace")


def num_lines(text: str) -> int:
    """Count the lines that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


def long_functions(root: Path) -> list[str]:
    """Functions longer than a screen."""
    found = []
    for module in modules(root, *PACKAGES):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = "\n".join(module.text.splitlines()[node.lineno - 1 : node.end_lineno])
                if (count := num_lines(body)) > MAX_FUNCTION_LINES:
                    found.append(f"{module.path}:{node.lineno}: {node.name} has {count} lines")
    return found


def long_files(root: Path) -> list[str]:
    """Files longer than one topic needs."""
    counts = [(module.path, num_lines(module.text)) for module in modules(root, *PACKAGES)]
    return [f"{path}:1: {count} lines" for path, count in counts if count > MAX_FILE_LINES]


def long_recipes(root: Path) -> list[str]:
    """Recipes that are too long to be read beside their papers, blank lines and all."""
    counts = [
        (module.path, len(module.text.splitlines()))
        for module in modules(root, *PACKAGES)
        if module.path.startswith("reid/recipes/") and not module.path.endswith("/contract.py")
    ]
    return [f"{path}:1: {count} lines" for path, count in counts if count > MAX_RECIPE_LINES]


def device_literals(root: Path) -> list[str]:
    """Calls of `.cuda()`: the device follows the inputs."""
    return [
        f"{module.path}:{node.lineno}: .cuda()"
        for module in modules(root, *PACKAGES, "tests")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "cuda"
    ]


def global_randomness(root: Path) -> list[str]:
    """Randomness in reid that is not a generator made from an explicit seed."""
    found = []
    for module in modules(root, "reid"):
        for name, line in imports(module):
            tail = name.removeprefix("numpy.random.")
            if within(name, "random") or (tail != name and tail not in SEEDED_NUMPY):
                found.append(f"{module.path}:{line}: import of {name}")
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Attribute | ast.Call):
                continue
            name = unseeded(node)
            allowed = module.path == GLOBAL_RNG_OWNER and name.startswith("torch.")
            if name and not allowed:
                found.append(f"{module.path}:{node.lineno}: {name}")
    return found


def unseeded(node: ast.Attribute | ast.Call) -> str:
    """Return the name of what reads or sets a global generator, or makes one without a seed."""
    if isinstance(node, ast.Attribute):
        name = dotted(node)
        head, _, tail = name.rpartition(".")
        legacy = head in ("np.random", "numpy.random") and tail not in SEEDED_NUMPY
        state = head in ("torch", "torch.random", "torch.cuda") and tail in GLOBAL_TORCH
        return name if legacy or state else ""
    name = dotted(node.func)
    head, _, tail = name.rpartition(".")
    keywords = {keyword.arg for keyword in node.keywords}
    draw = head == "torch" and tail in TORCH_SAMPLERS and "generator" not in keywords
    entropy = tail in SEEDED_BY_ARGUMENT and not node.args and not node.keywords
    return f"{name} without a seed" if draw or entropy else ""


def foreign_imports(root: Path) -> list[str]:
    """Imports, or dotted uses, of a library outside the file or folder that owns it."""
    found = []
    for module in modules(root, *PACKAGES):
        chains = (
            (dotted(n), n.lineno) for n in ast.walk(module.tree) if isinstance(n, ast.Attribute)
        )
        uses = [*imports(module), *((name, line) for name, line in chains if name in OWNERS)]
        for library, owner in OWNERS.items():
            if module.path == owner or (owner.endswith("/") and module.path.startswith(owner)):
                continue
            lines = sorted({line for name, line in uses if within(name, library)})
            found += [f"{module.path}:{n}: {library} belongs to {owner}" for n in lines]
    return found


def crossed_parts(root: Path) -> list[str]:
    """Imports between parts of reid that must not know each other."""
    found = []
    for module in modules(root, "reid"):
        part = module.path.removesuffix(".py").split("/")[1]
        for name, line in imports(module):
            if not name.startswith("reid."):
                continue
            other = name.split(".")[1]
            if part in PARTS and other != part and other not in PARTS[part]:
                found.append(f"{module.path}:{line}: {part} must not import {name}")
            if part in LOOP and other in HIDDEN_FROM_LOOP and not within(name, CONTRACT):
                found.append(f"{module.path}:{line}: the loop must not import {name}")
    return found


def addresses(root: Path) -> list[str]:
    """Registry addresses and paths of one machine, in any file of the project."""
    return [
        f"{path}:{number}: {line.strip()[:80]}"
        for path, text in project_texts(root)
        for number, line in enumerate(text.splitlines(), 1)
        if any(host in line for host in REGISTRIES) or MACHINE_PATH.search(line)
    ]


def loose_lock(root: Path) -> list[str]:
    """Lines of the lock that name a place, and requirements without a version or a hash."""
    text = (root / "requirements.lock").read_text()
    found = [
        f"requirements.lock:{number}: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"://|file:|index-url|find-links|[ =\"']/| @ ", line)
    ]
    for requirement in re.findall(r"^[^\s#-].*(?:\n[ \t]+\S.*)*", text, re.MULTILINE):
        if not re.match(r"[\w.\[\],-]+==\S+", requirement) or "--hash=sha256:" not in requirement:
            found.append(f"requirements.lock: {requirement.splitlines()[0]} has no version or hash")
    return found


def silent_tests(root: Path) -> list[str]:
    """Tests without `assert`, `pytest.raises` or a call of `...assert...` or `check_...`."""
    return [
        f"{module.path}:{node.lineno}: {node.name} asserts nothing"
        for module in modules(root, "tests")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test")
        and not any(asserts(inner) for inner in ast.walk(node))
    ]


def asserts(node: ast.AST) -> bool:
    """Tell whether a node can fail a test."""
    if not isinstance(node, ast.Call):
        return isinstance(node, ast.Assert)
    if dotted(node.func) in ("pytest.raises", "pytest.warns", "pytest.fail"):
        return True
    called = node.func.attr if isinstance(node.func, ast.Attribute) else dotted(node.func)
    return "assert" in called or called.startswith("check_")


CHECKS: list[Check] = [
    long_functions,
    long_files,
    long_recipes,
    device_literals,
    global_randomness,
    foreign_imports,
    crossed_parts,
    addresses,
    loose_lock,
    silent_tests,
]

HASH = "--hash=sha256:" + "0" * 64
LONG_FUNCTION = "def f():\n" + "    x = 1\n\n" * MAX_FUNCTION_LINES

# (check, file, its text, part of the one finding)
FAULTS: list[tuple[Check, str, str, str]] = [
    (long_functions, "reid/a.py", LONG_FUNCTION, "f has 71 lines"),
    (
        long_functions,
        "jobs/a.py",
        "class A:\n" + re.sub("^", "    ", LONG_FUNCTION, flags=re.M),
        "71",
    ),
    (long_files, "cluster/b/a.py", "x = 1\n\n" * (MAX_FILE_LINES + 1), "301 lines"),
    (long_recipes, "reid/recipes/a.py", "x = 1\n\n" * (MAX_RECIPE_LINES // 2 + 1), "202 lines"),
    (device_literals, "reid/a.py", "x = net.weight.cuda(non_blocking=True)", ".cuda()"),
    (device_literals, "tests/test_a.py", "x = make().cuda()", ".cuda()"),
    (global_randomness, "reid/a.py", "import random", "random"),
    (global_randomness, "reid/a.py", "from random import shuffle", "random.shuffle"),
    (global_randomness, "reid/a.py", "from numpy.random import rand", "numpy.random.rand"),
    (global_randomness, "reid/a.py", "x = np.random.rand(3)", "np.random.rand"),
    (global_randomness, "reid/a.py", "np.random.seed(0)", "np.random.seed"),
    (global_randomness, "reid/models/weights.py", "x = np.random.permutation(3)", "permutation"),
    (global_randomness, "reid/a.py", "rng = np.random.default_rng()", "default_rng without a seed"),
    (global_randomness, "reid/a.py", "torch.manual_seed(0)", "torch.manual_seed"),
    (
        global_randomness,
        "reid/models/ema.py",
        "torch.cuda.manual_seed(0)",
        "torch.cuda.manual_seed",
    ),
    (
        global_randomness,
        "reid/a.py",
        "x = torch.randperm(3, device=d)",
        "torch.randperm without a seed",
    ),
    (foreign_imports, "reid/clustering/kmeans.py", "import faiss", "faiss belongs to"),
    (foreign_imports, "reid/data/a.py", "from nvidia.dali import fn", "nvidia belongs to"),
    (foreign_imports, "reid/a.py", "import torch.distributed as d", "torch.distributed belongs to"),
    (foreign_imports, "reid/a.py", "from torch import distributed", "torch.distributed belongs to"),
    (foreign_imports, "reid/a.py", "x = torch.distributed.get_rank()", "torch.distributed"),
    (foreign_imports, "cluster/a.py", "from torch.distributed import barrier", "torch.distributed"),
    (foreign_imports, "reid/a.py", "def f():\n    import ray.train", "reid/a.py:2: ray belongs to"),
    (foreign_imports, "jobs/a.py", "from ray import tune", "ray belongs to cluster/"),
    (foreign_imports, "cluster/launch.py", "import mlflow.pytorch", "mlflow belongs to"),
    (
        crossed_parts,
        "reid/models/a.py",
        "from reid.losses import x",
        "models must not import reid.losses",
    ),
    (
        crossed_parts,
        "reid/losses/a.py",
        "from reid import models",
        "losses must not import reid.models",
    ),
    (crossed_parts, "reid/losses/a.py", "from ..memory import x", "must not import reid.memory"),
    (
        crossed_parts,
        "reid/clustering/a.py",
        "import reid.evaluation",
        "must not import reid.evaluation",
    ),
    (
        crossed_parts,
        "reid/data/a.py",
        "from reid.recipes import RUNS",
        "must not import reid.recipes",
    ),
    (
        crossed_parts,
        "reid/memory.py",
        "from reid.clustering import x",
        "must not import reid.clustering",
    ),
    (
        crossed_parts,
        "reid/fit.py",
        "from reid.losses import x",
        "the loop must not import reid.losses",
    ),
    (crossed_parts, "reid/extract.py", "from reid.recipes import x", "the loop must not import"),
    (addresses, "a.md", f"see {'https://' + 'pypi' + '.org'}/project", "a.md:1"),
    (addresses, "infra/a.yaml", "index: " + "files.python" + "hosted.org", "infra/a.yaml:1"),
    (addresses, "Makefile", "\n\tcp x " + "/" + "work/data", "Makefile:2"),
    (addresses, "reid/a.py", "HOME = '" + "/" + "root'", "reid/a.py:1"),
    (loose_lock, "requirements.lock", "a==1 \\\n    --hash=md5:0\n", "a==1"),
    (loose_lock, "requirements.lock", f"a>=1 \\\n    {HASH}\n", "a>=1"),
    (loose_lock, "requirements.lock", f"--index-url x\na==1 {HASH}", "requirements.lock:1"),
    (loose_lock, "requirements.lock", f"# -o /tmp/a.lock\na==1 {HASH}", "requirements.lock:1"),
    (loose_lock, "requirements.lock", f"a==1 {HASH} # https://x", "requirements.lock:1"),
    (silent_tests, "tests/b/test_a.py", "def test_a():\n    f(1)", "test_a asserts nothing"),
    (
        silent_tests,
        "tests/test_a.py",
        "class TestA:\n    def test_b(self):\n        x = 1",
        "test_b",
    ),
]

# (check, file, its text): looks like a fault and is none
ALLOWED: list[tuple[Check, str, str]] = [
    (long_functions, "reid/a.py", "def f():\n" + "    x = 1\n\n" * (MAX_FUNCTION_LINES - 1)),
    (device_literals, "reid/a.py", "x = torch.cuda.is_available()  # not .cuda()"),
    (global_randomness, "reid/a.py", "rng = np.random.Generator(np.random.Philox(key=seed))"),
    (global_randomness, "reid/a.py", "rng = np.random.default_rng(seed)"),
    (global_randomness, "reid/a.py", "x = torch.randperm(3, generator=g)\nrng.random(3)"),
    (global_randomness, GLOBAL_RNG_OWNER, "torch.manual_seed(seed)"),
    (foreign_imports, "reid/clustering/nearest.py", "import faiss"),
    (foreign_imports, "reid/data/dali_loader.py", "from nvidia.dali import fn"),
    (foreign_imports, "reid/dist.py", "import torch.distributed as dist"),
    (foreign_imports, "cluster/search.py", "from ray import tune"),
    (foreign_imports, "cluster/tracking.py", "import mlflow"),
    (
        foreign_imports,
        "reid/a.py",
        "import rays\nfrom torch.nn.parallel import DistributedDataParallel",
    ),
    (crossed_parts, "reid/models/a.py", "from reid.models.ema import x\nfrom reid.types import y"),
    (crossed_parts, "reid/evaluation/rerank.py", "from reid.clustering import jaccard_distance"),
    (crossed_parts, "reid/fit.py", "from reid.recipes.contract import Recipe"),
    (crossed_parts, "reid/recipes/spcl.py", "from reid.losses import x\nfrom reid.memory import y"),
    (addresses, "a.md", "jobs/root, ./work/x, https://pytorch.org"),
    (
        loose_lock,
        "requirements.lock",
        f"a-b[c]==1 ; sys_platform == 'x' \\\n    {HASH} \\\n    {HASH}\n",
    ),
    (
        silent_tests,
        "tests/test_a.py",
        "def test_a():\n    with pytest.raises(ValueError):\n        f()",
    ),
    (silent_tests, "tests/test_a.py", "def test_a():\n    torch.testing.assert_close(a, b)"),
    (silent_tests, "tests/test_a.py", "def test_a():\n    check_recipe(a)"),
]


def plant(root: Path, path: str, text: str) -> None:
    """Write one file of a tree."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def case_name(value: object) -> str:
    """Return a short name of a part of a case."""
    return getattr(value, "__name__", str(value)[:30])


@pytest.mark.parametrize("check", CHECKS)
def test_the_project_is_clean(check: Check) -> None:
    assert check(ROOT) == []


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_has_a_planted_fault(check: Check) -> None:
    assert check in [fault[0] for fault in FAULTS]


@pytest.mark.parametrize(("check", "path", "text", "finding"), FAULTS, ids=case_name)
def test_a_planted_fault_is_found(
    check: Check, path: str, text: str, finding: str, tmp_path: Path
) -> None:
    plant(tmp_path, path, text)
    found = check(tmp_path)
    assert len(found) == 1
    assert finding in found[0]


@pytest.mark.parametrize(("check", "path", "text"), ALLOWED, ids=case_name)
def test_what_is_allowed_is_not_found(check: Check, path: str, text: str, tmp_path: Path) -> None:
    plant(tmp_path, path, text)
    assert check(tmp_path) == []


def test_ignored_files_are_not_searched(tmp_path: Path) -> None:
    fault = "/" + "work"
    plant(tmp_path, ".gitignore", "# made by runs\nruns/\n*.db\n")
    for path in ("runs/a.md", "b/runs/a.md", "a.db", ".git/config"):
        plant(tmp_path, path, fault)
    plant(tmp_path, "b/a.md", fault)
    assert addresses(tmp_path) == [f"b/a.md:1: {fault}"]


def test_every_import_contract_breaks_when_violated(tmp_path: Path) -> None:
    violations = {
        "reid/__init__.py": "import ray\nimport cluster",
        "reid/clustering/__init__.py": "",
        "reid/clustering/kmeans.py": "import faiss",
        "reid/data/__init__.py": "",
        "reid/data/torch_loader.py": "from nvidia.dali import fn",
        "reid/data/samplers.py": "import numba",
        "cluster/__init__.py": "",
        "cluster/launch.py": "import mlflow",
        "jobs/__init__.py": "from ray import tune",
    }
    for path, text in violations.items():
        plant(tmp_path, path, text)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    names = {contract["name"] for contract in settings["contracts"]}
    config = str(ROOT / "pyproject.toml")
    call = f"lint_imports(config_filename={config!r}, no_cache=True)"
    result = subprocess.run(
        [sys.executable, "-c", f"from importlinter.cli import lint_imports; {call}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    broken = re.findall(r"^(.*) BROKEN", result.stdout, re.MULTILINE)
    assert set(broken) == names, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("echo Python 3.10", "is Python 3.10, and this project needs 3.11, 3.12 or 3.13"),
        ("echo Python 3.14", "is Python 3.14, and this project needs 3.11, 3.12 or 3.13"),
        ("exit 127", "is not a Python that runs"),
        ('case "$2" in *ensurepip*) exit 1 ;; *) echo Python 3.12 ;; esac', "package python3-venv"),
    ],
)
def test_a_python_that_cannot_serve_is_refused_with_the_remedy(
    python: str, message: str, tmp_path: Path
) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    plant(tmp_path, "python", f"#!/bin/sh\n{python}\n")
    (tmp_path / "python").chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    result = subprocess.run(
        ["make", "test", "PYTHON=./python"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert message in result.stderr
    assert "PYTHON=" in result.stderr
    assert not (tmp_path / ".venv").exists()
