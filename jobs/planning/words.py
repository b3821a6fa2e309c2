"""Large and small numbers as people read them."""

PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")
UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3))
SHORTEST_S = 5e-5


def amount(value: float, unit: str) -> str:
    """Return a value with three digits and a decimal prefix."""
    for prefix in PREFIXES:
        if value < 999.5:  # beyond, three digits would read 1e+03
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} Y{unit}"


def duration(seconds: float) -> str:
    """Return a time with two digits in the largest unit it fills."""
    if seconds < SHORTEST_S:
        return "< 0.1 ms"
    unit, size = next(((u, s) for u, s in UNITS if seconds >= s), UNITS[-1])
    value = seconds / size
    return f"{value:.0f} {unit}" if value >= 9.95 else f"{value:.1f} {unit}"


def digits(value: float, number: int) -> str:
    """Return a value rounded to some digits, in full."""
    return f"{float(f'{value:.{number}g}'):,g}"
