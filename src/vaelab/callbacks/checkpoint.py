import os
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vaelab.errors import UserError


class Checkpoint(ModelCheckpoint):
    """Keeps `best.ckpt`, by the highest validation ELBO, and `last.ckpt`.

    An interrupt or a SIGTERM leaves a `last.ckpt` of that very step; any other end leaves
    the one before.

    Args:
        dirpath: The folder.
        monitor: The logged value that is to be high.
    """

    def __init__(self, dirpath: str, monitor: str = "val/elbo") -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode="max",
            save_last=True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        stopped = isinstance(exception, (SIGTERMException, KeyboardInterrupt))
        if stopped and trainer.training and trainer.global_step > self._last_global_step_saved:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


class AtomicFiles(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, and are loaded as tensors only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return load(Path(path))


def load(path: Path) -> dict[str, Any]:
    """The tensors and plain values of a checkpoint, on the CPU.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such checkpoint") from error
    except Exception as error:  # a damaged archive fails in many ways
        raise UserError(f"{path}: truncated, or no checkpoint") from error
