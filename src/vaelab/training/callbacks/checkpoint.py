"""Callback that saves `best.ckpt` and `last.ckpt`; atomic checkpoint files and loading them."""

import os
import signal
from math import nan
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from vaelab.errors import UserError
from vaelab.training import checkpoint_format


class Checkpoint(ModelCheckpoint):
    """Callback that saves `best.ckpt` and `last.ckpt`; handles SIGTERM and Ctrl-C in the process.

    The best is by default of least `val/loss`: what is minimised, with every weight as configured.
    By `val/elbo`, which is never weighted, the best of a beta-VAE with annealed beta would be from
    when beta passed 1.

    SIGTERM or Ctrl-C ends training after the current batch or validation, and saves `last.ckpt` at
    that step. A second Ctrl-C ends it at once. After any other exception the previous
    `last.ckpt` stays.

    Args:
        dirpath: The folder of the checkpoints.
        monitor: Name of the logged value that chooses the best checkpoint.
        mode: Whether the best value is the highest (`max`) or the lowest (`min`).

    Attributes:
        best_elbo: `val/elbo` of the best checkpoint; NaN before the first validation.
    """

    def __init__(
        self, dirpath: str, monitor: str = "val/loss", mode: Literal["max", "min"] = "min"
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.last = Path(dirpath) / "last.ckpt"
        self.best_elbo = nan
        self.saved_step = -1
        self.interrupted = False
        self.sigterm_held = False
        self.handlers: dict[int, Any] = {}

    @property
    def state_key(self) -> str:
        """The key of this callback's state in checkpoints, independent of its settings."""
        return "Checkpoint"

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Returns whether `current` is a new best value; if so, keeps its `val/elbo`.

        Called by Lightning's ModelCheckpoint before it saves `best.ckpt`.
        """
        better = super().check_monitor_top_k(trainer, current)
        if better:
            self.best_elbo = float(trainer.callback_metrics["val/elbo"])
        return better

    def state_dict(self) -> dict[str, Any]:
        """Called by Lightning to save a checkpoint: adds best_elbo to ModelCheckpoint's state."""
        return super().state_dict() | {"best_elbo": self.best_elbo}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by Lightning on resuming: restores the best value, and finds its file.

        The file is `best.ckpt` in `dirpath`, if it exists there. So the best checkpoint is found
        after the run folder was moved or copied.
        """
        best = Path(str(self.dirpath)) / "best.ckpt"
        if best.exists():
            state_dict = state_dict | {
                "dirpath": self.dirpath,
                "best_model_path": str(best),
                "kth_best_model_path": str(best),
                "best_k_models": {str(best): state_dict["best_model_score"]},
            }
        super().load_state_dict(state_dict)
        self.best_elbo = state_dict["best_elbo"]

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before fit: makes the folder, replaces the SIGINT handler."""
        self.last.parent.mkdir(parents=True, exist_ok=True)
        self.replace_handler(signal.SIGINT, self.handle_sigint)

    def handle_sigint(self, *_: Any) -> None:
        """Handles the first Ctrl-C: restores the SIGINT handler, sends SIGTERM to this process."""
        self.interrupted = True
        self.restore_handler(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    on_train_batch_end = Callback.on_train_batch_end  # Lightning's is for `every_n_train_steps`

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before each validation: in fit, defers SIGTERM to its end."""
        if trainer.state.fn == TrainerFn.FITTING:  # a partial validation cannot be resumed
            self.replace_handler(signal.SIGTERM, self.defer_sigterm)

    def defer_sigterm(self, *_: Any) -> None:
        """Handles SIGTERM in a validation: records it; `on_validation_end` sends it again."""
        self.sigterm_held = True

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after validation: saves checkpoints, restores the SIGTERM handler.

        It saves a new `best.ckpt`, and within an epoch of training `last.ckpt`. With one validation
        per epoch, `on_train_epoch_end` saves both instead. A deferred SIGTERM is sent again.
        """
        super().on_validation_end(trainer, module)
        within_epoch = not trainer.is_last_batch  # at the epoch's end its count is not updated yet
        if trainer.state.fn == TrainerFn.FITTING and within_epoch and not trainer.sanity_checking:
            self.save_last_step(trainer)
        self.restore_handler(signal.SIGTERM)
        if self.sigterm_held:
            self.sigterm_held = False
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after each training epoch: saves `last.ckpt`.

        With one validation per epoch it also saves `best.ckpt`, if it is a new best.
        """
        logged = trainer.callback_metrics
        if "val/elbo" in logged or self.monitor in logged:  # absent before the first validation
            super().on_train_epoch_end(trainer, module)
        self.save_last_step(trainer)

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        """Called by Lightning on an exception: restores signal handlers; SIGTERM saves `last.ckpt`.

        On SIGTERM in fit it sets the exit status to 130 after Ctrl-C, or else to 143.
        """
        if isinstance(exception, SIGTERMException) and trainer.state.fn == TrainerFn.FITTING:
            self.save_last_step(trainer)
            exception.code = 130 if self.interrupted else 143
        for number in list(self.handlers):
            self.restore_handler(number)

    def save_last_step(self, trainer: Trainer) -> None:
        """Saves `last.ckpt`; skips it if it was saved at this step, and in `fast_dev_run`.

        Lightning's `save_last` saves it only along with a new best checkpoint.
        """
        if trainer.global_step != self.saved_step and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.last)
            self.saved_step = trainer.global_step

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after fit: restores the process's SIGINT handler."""
        self.restore_handler(signal.SIGINT)

    def replace_handler(self, number: int, handler: Any) -> None:
        """Replaces the process's handler of a signal and keeps the old one; main thread only."""
        if current_thread() is main_thread():  # other threads cannot set handlers
            self.handlers[number] = signal.signal(number, handler)

    def restore_handler(self, number: int) -> None:
        """Restores the handler that `replace_handler` kept, if any."""
        if number in self.handlers:
            signal.signal(number, self.handlers.pop(number))


class AtomicFiles(TorchCheckpointIO):
    """Lightning plugin for checkpoint files: atomic writes, loading with `weights_only=True`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint atomically, replacing an older one; ignores `storage_options`.

        Called by Lightning's strategy, in the process of rank 0. Creates missing folders.
        """
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
        """Called by Lightning on resuming: `load_checkpoint` on the CPU, ignoring all options."""
        return load_checkpoint(Path(path))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Loads the tensors and plain values of a checkpoint, on the CPU, or raises UserError.

    Raises:
        UserError: If there is no such file, or it is damaged, no checkpoint of vaelab, or of a
            newer format version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such checkpoint") from error
    except Exception as error:  # torch.load raises many types for a damaged archive
        raise UserError(f"{path}: truncated, or no checkpoint") from error
    checkpoint_format.check_format(path, content)
    return content
