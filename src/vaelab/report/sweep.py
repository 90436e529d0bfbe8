"""A sweep folder, finished or not, read as a table with a row for each job."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from vaelab.errors import UserError
from vaelab.report.differences import (
    differing_settings,
    levels,
    short_names,
    sorted_settings,
    typed_column,
)
from vaelab.runs import comparability
from vaelab.runs.folder import (
    COMPOSED,
    EVALUATION,
    FAILURE,
    is_inside,
    is_of_results,
    read_config,
    rename_metrics,
)
from vaelab.training.json_files import number_or_none

STATES = ("done", "failed", "unfinished", "not begun")
COSTS = ("seconds", "epochs", "steps")
LATENT_DIM = "model.latent_dim"
LOG = "job.log"


@dataclass(frozen=True)
class Sweep:
    """The jobs of a sweep folder as a table, with their settings, metrics and states.

    Attributes:
        folder: The sweep folder.
        command: The command that started it, if it is known.
        jobs: A row for each job: `folder`, `state`, the swept settings by their dotted names,
            `seed` and `model.latent_dim` in any case, the metrics, with `_se` the standard error
            over test images of those that have been evaluated, `seconds`, `epochs`, `steps`,
            `progress` from 0 to 1, `error` and `log`; `stopped` where it ended early; `group`
            where not all can be compared, the name of those that can.
        swept: The columns that are swept settings, `seed` last.
        metrics: The columns that are measured, without those of standard errors.
        results: Each job's `results.json`, empty where there is none.
    """

    folder: Path
    command: str | None
    jobs: pd.DataFrame
    swept: list[str]
    metrics: list[str]
    results: list[dict[str, Any]]

    @cached_property
    def settings(self) -> list[str]:
        """The swept settings without the seed."""
        return [name for name in self.swept if name != "seed"]

    @cached_property
    def axes(self) -> list[str]:
        """The swept settings, without the seed, that have more than one value."""
        return [name for name in self.settings if len(levels(self.jobs[name])) > 1]

    @cached_property
    def names(self) -> dict[str, str]:
        """Short names of the swept settings, by dotted name."""
        return short_names(self.swept)

    @cached_property
    def done(self) -> pd.DataFrame:
        """The rows of the finished jobs."""
        return self.jobs[self.jobs["state"] == "done"]

    @cached_property
    def parts(self) -> dict[str, "Sweep"]:
        """One sweep per group of comparable runs, by the group's name; {'': self} for one group.

        Jobs that have not begun are in no group, if there are several.
        """
        if "group" not in self.jobs:
            return {"": self}
        parts = {}
        for group in self.jobs["group"].dropna().unique():
            jobs = self.jobs[self.jobs["group"] == group]
            swept = [n for n in self.swept if n == "seed" or len(levels(jobs[n])) > 1]
            metrics = [n for n in self.metrics if jobs[n].notna().any()]
            results = [self.results[i] for i in jobs.index]
            parts[group] = Sweep(self.folder, self.command, jobs, swept, metrics, results)
        return parts

    @property
    def is_grid(self) -> bool:
        """True if at least half of all combinations of the axes' values occur, as in a grid."""
        cells = math.prod(len(levels(self.jobs[name])) for name in self.axes)
        combinations = len(self.jobs[self.axes].drop_duplicates()) if self.axes else 1
        return cells <= 2 * combinations

    def counts(self) -> str:
        """Returns the number of runs, and of those in each state, as text."""
        found = self.jobs["state"].value_counts()
        parts = [f"{found[state]} {state}" for state in STATES if state in found]
        return f"{len(self.jobs)} {'run' if len(self.jobs) == 1 else 'runs'}: {', '.join(parts)}"


def read_sweep(folder: Path) -> Sweep:
    """Reads the sweep in a folder; without `sweep.json`, all runs below the folder as a sweep.

    Raises:
        UserError: If there is no such folder, no run in it, or `sweep.json` cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    index = folder / "sweep.json"
    plan = read_json_or_error(index, folder)
    if "error" in plan:
        raise UserError(f"{index}: {plan['error']}")
    if plan:
        check_plan(index, plan)
        paths = [job["folder"] for job in plan.get("jobs", [])]
        overrides = [job.get("overrides", {}) for job in plan.get("jobs", [])]
    else:
        found = [path for path in folder.rglob(str(COMPOSED)) if is_inside(path, folder)]
        runs = sorted(path.parents[1] for path in found)
        paths = [run.relative_to(folder).as_posix() for run in runs]
        overrides = differing_settings(runs)
    if not paths:
        raise UserError(f"{folder} is no sweep folder, and there is no run in it")
    return build_sweep(folder, plan.get("command"), paths, overrides)


def check_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Raises UserError unless each job in the content of `sweep.json` has a folder and settings."""
    jobs = plan.get("jobs", [])
    for job in jobs if isinstance(jobs, list) else [None]:
        match job:
            case {"folder": str(), **rest} if isinstance(rest.get("overrides", {}), dict):
                continue
        raise UserError(f"{path}: damaged, or of no sweep of vaelab")


