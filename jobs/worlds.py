"""The built-in worlds, drawn where a run is on them."""

import dataclasses
import os
from collections.abc import Iterable, Mapping

from cluster.config import ClusterConfig
from jobs.console import Show
from reid.data.synthetic import WorldConfig, write_world
from reid.recipes import RunConfig

BUILT_IN: Mapping[str, WorldConfig] = {
    "synthetic_a": WorldConfig(domain="a"),
    "synthetic_b": WorldConfig(domain="b"),
    "synthetic_vehicle_a": WorldConfig(domain="a", subject="vehicle", width=128),
    "synthetic_vehicle_b": WorldConfig(domain="b", subject="vehicle", width=128),
}
"""Worlds by the names of their readers, in sizes that nobody asks for."""


def draw_worlds(
    names: Iterable[str], data_root: str, *, height: int, width: int, show: Show
) -> None:
    """Write built-in worlds below a folder, with images of `height` x `width` pixels.

    Those that are there stay; ValueError where another one, or anything else, is in their place.
    """
    for name in dict.fromkeys(names):
        world = dataclasses.replace(BUILT_IN[name], height=height, width=width)
        draw_world(name, data_root, world, show=show)


def draw_world(name: str, data_root: str, world: WorldConfig, *, show: Show) -> None:
    """Write one world below a folder, as `draw_worlds` does."""
    write_world(
        os.path.join(data_root, name),
        world,
        progress=lambda done, total: show(f"draw {name}", done, total, ""),
    )


def draw_missing(config: RunConfig, where: ClusterConfig, *, show: Show) -> None:
    """Write the built-in worlds that a run reads and that are not there; leave what is there."""
    if "://" in where.data_root:
        return
    missing = [
        name
        for name in (config.source, config.target)
        if name in BUILT_IN and not os.path.exists(os.path.join(where.data_root, name))
    ]
    draw_worlds(missing, where.data_root, height=config.height, width=config.width, show=show)
