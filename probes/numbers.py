"""How numbers are written: a value to the digits that its error leaves standing, ranks at thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


def plus_minus(value: float, error: float) -> str:
    """`"12.34 ± 0.05"`: the error with one significant digit (two if it starts with 1), the value to match.

    An exact value (error 0) is shown with five significant digits, an unknown error (nan) as `±?`.
    """
    if not math.isfinite(value):
        return f"{value:g}"
    if math.isnan(error):
        return f"{short(value)} ±?"
    if error <= 0:
        return short(value, 5)
    if not math.isfinite(error) or error >= 1e6 or max(abs(value), error) < 1e-3 or abs(value) >= 1e6:
        return f"{value:.3g} ± {error:.1g}"
    if error < 1e-5 * abs(value):  # as many zeros as that are not counted by a reader
        return f"{short(value, 6)} ± {short(error, 1)}"
    return f"{round_to_error(value, error)} ± {round_to_error(error, error)}"


def round_to_error(value: float, error: float, significant: int = 7) -> str:
    """A value down to the last digit that its error leaves standing: 12.345 with error 0.03 is `"12.35"`."""
    if not (math.isfinite(value) and math.isfinite(error)) or error <= 0:
        return short(value, 5)
    digits = -math.floor(math.log10(error))
    if error * 10**digits < 2:  # 0.012 but 0.03: a leading 1 needs a second digit
        digits += 1
    if value:
        digits = min(digits, significant - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{max(digits, 0)}f}"


def short(value: float, digits: int = 4) -> str:
    """A number in at most `digits` significant digits, without the zeros that carry nothing."""
    return f"{value:.{digits}g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def at_thresholds(
    row: Mapping[str, Any], wanted: Iterable[float] = (1e-2, 1e-4, 1e-6)
) -> list[tuple[float, int, float]]:
    """`(threshold, rank, kappa)` at the relative thresholds that are wanted and in the table."""
    found = []
    for want in wanted:
        for threshold, rank, kappa in zip(row["thresholds"], row["ranks"], row["kappas"], strict=True):
            if math.isclose(float(threshold), want, rel_tol=1e-3) and int(rank) >= 0:
                found.append((want, int(rank), float(kappa)))
                break
    return found


def duration(seconds: float) -> str:
    """`"3.1 ms"`, `"42 s"`, `"7.5 min"`, `"2.5 h"`."""
    scales = ((1e-3, 1e-6, "µs"), (1.0, 1e-3, "ms"), (120.0, 1.0, "s"), (7200.0, 60.0, "min"), (math.inf, 3600.0, "h"))
    unit, name = next((unit, name) for limit, unit, name in scales if seconds < limit)
    value = seconds / unit
    return f"{value:.1f} {name}" if value < 9.95 else f"{value:.0f} {name}"


def storage(size: float) -> str:
    """Bytes as `"640 KiB"`, `"12 MiB"`, `"3.4 GiB"`."""
    for limit, unit, name in ((1 << 10, 1, "B"), (1 << 20, 1 << 10, "KiB"), (1 << 30, 1 << 20, "MiB")):
        if size < limit:
            return f"{size / unit:.0f} {name}"
    return f"{size / (1 << 30):.1f} GiB"


def finite(value: Any) -> Any:
    """The value for JSON, which has neither inf nor nan: None in the place of each, in mappings and lists too."""
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
