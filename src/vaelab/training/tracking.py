"""Loggers to Weights & Biases and to MLflow that go on with the run of an earlier start."""

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from lightning.pytorch import loggers
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from PIL.Image import Image

from vaelab.errors import UserError, first_line
from vaelab.files.atomic import make_folder
from vaelab.training.json_files import read_json_or_nothing, write_json

T = TypeVar("T")
FILE = Path(".hydra", "tracking.json")
"""File in a run folder: the ids of its runs at these services, by the name of the package."""
ID = re.compile(r"[\w-]{1,64}")


@runtime_checkable
class LogsImages(Protocol):
    """A logger that shows pictures."""

    def log_image(self, key: str, images: list[Image], step: int | None = None) -> None:
        """Logs pictures under a name, at an optimizer step, counted from 0."""
        ...


class WandbLogger(loggers.WandbLogger):
    """Lightning's logger to Weights & Biases, but a resumed run goes on in the run that it began.

    Points after the checkpoint that it goes on from are logged twice, for Weights & Biases cannot
    delete them.

    Args:
        folder: The run folder, in which the id is kept.
        anew: Whether to begin another run in any case.
        options: Further arguments of Lightning's logger, and of `wandb.init`.

    Raises:
        UserError: If wandb is not installed; in `experiment`, if it refuses to start.
    """

    def __init__(self, folder: str, anew: bool, **options: Any) -> None:
        check_installed("wandb")
        self.folder, self.is_kept = Path(folder), False
        found = None if anew else earlier_id(self.folder, "wandb")
        options["name"] = options.get("name") or self.folder.name
        super().__init__(**{"id": found} | options)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of wandb; its first use starts it, and writes its id into the run folder."""
        begun = explain_refusal("wandb", lambda: super(WandbLogger, self).experiment)
        if not self.is_kept:
            self.is_kept = True
            keep_id(self.folder, "wandb", begun.id)
        return begun


class MLFlowLogger(loggers.MLFlowLogger):
    """Lightning's logger to MLflow, with pictures; a resumed run goes on in the run that it began.

    Points after the checkpoint that it goes on from are logged again only if their values are
    others, as the speed; MLflow cannot delete the earlier ones.

    Args:
        folder: The run folder, in which the id is kept.
        anew: Whether to begin another run in any case.
        options: Further arguments of Lightning's logger.

    Raises:
        UserError: If mlflow is not installed; in `experiment`, if it refuses to start.
    """

    def __init__(self, folder: str, anew: bool, **options: Any) -> None:
        check_installed("mlflow")
        self.folder, self.is_kept = Path(folder), False
        self.resumed = None if anew else earlier_id(self.folder, "mlflow")
        self.known: dict[str, set[tuple[int, float]]] = {}  # points by metric, where resumed
        options["run_name"] = options.get("run_name") or self.folder.name
        super().__init__(**{"run_id": self.resumed} | options)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The client of MLflow; its first use starts the run, and writes its id into the folder."""
        client = explain_refusal("mlflow", lambda: super(MLFlowLogger, self).experiment)
        if not self.is_kept:
            self.is_kept = True  # before `run_id`, which asks for the experiment
            keep_id(self.folder, "mlflow", str(self.run_id))
        return client

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Logs settings; skips those of a resumed run, which MLflow refuses to change."""
        if self.resumed is None:
            super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Called by Lightning to log scalars; skips points that a resumed run has already."""
        new = {name: v for name, v in metrics.items() if (step, v) not in self.known_points(name)}
        if new:
            super().log_metrics(new, step)

    def known_points(self, name: str) -> set[tuple[int, float]]:
        """Returns step and value of each point that a resumed run had of a metric; asks MLflow."""
        if self.resumed is None:
            return set()
        if name not in self.known:
            history = self.experiment.get_metric_history(self.resumed, name)
            self.known[name] = {(point.step, point.value) for point in history}
        return self.known[name]

    @rank_zero_only
    def log_image(self, key: str, images: list[Image], step: int | None = None) -> None:
        """Logs pictures under a name and step, as MLflow shows them."""
        for image in images:
            self.experiment.log_image(self.run_id, image, key=key, step=step)


def check_installed(name: str) -> None:
    """Raises UserError if a package is not installed; does not import it."""
    if find_spec(name) is None:
        raise UserError(f'logger={name}: {name} is not installed; pip install "vaelab[{name}]"')


def explain_refusal(name: str, start: Callable[[], T]) -> T:
    """Returns what a function that starts a run returns; raises UserError for any error in it."""
    try:
        return start()
    except Exception as error:  # of the package's own, or of the network
        advice = {"wandb": "; log in by wandb login, or set WANDB_MODE=offline"}.get(name, "")
        raise UserError(f"logger={name}: {first_line(error)}{advice}") from error


def earlier_id(folder: Path, name: str) -> str | None:
    """Returns the id of the run that a folder's training began, if it has a checkpoint to go on."""
    found = read_json_or_nothing(folder / FILE).get(name)
    goes_on = (folder / "checkpoints" / "last.ckpt").exists()
    return found if goes_on and isinstance(found, str) and ID.fullmatch(found) else None


def keep_id(folder: Path, name: str, number: str) -> None:
    """Writes the id of a run into its folder, unless it is there."""
    path = folder / FILE
    kept = read_json_or_nothing(path)
    if kept.get(name) != number:
        make_folder(path.parent)
        write_json(path, kept | {name: number})