def build_sweep(
    folder: Path,
    command: str | None,
    paths: Sequence[str],
    overrides: Sequence[Mapping[str, Any]],
) -> Sweep:
    """Reads the files of each run folder and returns the sweep with its table of jobs.

    Args:
        folder: The sweep folder.
        command: The command that started the sweep, if known.
        paths: The run folders, relative to the sweep folder.
        overrides: The swept settings of each job.
    """
    runs = [folder / path for path in paths]
    results = [read_json_or_error(run / "results.json", folder) for run in runs]
    states = [job_state(run, result, folder) for run, result in zip(runs, results, strict=True)]
    swept = sorted_settings(list(dict.fromkeys(name for job in overrides for name in job)))
    columns: dict[str, Any] = {"folder": pd.Series(paths, dtype="str")}
    columns["state"] = pd.Series([found["state"] for found in states], dtype="str")
    for name in swept:
        columns[name] = typed_column([job.get(name) for job in overrides])
    columns.setdefault("seed", typed_column([result.get("seed") for result in results]))
    columns.setdefault(LATENT_DIM, typed_column([latent_dim(result) for result in results]))
    pairs = zip(runs, results, strict=True)
    measured = [read_metrics(run, result, folder) for run, result in pairs]
    names = list(dict.fromkeys(name for found in measured for name in found))
    for name in names:
        columns[name] = pd.Series([found.get(name) for found in measured], dtype="float64")
    for name in COSTS:
        columns[name] = typed_column([number_or_none(result.get(name)) for result in results])
    columns["stopped"] = pd.Series([result.get("stopped") for result in results], dtype="str")
    columns["progress"] = pd.Series([found.get("share") for found in states], dtype="float64")
    for name in ("error", "log"):
        columns[name] = pd.Series([found.get(name) for found in states], dtype="str")
    groups = comparable_groups(runs, results, folder)
    if len(set(groups) - {None}) > 1:
        columns["group"] = pd.Series(groups, dtype="str")
    ends = [name for name in names if name.endswith("_se") and name.removesuffix("_se") in names]
    kept = [name for name in names if name not in ends and columns[name].notna().any()]
    return Sweep(folder, command, pd.DataFrame(columns), swept, kept, results)


def read_json_or_error(path: Path, folder: Path) -> dict[str, Any]:
    """Reads a JSON file: {} if it is missing, {'error': ...} if it cannot be read or holds no dict.

    Nothing outside of `folder` is read: paths in `sweep.json`, and links, may come from elsewhere.
    """
    if not is_inside(path, folder):
        return {"error": f"{path.name} is outside of {folder}"}
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        return {"error": f"{path.name} cannot be read: {error}"}
    return found if isinstance(found, dict) else {"error": f"{path.name} holds no settings"}


def job_state(run: Path, result: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Returns the state of a job, its share done, error and log; reads its progress and failure.

    Args:
        run: The run folder.
        result: The content of `results.json`.
        folder: The sweep folder, outside of which nothing is read.
    """
    if "error" in result:
        return {"state": "failed", "error": result["error"]}
    if result:
        return {"state": "done", "share": 1.0}
    if failure := read_json_or_error(run / FAILURE, folder):
        message = str(failure.get("error") or f"exit code {failure.get('exit')}")
        return {"state": "failed", "error": message, "log": str(failure.get("log") or LOG)}
    progress = read_json_or_error(run / "progress.json", folder)
    begun = progress or (run / COMPOSED).exists() or (run / LOG).exists()
    log = LOG if (run / LOG).exists() else None
    share = number_or_none(progress.get("share"))
    return {"state": "unfinished", "share": share, "log": log} if begun else {"state": "not begun"}


def read_metrics(run: Path, result: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """Returns metrics and `_se` errors of results and `evaluation.json`; {} if unfinished.

    Skips an evaluation of an earlier checkpoint. `result` is the content of `results.json`. `_se`
    is a standard error. Nothing outside of the sweep folder, `folder`, is read.
    """
    if "val/elbo" not in result:
        return {}
    found = {name: number_or_none(value) for name, value in result.items() if "/" in name}
    evaluation = read_json_or_error(run / EVALUATION, folder)
    if not is_of_results(evaluation, result):
        return {name: value for name, value in found.items() if value is not None}
    for name, entry in rename_metrics(evaluation).items():
        if isinstance(entry, dict) and number_or_none(entry.get("value")) is not None:
            found[name] = number_or_none(entry["value"])
            if number_or_none(entry.get("se")) is not None:
                found[f"{name}_se"] = number_or_none(entry["se"])
    return {name: value for name, value in found.items() if value is not None}


def comparable_groups(
    runs: Sequence[Path], results: Sequence[Mapping[str, Any]], folder: Path
) -> list[str | None]:
    """Returns the name of each run's group of comparable runs; None if its settings are unreadable.

    The name is empty if there is only one group.
    """
    configs = [
        kept_config(result) or read_comparable_config(run, folder)
        for run, result in zip(runs, results, strict=True)
    ]
    keys = [comparability.scale_key(config) if config else None for config in configs]
    names = comparability.key_labels([key for key in keys if key])
    return [names[key] if key else None for key in keys]


def read_comparable_config(run: Path, folder: Path) -> dict[str, Any]:
    """Reads the part of a run's configuration that decides comparability; {} on any error.

    Resolvers are not called, and nothing outside of the sweep folder, `folder`, is read.
    """
    if not is_inside(run / COMPOSED, folder):
        return {}
    try:
        return comparability.compared_config(read_config(run))
    except Exception:  # missing, damaged, or of another program
        return {}


def latent_dim(result: Mapping[str, Any]) -> Any:
    """Returns `model.latent_dim` of the configuration in a run's results, or None."""
    return kept_config(result).get("model", {}).get("latent_dim")


def kept_config(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration in a run's results; {} if there is none, or it is damaged."""
    found = result.get("config")
    return found if isinstance(found, dict) and isinstance(found.get("model"), dict) else {}
