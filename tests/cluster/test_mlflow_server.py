"""A tracking server as infra/mlflow starts it: PostgreSQL, S3 and the server are real processes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import psycopg
import pytest
import torch
from mlflow import MlflowClient

from cluster import checkpoints, pipeline, uploads
from cluster.config import ClusterConfig
from jobs import upload
from reid.data.augment import normalise
from reid.recipes import restore

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
PASSWORD = "a-password-planted-by-the-test"
NOBODY = 65534

LOAD = """
import sys, time, numpy, mlflow.pytorch
model = mlflow.pytorch.load_model(sys.argv[1])
about = mlflow.models.get_model_info(sys.argv[1]).metadata
assert not any(name in sys.modules for name in ("reid", "cluster"))
images = numpy.load(sys.argv[2])
assert images.shape[1:3] == (about["height"], about["width"])
import torch
with torch.no_grad():
    numpy.save(sys.argv[3], model(torch.from_numpy(images)).numpy())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Start PostgreSQL with a password; yield host and port."""
    places = [*map(str, Path("/usr/lib/postgresql").glob("*/bin")), os.environ["PATH"]]  # Debian's
    found = [shutil.which(name, path=os.pathsep.join(places)) for name in ("initdb", "postgres")]
    if None in found:
        pytest.skip("PostgreSQL (initdb, postgres) is not installed")
    initdb, server = map(str, found)
    folder = Path(tempfile.mkdtemp(prefix="postgres"))  # pytest's folders are root's alone
    data, secret = folder / "data", folder / "password"
    secret.write_text(PASSWORD)
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses root
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        for path in (folder, secret):
            os.chown(path, NOBODY, NOBODY)
    subprocess.run(
        [initdb, f"--pgdata={data}", f"--pwfile={secret}", "--username=mlflow", "--no-sync",
         "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"],
        check=True, capture_output=True, cwd="/", **user,
    )  # fmt: skip
    port = free_port()
    command = [server, "-D", str(data), "-k", "", "-h", "127.0.0.1", "-p", str(port), "-F"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **user)
    try:
        made = f"host=127.0.0.1 port={port} user=mlflow password={PASSWORD} dbname=postgres"
        wait_for(lambda: answers(made), process)
        with psycopg.connect(made, autocommit=True) as connection:
            for name in ("mlflow", "mlflow_auth"):
                connection.execute(f"CREATE DATABASE {name}")
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait()
        shutil.rmtree(folder)


def answers(made: str) -> bool:
    try:
        psycopg.connect(made).close()
    except psycopg.OperationalError:  # nobody listens yet, or it is starting up
        return False
    return True


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, "it does not start"
        time.sleep(0.1)


@dataclass(frozen=True)
class Server:
    """A tracking server; `secrets` are the lines it was given."""

    uri: str
    secrets: dict[str, str]
    log: Path


@pytest.fixture(scope="module")
def server(
    postgres: str,
    start_s3_server: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Start infra/mlflow/serve.sh; its end ends what it started."""
    folder = tmp_path_factory.mktemp("mlflow")
    secrets = {
        "postgres_password": PASSWORD,
        "admin_password": "planted-admin-password",
        "session_key": "planted-session-key",
        "s3_access_key": "planted-access-key",
        "s3_secret_key": "planted-secret-key",
    }
    for name, line in secrets.items():
        (folder / name).write_text(line + "\n")
    s3_process, s3 = start_s3_server()
    s3.empty()
    port = free_port()
    settings = {
        "MLFLOW_DATABASE": f"postgresql+psycopg://mlflow@{postgres}/mlflow",
        "MLFLOW_AUTH_DATABASE": f"postgresql+psycopg://mlflow@{postgres}/mlflow_auth",
        "MLFLOW_FILES": f"{s3.bucket}/artifacts",
        "MLFLOW_S3_ENDPOINT_URL": s3.endpoint,
        "MLFLOW_PORT": str(port),
        "MLFLOW_SECRETS": str(folder),
        "AWS_REGION": "us-east-1",
        "PYTHON": sys.executable,
    }
    command = ["sh", str(ROOT / "infra" / "mlflow" / "serve.sh"), "--workers", "1"]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **settings}, cwd=folder, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(lambda: is_open(port), process)
        yield Server(uri=f"http://127.0.0.1:{port}", secrets=secrets, log=log)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        s3_process.kill()
        s3_process.wait()


@pytest.fixture
def user(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.secrets["admin_password"])


def test_nobody_reads_without_a_password(server: Server) -> None:
    for path in (
        "/",
        "/api/2.0/mlflow/experiments/search?max_results=5",
        "/ajax-api/2.0/mlflow/runs/search",
    ):
        with pytest.raises(HTTPError) as refused:
            urlopen(server.uri + path)
        assert refused.value.code == 401


def test_a_run_goes_to_postgres_and_s3_and_its_model_comes_back(
    server: Server,
    user: None,
    tiny_config: Callable[..., Any],
    tiny_worlds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    where = ClusterConfig(
        num_workers=0, threads_per_worker=1, loader="torch", storage=str(tmp_path / "runs"),
        data_root=str(tiny_worlds), tracking_uri=server.uri, node_metrics_s=0.001,
        register="person",
    )  # fmt: skip
    config = tiny_config(
        "source-demo", source="synthetic_a", target="synthetic_a", precision="float32"
    )
    monkeypatch.setattr(uploads, "POLL_S", 0.05)
    summary = pipeline.run("first", config, where, show=lambda *_: None)

    client = MlflowClient(tracking_uri=server.uri)
    run = client.get_run(summary["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["eval/target/mAP"] == summary["rounds"][-1]["mAP"]
    assert any(key.startswith("system/") for key in run.data.metrics)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == {
        "rounds.png",
        "summary.json",
    }
    kept = client.download_artifacts(run.info.run_id, "summary.json", str(tmp_path))
    scores = json.loads(Path(kept).read_text())["direct_transfer"]
    assert scores == summary["direct_transfer"]
    everything = json.dumps(run.to_dictionary())
    assert not [name for name, line in server.secrets.items() if line in everything]
    printed = server.log.read_text()
    assert not [name for name, line in server.secrets.items() if line in printed]

    check_model(client, tmp_path / "runs" / "first", summary, tmp_path)


def check_model(
    client: MlflowClient, folder: Path, summary: dict[str, Any], tmp_path: Path
) -> None:
    """Register a run's network once more and load it where this project's code is not."""
    upload.main(upload.Options(folder=str(folder), register="person"))  # it is there already
    (version,) = client.search_model_versions("name = 'person'")
    assert version.run_id == summary["mlflow_run_id"]
    assert sorted(client.get_model_version("person", version.version).aliases) == [
        "champion",
        "newest",
    ]

    recipe = restore(checkpoints.read(str(folder)))
    size = (5, recipe.config.height, recipe.config.width, 3)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    out = tmp_path / "embedded.npy"
    lone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    lone |= {
        "MLFLOW_TRACKING_URI": client.tracking_uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, "models:/person@champion", "images.npy", str(out)],
        env=lone, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        wanted = recipe.embed(normalise(torch.from_numpy(images)))
    np.testing.assert_allclose(np.load(out), wanted.numpy(), atol=1e-6)
