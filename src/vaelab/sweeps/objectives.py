"""Objectives of a search: their values in finished runs, and the best trials by them."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from optuna import Study
from optuna.trial import FrozenTrial

from vaelab.errors import UserError, spelling_hint
from vaelab.runs.folder import read_evaluation
from vaelab.training.json_files import read_json

Direction = Literal["maximize", "minimize"]


def read_objectives(folder: Path, names: Iterable[str]) -> list[float]:
    """Reads the values of the objectives from the files of a finished run, in the order of `names`.

    Raises:
        UserError: If an objective was not measured, or is not a number.
    """
    found = read_numbers(folder)
    for name in names:
        if name not in found:
            raise UserError(f"{name} was not measured; {spelling_hint(name, found)}")
        if math.isnan(found[name]):
            raise UserError(f"{name} is not a number")
    return [found[name] for name in names]


def read_numbers(folder: Path) -> dict[str, float]:
    """Reads all numbers by name, without booleans, from the evaluation and results of a run.

    Results win over an evaluation, which is ignored if it is of an earlier checkpoint.
    """
    entries = read_evaluation(folder).items()
    found: dict[str, Any] = {
        name: entry.get("value") for name, entry in entries if isinstance(entry, dict)
    }
    found |= read_json(folder / "results.json")
    numbers = (int, float)  # not bool, which is a subclass of int
    return {name: float(value) for name, value in found.items() if type(value) in numbers}


def best_trials(study: Study, objectives: Mapping[str, Direction]) -> list[FrozenTrial]:
    """Returns the best trial and ties, or the Pareto front, best first by the first objective."""
    first, *_ = objectives.values()
    found = sorted(study.best_trials, key=lambda trial: trial.values)
    return found[::-1] if first == "maximize" else found
