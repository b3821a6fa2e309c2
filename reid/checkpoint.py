"""The state of a run as bytes and back: weights, optimizer, labels, counters; no code."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from reid.data.loaders import LoaderName
from reid.types import PseudoLabels

FORMAT = 3


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands.

    `networks`, `optimizer`: state dictionaries. `round`, `step`: the next update to make, which are
    also the counters all randomness is drawn from. `labels`: the round's pseudo-labels when `step`
    is inside a round, else empty. `loader`: the run's, see `data.loaders`. `config`: flattened;
    `kind`: its class. `sizes`: what the networks were built for (`recipes.contract.Sizes`).
    """

    networks: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    round: int
    step: int
    labels: Mapping[str, PseudoLabels]
    loader: LoaderName
    config: Mapping[str, Any]
    config_hash: str
    kind: str
    sizes: Mapping[str, int]


def to_bytes(state: RunState) -> bytes:
    """Return the state as a torch archive of tensors and plain values."""
    labels = {
        view: {
            "labels": torch.from_numpy(v.labels),
            "centers": torch.from_numpy(v.centers),
            "extras": {name: torch.from_numpy(x) for name, x in v.extras.items()},
        }
        for view, v in state.labels.items()
    }
    buffer = io.BytesIO()
    torch.save({**vars(state), "labels": labels, "format": FORMAT}, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes, *, name: str) -> RunState:
    """Return the state written by `to_bytes`; nothing in the file is executed (`weights_only`).

    `name` says in errors where the bytes came from. Raises ValueError for anything else.
    """
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if content.pop("format") != FORMAT:
            raise KeyError("format")
        labels = {
            view: PseudoLabels(
                labels=v["labels"].numpy(),
                centers=v["centers"].numpy(),
                extras={name: x.numpy() for name, x in v["extras"].items()},
            )
            for view, v in content.pop("labels").items()
        }
        return RunState(**content, labels=labels)
    except Exception as error:  # a foreign file can fail in any way
        raise ValueError(
            f"{name} is not a checkpoint of this project (format {FORMAT}): "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
