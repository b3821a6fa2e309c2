"""The commands that docs/cluster.md gives: that they exist and take the options given."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
import tyro
import yaml

from cluster.metrics import GAUGES, PREFIX
from jobs import submit

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("docs/cluster.md", "docs/security.md")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(text: str) -> list[list[str]]:
    """Return the words of each indented line of a document."""
    return [shlex.split(line) for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE)]


COMMANDS = commands(read("docs/cluster.md"))


def of(program: str) -> list[list[str]]:
    """Return the words behind each use of a program, variables before it left out."""
    found = []
    for words in COMMANDS:
        plain = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        if plain[0] == program:
            found.append(plain[1:])
    return found


JOBS = [words[1:] for words in of(".venv/bin/python")]


@pytest.mark.parametrize("words", JOBS, ids=" ".join)
def test_our_commands(words: Sequence[str]) -> None:
    assert words[0].startswith("jobs.")
    name, own = words[0].removeprefix("jobs."), list(words[1:])
    if name != "submit":
        where = ["--cluster.storage", "/s", "--cluster.data-root", "/d"] if name == "train" else []
        shared = [f"/{word}" if word.startswith("data/") else word for word in own]
        assert submit.checked([name, *shared, *where]) is not None
        return
    job: list[str] = []
    if "--" in own:
        own, job = own[: own.index("--")], own[own.index("--") + 1 :]
    options = tyro.cli(submit.Options, args=own)
    assert not job or submit.request(options, job).id
    assert job or options.list or options.attach or options.stop


@pytest.mark.parametrize("words", of(".venv/bin/ray"), ids=" ".join)
def test_rays_commands(words: Sequence[str]) -> None:
    from ray.scripts.scripts import cli

    command = cli.commands[words[0]]
    context = command.make_context(words[0], list(words[1:]), resilient_parsing=False)
    assert context.command is command
    file = context.params.get("cluster_config_file")
    assert file is None or yaml.safe_load(read(file))["cluster_name"]


def test_ray_starts_with_the_options_of_the_launcher_files() -> None:
    from ray.scripts.scripts import cli

    for name in ("ray_cluster.yaml", "infra/onprem/ray_cluster.yaml"):
        config = yaml.safe_load(read(name))
        for side in ("head", "worker"):
            line = config[f"{side}_start_ray_commands"][-1]
            words = shlex.split(line[line.index("ray start") :].replace("~/", "/home/u/"))
            context = cli.commands["start"].make_context("start", words[2:])
            assert context.params["head"] == (side == "head")


@pytest.mark.parametrize("words", [*of("kubectl"), *of("docker")], ids=" ".join)
def test_files_that_other_programs_are_given(words: Sequence[str]) -> None:
    given = [word for word in words if word.startswith("infra/")]
    assert all((ROOT / name).is_file() for name in given)
    if words[0] == "build":
        text = read("ray_cluster.yaml") + read("infra/k8s/raycluster.yaml")
        assert text.count(words[words.index("-t") + 1]) >= 2  # what is built is what is run
    if "secret" in words:
        text = read("infra/k8s/raycluster.yaml")
        assert f"name: {words[words.index('generic') + 1]}" in text.replace("secretName", "name")


def test_labels_and_metrics_exist() -> None:
    text = read("docs/cluster.md")
    config = yaml.safe_load(read("ray_cluster.yaml"))
    have = {
        f"{name}={value}"
        for node in config["available_node_types"].values()
        for name, value in node["labels"].items()
    }
    assert set(re.findall(r"\brole=\w+|ray\.io/market-type=\w+", text)) <= have
    assert {name.removeprefix(PREFIX) for name in re.findall(r"`(ray_reid_\w+)`", text)} <= set(
        GAUGES
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_and_options_named_in_the_text_exist(name: str) -> None:
    from jobs.train import parse

    text = read(name)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert ((ROOT / name).parent / target).exists() or "mlflow" in target, target
    for path in re.findall(r"`((?:infra|tests|cluster|docs)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists(), path
    fields = set(vars(parse(["core_reid_v2-demo"]).cluster))
    for option in re.findall(r"--cluster\.([\w-]+)", text):
        field = option.replace("-", "_")
        assert field in fields or field.removeprefix("no_") in fields, option
