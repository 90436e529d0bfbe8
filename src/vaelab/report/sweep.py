"""A sweep folder, finished or not, as a table with a row for each of its jobs."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from vaelab.errors import UserError
from vaelab.report.differences import differing, in_order, levels, short, typed
from vaelab.runs import comparability
from vaelab.runs.folder import COMPOSED, EVALUATION, read_config, renamed

STATES = ("done", "failed", "unfinished", "not begun")
COSTS = ("seconds", "epochs", "steps")
LATENT_DIM = "model.latent_dim"
LOG = "job.log"


@dataclass(frozen=True)
class Sweep:
    """What there is of a sweep.

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
        """The swept settings without the seed: what a mean over seeds is of."""
        return [name for name in self.swept if name != "seed"]

    @cached_property
    def axes(self) -> list[str]:
        """The settings, without the seed, that have more than one value."""
        return [name for name in self.settings if len(levels(self.jobs[name])) > 1]

    @cached_property
    def names(self) -> dict[str, str]:
        """The swept settings, and how they are called where there is little room."""
        return short(self.swept)

    @cached_property
    def done(self) -> pd.DataFrame:
        return self.jobs[self.jobs["state"] == "done"]

    @cached_property
    def parts(self) -> dict[str, "Sweep"]:
        """The runs that can be compared with each other, by group; itself where all can.

        Jobs of which nothing is known, for they have not begun, are in none.
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
        """Whether settings are combined, and not each drawn anew as in a search."""
        cells = math.prod(len(levels(self.jobs[name])) for name in self.axes)
        combinations = len(self.jobs[self.axes].drop_duplicates()) if self.axes else 1
        return cells <= 2 * combinations

    def counts(self) -> str:
        """How many jobs there are of each state, in words."""
        found = self.jobs["state"].value_counts()
        parts = [f"{found[state]} {state}" for state in STATES if state in found]
        return f"{len(self.jobs)} {'run' if len(self.jobs) == 1 else 'runs'}: {', '.join(parts)}"


def read(folder: Path) -> Sweep:
    """The sweep in a folder; or, without a `sweep.json`, all the runs below it as one.

    Raises:
        UserError: If there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    index = folder / "sweep.json"
    plan = content(index) if index.exists() else {}
    if "error" in plan:
        raise UserError(f"{index}: {plan['error']}")
    if plan:
        paths = [job["folder"] for job in plan.get("jobs", [])]
        overrides = [job.get("overrides", {}) for job in plan.get("jobs", [])]
    else:
        runs = sorted(path.parents[1] for path in folder.rglob(str(COMPOSED)))
        paths = [run.relative_to(folder).as_posix() for run in runs]
        overrides = differing(runs)
    if not paths:
        raise UserError(f"{folder} is no sweep folder, and there is no run in it")
    return assembled(folder, plan.get("command"), paths, overrides)


def assembled(
    folder: Path,
    command: str | None,
    paths: Sequence[str],
    overrides: Sequence[Mapping[str, Any]],
) -> Sweep:
    """The table of jobs.

    Args:
        folder: The sweep folder.
        command: What started it.
        paths: The jobs' folders, relative to the sweep's.
        overrides: The swept settings of each job.
    """
    runs = [folder / path for path in paths]
    results = [content(run / "results.json") for run in runs]
    states = [state(run, result) for run, result in zip(runs, results, strict=True)]
    swept = in_order(list(dict.fromkeys(name for job in overrides for name in job)))
    columns: dict[str, Any] = {"folder": pd.Series(paths, dtype="str")}
    columns["state"] = pd.Series([found["state"] for found in states], dtype="str")
    for name in swept:
        columns[name] = typed([job.get(name) for job in overrides])
    columns.setdefault("seed", typed([result.get("seed") for result in results]))
    columns.setdefault(LATENT_DIM, typed([latent_dim(result) for result in results]))
    measured = [metrics(run, result) for run, result in zip(runs, results, strict=True)]
    names = list(dict.fromkeys(name for found in measured for name in found))
    for name in names:
        columns[name] = pd.Series([found.get(name) for found in measured], dtype="float64")
    for name in COSTS:
        columns[name] = typed([number(result.get(name)) for result in results])
    columns["stopped"] = pd.Series([result.get("stopped") for result in results], dtype="str")
    columns["progress"] = pd.Series([found.get("share") for found in states], dtype="float64")
    for name in ("error", "log"):
        columns[name] = pd.Series([found.get(name) for found in states], dtype="str")
    groups = compared(runs, results)
    if len(set(groups) - {None}) > 1:
        columns["group"] = pd.Series(groups, dtype="str")
    ends = [name for name in names if name.endswith("_se") and name.removesuffix("_se") in names]
    kept = [name for name in names if name not in ends and columns[name].notna().any()]
    return Sweep(folder, command, pd.DataFrame(columns), swept, kept, results)


def content(path: Path) -> dict[str, Any]:
    """A JSON file; empty where there is none, and with an `error` where it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        return {"error": f"{path.name} cannot be read: {error}"}
    return found if isinstance(found, dict) else {"error": f"{path.name} holds no settings"}


def state(run: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a job, the share of it that is done, and its error."""
    if "error" in result:
        return {"state": "failed", "error": result["error"]}
    if result:
        return {"state": "done", "share": 1.0}
    if failure := content(run / "failure.json"):
        message = str(failure.get("error") or f"exit code {failure.get('exit')}")
        return {"state": "failed", "error": message, "log": str(failure.get("log") or LOG)}
    progress = content(run / "progress.json")
    begun = progress or (run / COMPOSED).exists() or (run / LOG).exists()
    log = LOG if (run / LOG).exists() else None
    share = number(progress.get("share"))
    return {"state": "unfinished", "share": share, "log": log} if begun else {"state": "not begun"}


def metrics(run: Path, result: Mapping[str, Any]) -> dict[str, float]:
    """What a finished run measured: its final metrics, and its evaluation with `_se` columns."""
    found = {name: number(value) for name, value in result.items() if "/" in name}
    if not result:
        return {}
    for name, entry in renamed(content(run / EVALUATION)).items():
        if isinstance(entry, dict) and number(entry.get("value")) is not None:
            found[name] = number(entry["value"])
            if number(entry.get("se")) is not None:
                found[f"{name}_se"] = number(entry["se"])
    return {name: value for name, value in found.items() if value is not None}


def compared(runs: Sequence[Path], results: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """The group of runs that each one can be compared with; None of one that has not begun."""
    configs = [
        result.get("config") or configured(run) for run, result in zip(runs, results, strict=True)
    ]
    keys = [comparability.key(config) if config else None for config in configs]
    names = comparability.labels([key for key in keys if key])
    return [names[key] if key else None for key in keys]


def configured(run: Path) -> dict[str, Any]:
    """What of its configuration tells what a run is of; empty where it cannot be read."""
    try:
        return comparability.part(read_config(run))
    except Exception:  # no file, a damaged one, one of another program
        return {}


def latent_dim(result: Mapping[str, Any]) -> Any:
    return ((result.get("config") or {}).get("model") or {}).get("latent_dim")


def number(value: Any) -> Any:
    """The value if it is a number, which may be infinite or not a number at all; else None."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
