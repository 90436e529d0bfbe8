"""What a search is for: numbers of finished runs, and which trials are best by them."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from optuna import Study
from optuna.trial import FrozenTrial

from vaelab.errors import UserError, nearest
from vaelab.runs.folder import read_evaluation
from vaelab.training.json_files import read_json

Direction = Literal["maximize", "minimize"]


def values(folder: Path, names: Iterable[str]) -> list[float]:
    """The objectives of a finished run.

    Raises:
        UserError: If one of them was not measured, or is not a number.
    """
    found = measured(folder)
    for name in names:
        if name not in found:
            raise UserError(f"{name} was not measured; {nearest(name, found)}")
        if math.isnan(found[name]):
            raise UserError(f"{name} is not a number")
    return [found[name] for name in names]


def measured(folder: Path) -> dict[str, float]:
    """All numbers of a finished run, by their names in its files."""
    entries = read_evaluation(folder).items()
    found: dict[str, Any] = {
        name: entry.get("value") for name, entry in entries if isinstance(entry, dict)
    }
    found |= read_json(folder / "results.json")
    numbers = (int, float)  # and no bool, which is one of them
    return {name: float(value) for name, value in found.items() if type(value) in numbers}


def best(study: Study, objectives: Mapping[str, Direction]) -> list[FrozenTrial]:
    """The best trial, or those that no other one beats in every objective, by the first."""
    first, *_ = objectives.values()
    found = sorted(study.best_trials, key=lambda trial: trial.values)
    return found[::-1] if first == "maximize" else found
