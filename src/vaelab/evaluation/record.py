"""The record of a run's metrics: `evaluation.json`, TensorBoard scalars, and tables to print."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from vaelab.files.atomic import explain_write_errors
from vaelab.files.locks import file_lock
from vaelab.metrics.estimates import not_applicable_estimate
from vaelab.runs.folder import COMPOSED, EVALUATION, read_evaluation
from vaelab.runs.screen import printable
from vaelab.training.json_files import write_json

LOCK = COMPOSED.with_name("evaluation.lock")
SIDE_BY_SIDE = 6  # most runs in a table with a column for each run
MAIN_METRICS = ("nll", "elbo", "rate", "active_units")
"""Metrics in the table of more runs than fit side by side; the files have all."""


class Record:
    """The `evaluation.json` of a run: estimates by name, and the settings of each metric.

    Args:
        folder: The run folder.
        step: Optimizer step of the checkpoint. The estimates of another step are ignored, and
            lost at the next `add`.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self.step = step
        self.path = folder / EVALUATION
        self.content = self.read()

    def read(self) -> dict[str, Any]:
        """Returns what is on record, without estimates if they are of another step."""
        found = read_evaluation(self.folder)
        return found if found.get("step") == self.step else {"step": self.step, "settings": {}}

    def has(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Returns whether a metric has been measured at this step with these settings."""
        return self.content["settings"].get(name) == settings

    def add(
        self, name: str, settings: Mapping[str, Any], results: Mapping[str, Any], command: str
    ) -> None:
        """Adds a metric's results, then rewrites `evaluation.json` and logs them to TensorBoard.

        What another process has added since is kept. An estimate that is not finite has a reason in
        place of its value.
        """
        results = {name: finite_estimate(entry) for name, entry in results.items()}
        with file_lock(self.folder / LOCK):
            self.content = self.read() | dict(results)
            self.content["settings"][name] = dict(settings)
            self.content["command"] = command
            write_json(self.path, self.content)
        self.log_scalars(results)

    def reasons(self) -> dict[str, list[str]]:
        """Returns the names of estimates that are not applicable, grouped by the reason."""
        found: dict[str, list[str]] = {}
        for name, entry in displayed_estimates(self.content).items():
            if "reason" in entry:
                found.setdefault(entry["reason"], []).append(name)
        return found

    def log_scalars(self, results: Mapping[str, Any]) -> None:
        """Writes the estimates of one number each to a new TensorBoard file in the run folder."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        with explain_write_errors(self.folder), SummaryWriter(self.folder) as board:
            for name, entry in scalar_estimates(results).items():
                board.add_scalar(f"evaluation/{name}", entry["value"], self.content["step"])


def finite_estimate(entry: Any) -> Any:
    """Returns an estimate of one number with a reason if that is not finite, and an error if it is.

    Anything else is returned as it is.
    """
    if not isinstance(entry, dict) or not isinstance(value := entry.get("value"), float):
        return entry
    if not math.isfinite(value):
        return not_applicable_estimate(f"it is {value}")
    error = entry.get("se")
    return entry | {"se": None} if isinstance(error, float) and not math.isfinite(error) else entry


def scalar_estimates(content: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the estimates of a single number; omits lists, reasons and settings."""
    return {
        name: entry
        for name, entry in content.items()
        if isinstance(entry, dict) and isinstance(entry.get("value"), float)
    }


def displayed_estimates(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the estimates of a single number, and those with a reason instead; omits lists."""
    return {
        name: entry
        for name, entry in content.items()
        if isinstance(entry, dict) and ("reason" in entry or isinstance(entry.get("value"), float))
    }


def evaluation_table(measured: Mapping[Path, Record]) -> Table:
    """Returns a table of estimates to print; of main metrics, or six, for more than six runs.

    For one run it has a row for each metric, with its standard error. For two to six it has a
    column for each run, and for more a row for each.
    """
    if len(measured) == 1:
        ((folder, record),) = measured.items()
        grid = Table("metric", title=printable(str(folder)), title_justify="left")
        for column in ("value", "standard error"):
            grid.add_column(column, justify="right")
        for name, entry in displayed_estimates(record.content).items():
            grid.add_row(printable(name), *rounded_estimate(entry["value"], entry["se"]))
        return grid
    rows = {folder: displayed_estimates(record.content) for folder, record in measured.items()}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    if len(rows) <= SIDE_BY_SIDE:
        names_column = Column("metric", no_wrap=True)
        grid = Table(names_column, *(Column(printable(f.name), "", justify="right") for f in rows))
        for name in names:
            grid.add_row(printable(name), *(cell_text(row.get(name)) for row in rows.values()))
        return grid
    names = [name for name in MAIN_METRICS if name in names] or names[:SIDE_BY_SIDE]
    grid = Table("run", *(Column(name, justify="right", no_wrap=True) for name in names))
    for folder, row in rows.items():
        grid.add_row(printable(folder.name), *(cell_text(row.get(name)) for name in names))
    return grid


def main_figures(record: Record, names: Iterable[str]) -> str:
    """Returns the estimates of these names as text, `nll=95.283 ±0.264  rate=...`; skips others."""
    found = displayed_estimates(record.content)
    return "  ".join(f"{name}={cell_text(found[name])}" for name in names if name in found)


def cell_text(entry: Mapping[str, Any] | None) -> str:
    """Returns `value ±error` as `rounded_estimate` has them; empty if not measured."""
    if entry is None:
        return ""
    value, error = rounded_estimate(entry["value"], entry["se"])
    return f"{value} ±{error}" if error else value


def rounded_estimate(value: float | None, error: float | None) -> tuple[str, str]:
    """Returns value and error as texts with 3 places, or up to 6 to show two digits of the error.

    Without an error its text is empty, and the places show three digits of the value; without a
    value the texts are `n/a` and empty.
    """
    if value is None:
        return "n/a", ""
    shown, digits = (abs(value), 3) if error is None else (error, 2)
    places = 3
    if 0 < shown < 10.0 ** (digits - 4):
        places = min(6, digits - 1 - math.floor(math.log10(shown)))
    return f"{value:.{places}f}", "" if error is None else f"{error:.{places}f}"
