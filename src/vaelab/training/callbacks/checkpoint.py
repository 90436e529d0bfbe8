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
    """Keeps `best.ckpt`, by the least `val/loss`, and `last.ckpt`.

    That is what is minimised, with every weight as configured. By `val/elbo`, which never weighs
    anything, the best of a beta-VAE whose beta is annealed would be from when beta passed 1.

    A SIGTERM or a Ctrl-C ends training after the batch, or the validation, that is under way,
    with a `last.ckpt` of that very step; a second Ctrl-C ends it at once. Any other end leaves
    the checkpoint before.

    Args:
        dirpath: The folder.
        monitor: The logged value to choose by.
        mode: Whether it is to be high or low.

    Attributes:
        best_elbo: `val/elbo` of the best checkpoint, nan before the first validation.
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
        """The name of this callback's state in a checkpoint, the same for every version."""
        return "Checkpoint"

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        better = super().check_monitor_top_k(trainer, current)
        if better:
            self.best_elbo = float(trainer.callback_metrics["val/elbo"])
        return better

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"best_elbo": self.best_elbo}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Knows the best checkpoint again in a folder that was moved or copied."""
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
        self.replace_handler(signal.SIGINT, self.interrupt)

    def interrupt(self, *_: Any) -> None:
        """Ctrl-C: ends like a SIGTERM."""
        self.interrupted = True
        self.restore_handler(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    on_train_batch_end = Callback.on_train_batch_end  # Lightning's is for `every_n_train_steps`

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:  # half a validation could not be resumed
            self.replace_handler(signal.SIGTERM, self.hold)

    def hold(self, *_: Any) -> None:
        self.sigterm_held = True

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_validation_end(trainer, module)
        within_epoch = not trainer.is_last_batch  # at its end the epoch is not counted yet
        if trainer.state.fn == TrainerFn.FITTING and within_epoch and not trainer.sanity_checking:
            self.save_last_step(trainer)
        self.restore_handler(signal.SIGTERM)
        if self.sigterm_held:
            self.sigterm_held = False
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        logged = trainer.callback_metrics
        if "val/elbo" in logged or self.monitor in logged:  # neither before the first validation
            super().on_train_epoch_end(trainer, module)
        self.save_last_step(trainer)

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, SIGTERMException) and trainer.state.fn == TrainerFn.FITTING:
            self.save_last_step(trainer)
            exception.code = 130 if self.interrupted else 143
        for number in list(self.handlers):
            self.restore_handler(number)

    def save_last_step(self, trainer: Trainer) -> None:
        """Writes `last.ckpt`, unless it is of this step already.

        Lightning's own `save_last` writes it only along with a new best one.
        """
        if trainer.global_step != self.saved_step and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.last)
            self.saved_step = trainer.global_step

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.restore_handler(signal.SIGINT)

    def replace_handler(self, number: int, handler: Any) -> None:
        if current_thread() is main_thread():  # Python lets no other thread do it
            self.handlers[number] = signal.signal(number, handler)

    def restore_handler(self, number: int) -> None:
        if number in self.handlers:
            signal.signal(number, self.handlers.pop(number))


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
        UserError: If there is none, or it is damaged or of a newer vaelab.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such checkpoint") from error
    except Exception as error:  # a damaged archive fails in many ways
        raise UserError(f"{path}: truncated, or no checkpoint") from error
    checkpoint_format.check(path, content)
    return content
