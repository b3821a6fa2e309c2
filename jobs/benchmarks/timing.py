"""Processor seconds of several ways to do one thing, in turn: all meet the same machine."""

import resource
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two ways to one result, `ours` and the `peer`'s, and what makes them comparable.

    `parity` gets what `tries` unmeasured runs of each side returned; it says what it found equal,
    or raises. Both times are divided by `units`; `theirs` does only a `share` of the peer's work,
    so its time is divided by that, too. `peak_mib` measures the memory of both, ours first.
    """

    name: str
    peer: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    parity: Callable[[Sequence[Any], Sequence[Any]], str]
    tries: int = 1
    units: int = 1
    share: float = 1.0
    peak_mib: Callable[[], tuple[float, float]] | None = None


def cpu_seconds() -> float:
    """Return the processor seconds this process and its finished children have used."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def memory_kib(name: str) -> int:
    """Return a figure of this process's memory, such as VmHWM, the most it has held, in KiB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise OSError(f"this system does not tell {name}")


def measured(case: Case, *, repeats: int) -> dict[str, Any]:
    """Return the row of a case: both sides in turn, after their parity."""
    tried = [(case.ours(), case.theirs()) for _ in range(case.tries)]
    ours, theirs = zip(*tried, strict=True)
    parity = case.parity(ours, theirs)
    seconds = interleaved({"ours": case.ours, "theirs": case.theirs}, repeats=repeats, warm=True)
    return compared(
        case.name,
        seconds["ours"],
        peer=case.peer,
        theirs=[each / case.share for each in seconds["theirs"]],
        parity=parity,
        per=case.units,
        peak_mib=case.peak_mib() if case.peak_mib else None,
    )


def interleaved(
    cases: Mapping[str, Callable[[], object]], *, repeats: int, warm: bool = False
) -> dict[str, list[float]]:
    """Return each case's processor seconds, one a repeat, in turns ABBA...

    A first, unmeasured turn warms all up, unless they are `warm`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    turns = list(cases.items())
    if not warm:
        for _, case in turns:
            case()
    for _ in range(repeats):
        for name, case in turns:
            started = cpu_seconds()
            case()
            seconds[name].append(cpu_seconds() - started)
        turns.reverse()
    return seconds


def median_ratio(peer: Sequence[float], ours: Sequence[float]) -> float:
    """Return the median over turns of peer / ours."""
    return statistics.median(a / b for a, b in zip(peer, ours, strict=True))


def compared(
    case: str,
    ours: Sequence[float],
    *,
    peer: str,
    theirs: Sequence[float],
    parity: str,
    per: int = 1,
    peak_mib: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Return a row: processor seconds of ours and of the peer, each divided by `per`.

    `parity` says what was found equal before any time was taken; `peak_mib` the memory of both.
    """
    return {
        "case": case,
        "ours_cpu_s": statistics.median(ours) / per,
        "peer": peer,
        "peer_cpu_s": statistics.median(theirs) / per,
        "ratio": median_ratio(theirs, ours),
        "ours_peak_mib": peak_mib[0] if peak_mib else None,
        "peer_peak_mib": peak_mib[1] if peak_mib else None,
        "parity": parity,
    }


def tables_of_compared(rows: Sequence[dict[str, Any]]) -> Group:
    """Return a table for each group of cases, which is what stands before the colon, and peer."""
    groups: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for row in rows:
        group, _, case = str(row["case"]).partition(": ")
        groups.setdefault((group, row["peer"]), []).append((case, row))
    return Group(
        *(_table(f"{group}, against {peer}", mine) for (group, peer), mine in groups.items())
    )


def _table(title: str, rows: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    table = Table(title=title, title_justify="left")
    has_peaks = any(row["ours_peak_mib"] is not None for _, row in rows)
    table.add_column("processor time", no_wrap=True)
    for column in ("ours", "peer", "peer / ours", *(["MiB ours / peer"] if has_peaks else [])):
        table.add_column(column, justify="right")
    table.add_column("compared before")
    for case, row in rows:
        table.add_row(
            case,
            duration(row["ours_cpu_s"]),
            duration(row["peer_cpu_s"]),
            f"{row['ratio']:.1f}",
            *([_peaks(row)] if has_peaks else []),
            row["parity"],
        )
    return table


def _peaks(row: Mapping[str, Any]) -> str:
    if row["ours_peak_mib"] is None:
        return ""
    return f"{row['ours_peak_mib']:.0f} / {row['peer_peak_mib']:.0f}"


def duration(seconds: float) -> str:
    """Return seconds to three digits in a unit that suits them."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
