"""Logger of scalars to `metrics.csv` that goes on with the file of an earlier start of the run."""

import csv
import io
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from vaelab.files.atomic import make_folder, write_text


class CSVLogger(loggers.CSVLogger):
    """Lightning's CSV logger, but it keeps the rows that `metrics.csv` has, and never half a file.

    Lightning's deletes the file when a run is resumed.
    """

    @cached_property
    def table(self) -> "MetricsTable":
        """The rows of the run; made on first use, which creates the folder."""
        return MetricsTable(Path(self.log_dir))

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Called by Lightning: the rows of the run, or a dummy in all processes but rank 0."""
        return self.table

    def rewind(self, step: int) -> None:
        """Deletes the rows from a step on, which a resumed training logs again."""
        self.table.rewind(step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Called by Lightning after fit and test, and on an exception: writes the pending rows."""
        self.save()


class MetricsTable:
    """The file `metrics.csv` of a folder, a row for each call that logs, and `hparams.yaml`.

    Args:
        folder: The folder; created if absent.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.path = folder / "metrics.csv"
        self.metrics: list[dict[str, Any]] = []  # rows that are not yet in the file
        self.hparams: dict[str, Any] = {}
        self.columns = sorted({name for row in self.read_rows() for name in row})

    def log_hparams(self, params: Mapping[str, Any]) -> None:
        """Called by Lightning to log hyperparameters: writes them to `hparams.yaml`."""
        self.hparams.update(params)
        save_hparams_to_yaml(self.path.with_name("hparams.yaml"), self.hparams)

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Called by Lightning to log scalars: adds a row, which `save` writes."""
        values = {n: v.item() if isinstance(v, Tensor) else v for n, v in metrics.items()}
        self.metrics.append({**values, "step": step})

    def save(self) -> None:
        """Called by Lightning: appends the pending rows; rewrites the file if a column is new."""
        if not self.metrics:
            return
        rows, self.metrics = self.metrics, []
        if new := {name for row in rows for name in row} - set(self.columns):
            earlier = self.read_rows()
            self.columns = sorted({*self.columns, *new})
            self.write_rows([*earlier, *rows])
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerows(rows)

    def rewind(self, step: int) -> None:
        """Deletes the rows from a step on, and the file if none is left."""
        rows = self.read_rows()
        kept = [row for row in rows if int(row["step"]) < step]
        if kept:
            self.write_rows(kept)
        else:
            self.path.unlink(missing_ok=True)
            self.columns = []

    def read_rows(self) -> list[dict[str, str]]:
        """Reads the rows of the file, without empty values; skips a row cut off by a kill."""
        if not self.path.exists():
            return []
        content = self.path.read_text()
        lines = content[: content.rfind("\n") + 1].splitlines()
        rows = [row for row in csv.DictReader(lines) if None not in row.values()]
        return [{name: v for name, v in row.items() if v} for row in rows if row.get("step")]

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Replaces the file by one with the columns and these rows, atomically."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
