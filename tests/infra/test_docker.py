"""The images: what they install, as whom, and that nothing else of the folder goes in."""

import fnmatch
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("Dockerfile", "Dockerfile.gpu")


def steps(name: str) -> list[str]:
    """Return the instructions, each on one line."""
    text = (ROOT / "infra" / "docker" / name).read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    return [re.sub(r"\s+", " ", step) for step in text.replace("\\\n", " ").splitlines() if step]


@pytest.mark.parametrize("name", NAMES)
def test_the_image_installs_the_lock_by_hash(name: str) -> None:
    (install,) = [step for step in steps(name) if "requirements.lock" in step and "RUN" in step]
    assert "pip sync" in install
    assert "--require-hashes requirements.lock" in install
    version = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert version is not None
    assert f"uv=={version[1]}" in install
    assert not any(re.search(r"pip install(?!.* uv==)", step) for step in steps(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_image_is_pinned_and_run_by_an_ordinary_user(name: str) -> None:
    found = steps(name)
    assert re.fullmatch(r"FROM python:3\.1[123]\.\d+-slim-\w+", found[0])
    assert [step for step in found if step.startswith("USER")][-1] == "USER ray"
    assert any("useradd --uid 1000" in step for step in found)
    assert any("RAY_AUTH_MODE=token" in step for step in found)
    assert not [
        step for step in found if re.search(r"(?i)\b(ARG|ENV)\b.*(token=[^t]|secret|passw)", step)
    ]


def test_the_images_differ_in_what_a_gpu_needs() -> None:
    plain, gpu = (set(steps(name)) for name in NAMES)
    assert plain < gpu
    assert all("NVIDIA_" in step for step in gpu - plain)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_is_let_in_and_nothing_else(name: str) -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied: set[str] = set()
    for step in steps(name):
        if step.startswith("COPY"):
            *sources, _ = [word for word in step.split()[1:] if not word.startswith("--")]
            copied.update(sources)
    assert copied == let_in
    assert all((ROOT / path).exists() for path in copied)
    assert any(fnmatch.fnmatch("a.pyc", rule.rpartition("/")[2]) for rule in rules[1:])
