"""Processor seconds of several ways to do one thing, in turn: all meet the same machine."""

import resource
import statistics
from collections.abc import Callable, Mapping


def cpu_seconds() -> float:
    """Return the processor seconds this process and its finished children have used."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def interleaved(
    cases: Mapping[str, Callable[[], object]], *, repeats: int
) -> dict[str, list[float]]:
    """Return each case's processor seconds, one a repeat; a first, unmeasured turn warms all up."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, case in cases.items():
            started = cpu_seconds()
            case()
            if repeat:
                seconds[name].append(cpu_seconds() - started)
    return seconds


def median_ratio(peer: list[float], ours: list[float]) -> float:
    """Return the median over turns of peer / ours."""
    return statistics.median(a / b for a, b in zip(peer, ours, strict=True))
