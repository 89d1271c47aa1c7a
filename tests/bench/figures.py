"""Results of benchmarks: a figure beside its baseline, both measured in one run on the same cores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

Bound = Literal["at least", "at most"]


class Target(msgspec.Struct, frozen=True):
    """A target: a bound on the ratio to the baseline, or on the value."""

    of: Literal["ratio", "value"]
    bound: Bound
    limit: float

    def __str__(self) -> str:
        sign = "≥" if self.bound == "at least" else "≤"
        return f"{self.of} {sign} {self.limit:g}"


class Figure(msgspec.Struct, frozen=True):
    """One row of the table. `ratio` is `value / baseline`; `note` has further measurements."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    target: Target | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return None if not self.baseline else self.value / self.baseline

    @property
    def ok(self) -> bool | None:
        """Whether the target is met; None without a target."""
        if self.target is None:
            return None
        measured = self.value if self.target.of == "value" else self.ratio
        if measured is None:
            return False
        return measured >= self.target.limit if self.target.bound == "at least" else measured <= self.target.limit


def ratio_at_least(limit: float) -> Target:
    return Target("ratio", "at least", limit)


def ratio_at_most(limit: float) -> Target:
    return Target("ratio", "at most", limit)


def value_at_least(limit: float) -> Target:
    return Target("value", "at least", limit)


def value_at_most(limit: float) -> Target:
    return Target("value", "at most", limit)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that a `share` (0 to 1) of `values` does not exceed. `values` must not be empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


_HEADER = ("name", "value", "unit", "baseline", "ratio", "target", "ok", "beside it")


def _row(figure: Figure) -> tuple[str, ...]:
    verdict = {None: "", True: "yes", False: "NO"}[figure.ok]
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    numbers = (_number(figure.value), figure.unit, _number(figure.baseline), ratio)
    return (figure.name, *numbers, str(figure.target or ""), verdict, figure.note)


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as an aligned table."""
    rows = [_HEADER, *map(_row, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER) - 1)]
    numeric = {1, 3, 4}

    def line(row: Sequence[str]) -> str:
        cells = [
            text.rjust(width) if i in numeric else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=False))
        ]
        return "  ".join([*cells, row[-1]]).rstrip()

    return "\n".join([line(rows[0]), "-" * (sum(widths) + 2 * len(widths)), *map(line, rows[1:])])


def write_results(figures: Sequence[Figure], path: Path) -> None:
    """Write the figures as a JSON list. Figures of other names from an earlier run stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {row["name"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    for figure in figures:
        known[figure.name] = {
            "name": figure.name,
            "value": figure.value,
            "unit": figure.unit,
            "baseline": figure.baseline,
            "ratio": figure.ratio,
            "target": str(figure.target) if figure.target else None,
            "ok": figure.ok,
            "note": figure.note,
        }
    path.write_text(json.dumps(list(known.values()), indent=1) + "\n")
