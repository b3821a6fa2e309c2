"""Configs as values: read, change, compare and name them by dotted paths."""

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

ConfigT = TypeVar("ConfigT")

Scalar = str | int | float | bool | None


def override(config: ConfigT, path: str, value: object) -> ConfigT:
    """Return a copy of a frozen dataclass with the field at a dotted path replaced.

    Raises KeyError naming the class, the field and the nearest right name.
    """
    return override_all(config, {path: value})


def override_all(config: ConfigT, values: Mapping[str, object]) -> ConfigT:
    """Return a copy of a frozen dataclass with {dotted path: value} in place.

    All at once, so that values are checked together. Raises KeyError as `override` does.
    """
    assert dataclasses.is_dataclass(config)
    assert not isinstance(config, type)
    names = [field.name for field in dataclasses.fields(config)]
    changes: dict[str, Any] = {}
    inside: dict[str, dict[str, object]] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; it has {', '.join(names)}"
            raise KeyError(f"{type(config).__name__} has no field '{name}'{hint}")
        if rest:
            inside.setdefault(name, {})[rest] = value
        else:
            changes[name] = value
    for name, inner in inside.items():
        changes[name] = override_all(getattr(config, name), inner)
    return dataclasses.replace(config, **changes)


def flatten(config: object, prefix: str = "") -> dict[str, Scalar | list[Any]]:
    """Return {dotted path: plain value} of a nested dataclass, in field order."""
    return dict(_walk(config, prefix))


def _walk(value: object, prefix: str) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            inner = f"{prefix}.{field.name}" if prefix else field.name
            yield from _walk(getattr(value, field.name), inner)
    else:
        yield prefix, list(value) if isinstance(value, tuple) else value


def config_hash(config: object) -> str:
    """Return 12 hexadecimal digits that name a config: its class and every value."""
    text = json.dumps([type(config).__qualname__, flatten(config)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differences(mine: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Return one line for each dotted path whose value differs between two flattened configs."""

    def shown(config: Mapping[str, object], path: str) -> str:
        return repr(config[path]) if path in config else "(absent)"

    pairs = ((path, shown(other, path), shown(mine, path)) for path in sorted({*mine, *other}))
    return [f"{path}: {before} -> {after}" for path, before, after in pairs if before != after]
