"""What a search varies: fields of a run's config by dotted path, and how each is drawn.

optim.lr=log:1e-4:1e-2      real numbers, even on a logarithmic scale
smoothing=float:0:0.2       real numbers
num_clusters=int:100:500    whole numbers; logint: the same on a logarithmic scale
ema_momentum=ema:0.9:0.999  momenta m, even on a logarithmic scale of 1 - m
dbscan.eps=0.5,0.55,0.6     one of these values
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from reid.override import Scalar, flatten, override_all
from reid.recipes import RunConfig

Kind = Literal["float", "log", "int", "logint", "ema", "choice"]
KINDS: tuple[Kind, ...] = ("float", "log", "int", "logint", "ema")
FIXED = ("source", "target", "num_rounds", "steps_per_round", "eval_every_rounds", "selection")
"""Fields by which results would no longer be comparable."""
MAX_CORNERS = 4096
DIGITS = 4
"""of drawn real numbers: they are read by people and typed again"""

Values = Mapping[str, Scalar]
"""{dotted path: value}."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A field and the values it may take: from `low` to `high`, or one of `choices`."""

    path: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Scalar, ...] = ()

    @property
    def edges(self) -> tuple[Scalar, ...]:
        """The values that bound all others."""
        if self.kind == "choice":
            return self.choices
        ends = (self.low, self.high)
        return (int(ends[0]), int(ends[1])) if self.kind in ("int", "logint") else ends

    @property
    def is_log(self) -> bool:
        """Whether it is drawn, and belongs on a plot, on a logarithmic scale."""
        return self.kind in ("log", "logint", "ema")

    def __str__(self) -> str:
        """Return it as it is typed."""
        if self.kind == "choice":
            return f"{self.path}={','.join(str(value) for value in self.choices)}"
        return f"{self.path}={self.kind}:{self.edges[0]:g}:{self.edges[1]:g}"

    @property
    def distribution(self) -> Any:
        """What Optuna draws from: the values, or 1 - m of a momentum m."""
        from optuna import distributions as of

        if self.kind == "choice":
            return of.CategoricalDistribution(self.choices)
        if self.kind in ("int", "logint"):
            return of.IntDistribution(int(self.low), int(self.high), log=self.is_log)
        ends = (1 - self.high, 1 - self.low) if self.kind == "ema" else (self.low, self.high)
        return of.FloatDistribution(*ends, log=self.is_log)

    def value_of(self, drawn: Any) -> Scalar:
        """Return the field's value that something drawn stands for, real numbers rounded."""
        if self.kind in ("choice", "int", "logint"):
            value: Scalar = drawn
            return value
        short = float(f"{drawn:.{DIGITS - 1}e}")
        value = float(f"{1 - short:.10g}") if self.kind == "ema" else short
        return min(max(value, self.low), self.high)

    def drawn_of(self, value: Any) -> Any:
        """Return what is drawn where a value comes out; ValueError where it never does."""
        drawn = 1 - value if self.kind == "ema" else value
        if (
            value not in self.choices
            if self.kind == "choice"
            else not self.low <= value <= self.high
        ):
            raise ValueError(f"{self.path} is {value}, which is not in {self}")
        return drawn


def parse(texts: Sequence[str], config: RunConfig) -> tuple[Parameter, ...]:
    """Return the space that `PATH=VALUES` describe; ValueError names the part and the remedy.

    The word `default` stands for `default_space`; a path named again replaces it there.
    """
    found: dict[str, Parameter] = {}
    for text in texts:
        if text == "default":
            found |= {parameter.path: parameter for parameter in default_space(config)}
            continue
        parameter = _parameter(text, config)
        if parameter.path in found and "default" not in texts:
            raise ValueError(f"the space names {parameter.path} twice; give each field once")
        found[parameter.path] = parameter
    if not found:
        raise ValueError("the space is empty; give at least one PATH=VALUES, or `default`")
    return tuple(found.values())


