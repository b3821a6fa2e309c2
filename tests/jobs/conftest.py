"""What the tests of several commands share: options of a small run, commands that are refused."""

from collections.abc import Callable, Sequence
from types import ModuleType

import pytest

from cluster.config import ClusterConfig

SMALL = (
    *("--height", "32", "--width", "16", "--last-stride", "1", "--num-identities", "4"),
    *("--steps-per-round", "2"),
)


@pytest.fixture
def small_options(place: ClusterConfig) -> tuple[str, ...]:
    """Return the options of a small run in this process, in the test's own place."""
    return (
        *SMALL,
        *("--cluster.num-workers", "0", "--cluster.threads-per-worker", "1"),
        *("--cluster.storage", place.storage, "--cluster.data-root", place.data_root),
        *("--cluster.cache", str(place.cache), "--cluster.tracking-uri", str(place.tracking_uri)),
    )


@pytest.fixture
def refused_by(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Return `refused_by(command, arguments, before=(module, name))`: standard error of a command
    that exits with 2 before it calls that function.
    """
    monkeypatch.setenv("COLUMNS", "200")

    def begin(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    def refused(command: ModuleType, arguments: Sequence[str], before: tuple[object, str]) -> str:
        monkeypatch.setattr(*before, begin)
        with pytest.raises(SystemExit) as stopped:
            command.main(arguments)
        assert stopped.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        return err

    return refused
