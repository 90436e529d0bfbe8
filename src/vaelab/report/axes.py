"""Swept settings as axes of plots, or as their colours."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from vaelab.report.differences import is_numeric, level_labels, levels, short_names
from vaelab.report.sweep import Sweep

WIDE = 50
"""Ratio of largest to smallest value from which an axis is logarithmic."""


@dataclass(frozen=True)
class Axis:
    """A swept setting as an axis of a plot, or as its colours.

    Attributes:
        name: Name on the page.
        column: Its values, by job.
    """

    name: str
    column: pd.Series

    @cached_property
    def levels(self) -> list:
        """Distinct values: numbers sorted, others as they appear; None last if some are missing."""
        return levels(self.column)

    @cached_property
    def labels(self) -> list[str]:
        """The levels as short texts, cut to 28 characters."""
        return [shortened(label, 28) for label in level_labels(self.levels)]

    @property
    def numeric(self) -> bool:
        """True if the values are numbers and not booleans."""
        return is_numeric(self.column)

    @cached_property
    def numbers(self) -> list[float]:
        """The levels as sorted floats, without None; empty if the axis is not numeric."""
        return [float(level) for level in self.levels if self.numeric and level is not None]

    @property
    def log(self) -> bool:
        """True if a log scale fits: over two levels, all positive, and max / min at least WIDE."""
        known = self.numbers
        return len(known) > 2 and known[0] > 0 and known[-1] / known[0] >= WIDE

    def position(self, value: object) -> float:
        """Returns the axis position: the number, NaN if missing; level index if not numeric."""
        if not self.numeric:
            return float(self.level_index(value))
        return math.nan if pd.isna(value) else float(value)  # type: ignore[arg-type]

    @cached_property
    def indices(self) -> dict[Any, int]:
        """The index of each level."""
        return {level: index for index, level in enumerate(self.levels)}

    def level_index(self, value: object) -> int:
        """Returns the index of a value among the levels; KeyError if it is not one of them."""
        return self.indices[None if pd.isna(value) else value]

    @property
    def marks(self) -> tuple[list[float], list[str]]:
        """Positions and labels of the levels; omits the missing level of a numeric axis."""
        places = [self.position(level) for level in self.levels]
        known = [i for i, place in enumerate(places) if not math.isnan(place)]
        return [places[i] for i in known], [self.labels[i] for i in known]


def shortened(text: str, most: int) -> str:
    """Returns a text cut to at most `most` characters, ending in `...` if it was longer."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def sweep_axis(sweep: Sweep, column: str) -> Axis:
    """Returns the axis of a column of the sweep's jobs."""
    return Axis(sweep.names.get(column) or short_names([column])[column], sweep.jobs[column])
