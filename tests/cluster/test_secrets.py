"""Planted secrets: refused where they could be read, and nowhere repeated."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cluster import checkpoints, tracking
from cluster.config import ClusterConfig
from cluster.environment import VARIABLES, passed_on
from cluster.pipeline import described
from cluster.storage import Folder
from reid.data import files
from reid.recipes import RUNS

KEY, SECRET = "AKIAPLANTEDPLANTED00", "Pl4nted+S3cret"
ADDRESS = f"s3://{KEY}:{SECRET}@bucket/runs"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)


@pytest.mark.parametrize("option", ["storage", "data_root", "cache"])
def test_places_with_credentials_are_refused_unsaid(option: str) -> None:
    with pytest.raises(ValueError, match="secret") as raised:
        replace(ClusterConfig(), **{option: ADDRESS})  # type: ignore[arg-type]
    assert SECRET not in str(raised.value)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    "use",
    [
        files.read,
        files.is_file,
        files.names_in,
        lambda name: files.write(name, b"x"),
        checkpoints.read,
        lambda name: Folder(name).write_json("a.json", {}),
    ],
)
def test_addresses_with_credentials_are_refused_unsaid(use: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match="credentials do not belong") as raised:
        use(f"{ADDRESS}/a.pt")
    assert SECRET not in str(raised.value)
    assert KEY not in str(raised.value)


def test_mlflow_gets_no_secret(mlflow_store: Callable[[Path], str], tmp_path: Path) -> None:
    uri = mlflow_store(tmp_path)
    settings = {"initial": ADDRESS, "weights": f"https://b/w.pt?token={SECRET}", "lr": 0.1}
    tracker = tracking.start(
        uri=uri,
        experiment="reid",
        run_key=f"{ADDRESS}/demo#0123",
        name="demo",
        params=settings,
        tags={"reid.folder": ADDRESS},
    )
    run = MlflowClient(tracking_uri=uri).get_run(tracker.run_id)
    kept = json.dumps([run.data.params, run.data.tags])
    assert SECRET not in kept
    assert KEY not in kept
    assert run.data.params["lr"] == "0.1"
    assert run.data.params["initial"] == "s3://***@bucket/runs"


@pytest.mark.usefixtures("credentials")
def test_what_workers_get_and_what_is_written_holds_nothing_of_the_environment() -> None:
    assert set(passed_on()) == set(VARIABLES)
    written = json.dumps([passed_on(), described(RUNS["core_reid_v2-demo"])])
    assert SECRET not in written
    assert KEY not in written


@pytest.mark.usefixtures("credentials")
def test_errors_of_object_storage_hold_nothing_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "ATTEMPTS", 1)
    monkeypatch.setattr(files, "_has_bucket", lambda _: True)

    def refuse() -> None:
        raise OSError("When reading: AWS Error ACCESS_DENIED during HeadObject")

    with pytest.raises(ValueError, match="AWS_SECRET_ACCESS_KEY") as raised:
        files.attempt("s3://bucket/a", refuse)
    assert SECRET not in str(raised.value)
    assert KEY not in str(raised.value)


def test_torch_loads_weights_only() -> None:
    """Each torch.load of the project says so, and nothing else of it unpickles files."""
    calls = 0
    for file in (
        path for name in ("reid", "cluster", "jobs") for path in (ROOT / name).rglob("*.py")
    ):
        text = file.read_text(encoding="utf-8")
        calls += text.count("torch.load(")
        assert text.count("torch.load(") == text.count("weights_only=True"), file
        assert "allow_pickle=True" not in text, file
        assert "pickle.load(" not in text, file
    assert calls > 0