def default_space(config: RunConfig) -> tuple[Parameter, ...]:
    """Return learning rate, EMA momentum and number of clusters, those that the run has.

    Around the run's own values: a third to three times the rate, a quarter of 1 - m to four times,
    half to twice the clusters; `dbscan.eps` where the run clusters by DBSCAN.
    """
    flat, space = flatten(config), []
    lr = float(f"{config.optim.lr:.3g}")
    space.append(_range("optim.lr", "log", lr / 3, lr * 3))
    momentum = flat.get("ema_momentum")
    if isinstance(momentum, float) and 0.5 < momentum < 1:
        rest = 1 - momentum
        space.append(_range("ema_momentum", "ema", 1 - min(rest * 4, 0.5), 1 - rest / 4))
    if kind_of_clustering(config) == "kmeans":
        count = int(str(flat["num_clusters"]))
        space.append(_range("num_clusters", "logint", max(2, count // 2), count * 2))
    elif "dbscan.eps" in flat:
        eps = float(str(flat["dbscan.eps"]))
        space.append(_range("dbscan.eps", "float", max(0.05, eps - 0.15), min(0.9, eps + 0.15)))
    return tuple(space)


def kind_of_clustering(config: RunConfig) -> Literal["kmeans", "dbscan", "none"]:
    """Return how a run clusters its target images."""
    if not config.clusters:
        return "none"
    names = {field.name for field in dataclasses.fields(config)}
    asked = getattr(config, "cluster", "kmeans" if "num_clusters" in names else "dbscan")
    return "kmeans" if asked == "kmeans" else "dbscan"


def check(space: Sequence[Parameter], config: RunConfig, *, num_images: int) -> None:
    """Raise ValueError unless the config can train with every edge of the space.

    With its own values elsewhere, or else with some edges of the others. `num_images` are the
    target's training images. What does not fit together is found later: it makes no trial.
    """
    for parameter in space:
        others = [other for other in space if other is not parameter]
        for value in parameter.edges:
            edge = {parameter.path: value}
            why = why_unfit(config, edge, num_images=num_images)
            if why is not None and not any(
                why_unfit(config, edge | corner, num_images=num_images) is None
                for corner in corners(others)
            ):
                raise ValueError(f"the space has {parameter}: {why}")
        if parameter.kind == "ema" and not parameter.high < 1:
            raise ValueError(
                f"the space has {parameter}; a logarithmic scale of 1 - m ends below 1, such as "
                "at 0.9999"
            )


def corners(space: Sequence[Parameter]) -> Iterator[dict[str, Scalar]]:
    """Yield the combinations of the edges of a space, the first `MAX_CORNERS` of them."""
    paths = [parameter.path for parameter in space]
    edges = product(*(parameter.edges for parameter in space))
    for values in islice(edges, MAX_CORNERS):
        yield dict(zip(paths, values, strict=True))


def count_unfit(
    space: Sequence[Parameter], config: RunConfig, *, num_images: int
) -> tuple[int, int]:
    """Return how many combinations of edges cannot train, and how many were tried."""
    tried = [why_unfit(config, corner, num_images=num_images) for corner in corners(space)]
    return sum(why is not None for why in tried), len(tried)


def why_unfit(config: RunConfig, values: Values, *, num_images: int) -> str | None:
    """Return why a config cannot train with values, None when it can."""
    try:
        override_all(config, values).check_target(num_images)
    except ValueError as error:
        return str(error)
    return None


def as_options(values: Values) -> list[str]:
    """Return values as options of `jobs.train`."""
    return [
        word for path, value in values.items() for word in _option(path.replace("_", "-"), value)
    ]


def _option(name: str, value: Scalar | Sequence[Scalar]) -> tuple[str, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return (f"--{name}", *map(str, value))
    if not isinstance(value, bool):
        return (f"--{name}", str(value))
    part, dot, last = name.rpartition(".")
    return (f"--{part}{dot}{'' if value else 'no-'}{last}",)


def _range(path: str, kind: Kind, low: float, high: float) -> Parameter:
    low, high = (float(f"{value:.{DIGITS}g}") for value in (low, high))
    return Parameter(path=path, kind=kind, low=low, high=high)


def _parameter(text: str, config: RunConfig) -> Parameter:
    path, equals, values = text.partition("=")
    if not equals or not path or not values:
        raise ValueError(
            f"the space has {text!r}, which is no PATH=VALUES; write for example "
            "optim.lr=log:1e-4:1e-2, num_clusters=int:100:500 or dbscan.eps=0.5,0.6"
        )
    path = path.replace("-", "_")
    accepted = types_of(config, path)
    if path in FIXED or path.split(".")[0] in FIXED:
        raise ValueError(
            f"the space has {path}, by which results would not be comparable; set it for all "
            f"trials with --{path.replace('_', '-')}"
        )
    kind, colon, bounds = values.partition(":")
    if not colon:
        return _choice(path, values, accepted)
    if kind not in KINDS:
        raise ValueError(
            f"the space has {text!r}: {kind!r} is not one of {', '.join(KINDS)}{_near(kind, KINDS)}"
        )
    return _bounded(path, kind, bounds, accepted)


def _bounded(path: str, kind: Kind, bounds: str, accepted: Sequence[Any]) -> Parameter:
    text = f"{path}={kind}:{bounds}"
    parts = bounds.split(":")
    if len(parts) != 2:
        raise ValueError(f"the space has {text}; give a low and a high end, {path}={kind}:LOW:HIGH")
    whole = kind in ("int", "logint")
    if not (int in accepted or (float in accepted and not whole)):
        names = ", ".join(_name(kind) for kind in accepted)
        raise ValueError(f"the space has {text}, but {path} is {names}; {_remedy(path, accepted)}")
    if int in accepted and not whole:
        raise ValueError(
            f"the space has {text}, but {path} is a whole number; {_remedy(path, accepted)}"
        )
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise ValueError(f"the space has {text}, whose ends are not both numbers") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"the space has {text}; the low end must be below the high one")
    if whole and (low != int(low) or high != int(high)):
        raise ValueError(f"the space has {text}; the ends must be whole numbers")
    if kind in ("log", "logint") and low <= 0:
        raise ValueError(f"the space has {text}; on a logarithmic scale the low end is above 0")
    return Parameter(path=path, kind=kind, low=low, high=high)


def _choice(path: str, values: str, accepted: Sequence[Any]) -> Parameter:
    choices = tuple(_literal(path, part, accepted) for part in values.split(","))
    if len(set(choices)) < max(2, len(choices)):
        raise ValueError(
            f"the space has {path}={values}; give two or more different values, or set one for all "
            f"trials with --{path.replace('_', '-')}"
        )
    return Parameter(path=path, kind="choice", choices=choices)


def _literal(path: str, text: str, accepted: Sequence[Any]) -> Scalar:
    """Return the value of one word as a field takes it."""
    named = {str(value): value for value in accepted if not isinstance(value, type)}
    if text in named:
        found: Scalar = named[text]
        return found
    if bool in accepted and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        if number in accepted:
            try:
                return number(text)
            except ValueError:
                continue
    if str in accepted:
        return text
    names = ", ".join(_name(kind) for kind in accepted)
    raise ValueError(
        f"the space has {path}={text}, but {path} is {names}{_near(text, list(named))}"
    )


def types_of(config: object, path: str) -> tuple[Any, ...]:
    """Return the types and literal values that the field at a dotted path takes.

    ValueError for a path that is no field, with what is near, and for one that is several fields.
    """
    at = config
    *parts, last = path.split(".")
    for part in parts:
        at = getattr(at, part, None)
    hints = get_type_hints(type(at)) if dataclasses.is_dataclass(at) else {}
    if last not in [field.name for field in _fields(at)]:
        known = list(flatten(config))
        near = [name for name in known if name.rpartition(".")[2] == last]
        near += [name for name in difflib.get_close_matches(path, known, n=3) if name not in near]
        hint = f"did you mean {' or '.join(near)}?" if near else f"fields are {', '.join(known)}"
        raise ValueError(f"the space has {path}, but {type(config).__name__} has none; {hint}")
    if inner := _fields(getattr(at, last)):
        names = ", ".join(f"{path}.{field.name}" for field in inner)
        raise ValueError(f"the space has {path}, which is several fields: {names}")
    return tuple(_accepted(hints[last]))


def _fields(value: object) -> tuple[dataclasses.Field[Any], ...]:
    if not dataclasses.is_dataclass(value):
        return ()
    return dataclasses.fields(value)


def _accepted(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _accepted(part)
    elif get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        yield None if hint is type(None) else hint


def _name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    return names.get(kind, str(kind)) if isinstance(kind, type) else repr(kind)


def _remedy(path: str, accepted: Sequence[Any]) -> str:
    if int in accepted:
        return f"give {path}=int:LOW:HIGH, logint:LOW:HIGH or values between commas"
    return "give values between commas"


def _near(word: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]}?" if near else ""
