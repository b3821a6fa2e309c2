"""The method that CONTRIBUTING shows is one: its code, as it stands there, keeps the contract."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from reid.recipes import METHODS, RUNS, method_of

CONTRIBUTING = Path(__file__).parents[3] / "CONTRIBUTING.md"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Return the example's module, entered among the methods."""
    (_, rest, *more) = CONTRIBUTING.read_text(encoding="utf-8").split("```python\n")
    assert not more
    code = rest.partition("```")[0]
    assert sum(line != "" for line in code.splitlines()) <= 40
    path = tmp_path / "example.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(METHODS, "example", module.METHOD)
    for name, run in module.METHOD.runs.items():
        monkeypatch.setitem(RUNS, name, run)
    return module


def test_the_example_keeps_the_contract(example, check_recipe, tiny_configs):
    run = RUNS["example-demo"]
    assert method_of(run) == "example"
    tiny = tiny_configs["mean_teacher"]
    shared = ("height", "width", "last_stride", "num_identities", "num_instances", "precision")
    check_recipe(replace(run, num_clusters=8, **{name: getattr(tiny, name) for name in shared}))
