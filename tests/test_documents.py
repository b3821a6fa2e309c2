"""Commands in the documents: each is read as its command reads it, and can be carried out."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import tyro

from cluster.inputs import check_batch
from jobs import submit, train
from reid.recipes import RUNS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("infra/**/*.md")]
    if path.name not in ("LOG.md", "model_zoo.md")  # history; made from the runs themselves
)
COMMAND = re.compile(r"^    (?:\.venv/bin/)?python -m jobs\.(\w+)(| .*)$", re.MULTILINE)
WORDS = [
    pytest.param(command, shlex.split(rest, comments=True), id=f"{path.name}-{command}-{number}")
    for path in DOCUMENTS
    for number, (command, rest) in enumerate(COMMAND.findall(path.read_text()))
    if "RUN" not in rest.split() and "[" not in rest
]


def read(command: str, words: list[str]) -> None:
    """Read a command's words; SystemExit or ValueError where it would refuse them."""
    module = importlib.import_module(f"jobs.{command}")
    if command == "submit" and "--" in words:
        place = words.index("--")
        tyro.cli(submit.Options, args=words[:place])
        submit.checked(words[place + 1 :])
        read(words[place + 1], words[place + 2 :])
    elif not hasattr(module, "parse"):
        tyro.cli(module.Options, args=words)
    else:
        options = module.parse(words)
        if command == "train":
            check_can_be_shared(options)


def check_can_be_shared(options: train.Options) -> None:
    """Check a run's batch, and those of the source runs it has trained first."""
    config = options.config
    check_batch(config, options.cluster)
    for start in config.starts.values():
        check_can_be_shared(train.Options(name=start, config=RUNS[start], cluster=options.cluster))


@pytest.mark.parametrize(("command", "words"), WORDS)
def test_commands_are_accepted(command: str, words: list[str]) -> None:
    if "--help" in words:
        with pytest.raises(SystemExit) as ended:
            read(command, words)
        assert ended.value.code == 0
    else:
        read(command, words)


def test_commands_are_found_and_wrong_ones_refused() -> None:
    found = {command for command, _ in (param.values for param in WORDS)}
    assert {"train", "submit", "index", "plan", "upload", "evaluate", "search"} <= found
    with pytest.raises(ValueError, match="groups of 64 images, and each of 4 workers has 32"):
        read("train", ["core_reid_v2-market1501-cuhk03_np", "--cluster.num-workers", "4"])
    with pytest.raises(SystemExit):
        read("index", ["market1501", "--root", "data", "--packed", "there"])
