"""What has been measured of a run, in its folder, on the screen and in TensorBoard."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from vaelab.runs.folder import EVALUATION, read_evaluation
from vaelab.training.json_files import write_json

SIDE_BY_SIDE = 6
COMPARED = ("nll", "elbo", "rate", "active_units")
"""What is shown of more runs than fit side by side; the files have all."""


class Record:
    """`evaluation.json` of a run: estimates by name, and how they were measured.

    Args:
        folder: The run folder.
        step: Optimizer step of the checkpoint; what was measured of another one is forgotten.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self.path = folder / EVALUATION
        found = read_evaluation(folder)
        fresh: dict[str, Any] = {"step": step, "settings": {}}
        self.content = found if found.get("step") == step else fresh

    def has(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether a metric has been measured with these settings."""
        return self.content["settings"].get(name) == settings

    def add(
        self, name: str, settings: Mapping[str, Any], results: Mapping[str, Any], command: str
    ) -> None:
        """Keeps the results of a metric, in the file and in TensorBoard."""
        self.content |= dict(results)
        self.content["settings"][name] = dict(settings)
        self.content["command"] = command
        write_json(self.path, self.content)
        self.plot(results)

    def reasons(self) -> dict[str, list[str]]:
        """The names of numbers that do not exist, by the reason."""
        found: dict[str, list[str]] = {}
        for name, entry in shown(self.content).items():
            if "reason" in entry:
                found.setdefault(entry["reason"], []).append(name)
        return found

    def plot(self, results: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        with SummaryWriter(self.folder) as board:
            for name, entry in scalars(results).items():
                board.add_scalar(f"evaluation/{name}", entry["value"], self.content["step"])


def scalars(content: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The estimates of one number each."""
    return {
        name: entry
        for name, entry in content.items()
        if isinstance(entry, dict) and isinstance(entry.get("value"), float)
    }


def shown(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The estimates of one number each, and what takes their place where there is none."""
    return {
        name: entry
        for name, entry in content.items()
        if isinstance(entry, dict) and ("reason" in entry or isinstance(entry.get("value"), float))
    }


def table(measured: Mapping[Path, Record]) -> Table:
    """All numbers of one run; or of a few, side by side; of many, a row each of the main ones."""
    if len(measured) == 1:
        ((folder, record),) = measured.items()
        grid = Table("metric", title=str(folder), title_justify="left")
        for column in ("value", "standard error"):
            grid.add_column(column, justify="right")
        for name, entry in shown(record.content).items():
            grid.add_row(name, *figures(entry["value"], entry["se"]))
        return grid
    rows = {folder: shown(record.content) for folder, record in measured.items()}
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    if len(rows) <= SIDE_BY_SIDE:
        names_column = Column("metric", no_wrap=True)
        grid = Table(names_column, *(Column(f.name, "", justify="right") for f in rows))
        for name in names:
            grid.add_row(name, *(cell(row.get(name)) for row in rows.values()))
        return grid
    names = [name for name in COMPARED if name in names]
    grid = Table("run", *(Column(name, justify="right", no_wrap=True) for name in names))
    for folder, row in rows.items():
        grid.add_row(folder.name, *(cell(row.get(name)) for name in names))
    return grid


def cell(entry: Mapping[str, Any] | None) -> str:
    """A value and its error, where it was measured."""
    if entry is None:
        return ""
    if entry["value"] is None:
        return "n/a"
    error = "" if entry["se"] is None else f" ±{entry['se']:.3f}"
    return f"{entry['value']:.3f}{error}"


def figures(value: float | None, error: float | None) -> tuple[str, str]:
    """A value and its error, to two digits of the error, and to the third place at least."""
    if value is None:
        return "n/a", ""
    if error is None:
        return f"{value:.3f}", ""
    places = 3
    if 0 < error < 0.01:
        places = min(6, 1 - math.floor(math.log10(error)))
    return f"{value:.{places}f}", f"{error:.{places}f}"
