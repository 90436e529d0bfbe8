"""Callback that saves `best.ckpt` and `last.ckpt`; atomic checkpoint files and loading them."""

from collections.abc import Mapping
from math import nan
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from vaelab.errors import DamagedFileError, UserError
from vaelab.files import checksums
from vaelab.files.atomic import atomic_file, make_folder
from vaelab.files.regular import check_regular_file
from vaelab.training import checkpoint_format


class Checkpoint(ModelCheckpoint):
    """Callback that saves `best.ckpt` and `last.ckpt`, also when a signal stops training.

    The best is by default of least `val/loss`: what is minimised, with every weight as configured.
    By `val/elbo`, which is never weighted, the best of a beta-VAE with annealed beta would be from
    when beta passed 1.

    A signal ends training after the current step or validation (see `Stopping`), and `last.ckpt` is
    saved at that step. After any other exception the previous `last.ckpt` stays.

    Args:
        dirpath: The folder of the checkpoints.
        monitor: Name of the logged value that chooses the best checkpoint.
        mode: Whether the best value is the highest (`max`) or the lowest (`min`).

    Attributes:
        best_elbo: `val/elbo` of the best checkpoint; NaN before the first validation, and where a
            variant's own `validation_step` does not log it.
        forgets_best: Whether the next training chooses its best checkpoint anew. To be set in the
            first process, where a checkpoint to go on from is of another folder or another loss.
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
        self.forgets_best = False
        self.is_fitting = True

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
            self.best_elbo = float(trainer.callback_metrics.get("val/elbo", nan))
        return better

    def state_dict(self) -> dict[str, Any]:
        """Called by Lightning to save a checkpoint: adds best_elbo to ModelCheckpoint's state."""
        return super().state_dict() | {"best_elbo": self.best_elbo}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by Lightning on resuming: restores the best value, and finds its file.

        The file is `best.ckpt` in `dirpath`, if it exists there and is the one of this value. So
        the best checkpoint is found after the run folder was moved or copied, and no path in a
        checkpoint is used: Lightning deletes the file at `kth_best_model_path` when there is a
        better one. Without it, the next validation saves a best. Only in fit: in a test the best is
        known already.
        """
        if not self.is_fitting:
            return
        best = Path(str(self.dirpath)) / "best.ckpt"
        if not self.forgets_best and is_best_of(state_dict, best):
            paths = {
                "dirpath": self.dirpath,
                "best_model_path": str(best),
                "kth_best_model_path": str(best),
                "best_k_models": {str(best): state_dict["best_model_score"]},
            }
        else:
            paths = {"best_model_path": "", "kth_best_model_path": "", "best_k_models": {}}
            paths |= {"dirpath": self.dirpath}
            state_dict = state_dict | {"best_model_score": None, "best_elbo": nan}
        state_dict = state_dict | {"last_model_path": ""} | paths
        super().load_state_dict(state_dict)
        self.best_elbo = state_dict["best_elbo"]

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Called by Lightning before it loads a checkpoint: tells all processes `forgets_best`."""
        super().setup(trainer, module, stage)
        self.forgets_best = trainer.strategy.broadcast(self.forgets_best)
        self.is_fitting = stage == "fit"

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before fit: makes the folder; WriteError if that fails."""
        make_folder(self.last.parent)

    on_train_batch_end = Callback.on_train_batch_end  # Lightning's is for `every_n_train_steps`

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after validation: saves a new best, and within an epoch the last.

        With one validation per epoch, `on_train_epoch_end` saves both instead.
        """
        super().on_validation_end(trainer, module)
        within_epoch = not trainer.is_last_batch  # at the epoch's end its count is not updated yet
        if trainer.state.fn == TrainerFn.FITTING and within_epoch and not trainer.sanity_checking:
            self.save_last_step(trainer)

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
        """Called by Lightning on an exception: saves `last.ckpt` if a signal stopped training."""
        if isinstance(exception, SIGTERMException) and trainer.state.fn == TrainerFn.FITTING:
            self.save_last_step(trainer)

    def save_last_step(self, trainer: Trainer) -> None:
        """Saves `last.ckpt`; skips it if it was saved at this step, and in `fast_dev_run`.

        Lightning's `save_last` saves it only along with a new best checkpoint.
        """
        if trainer.global_step != self.saved_step and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.last)
            self.saved_step = trainer.global_step


def is_best_of(state: Mapping[str, Any], path: Path) -> bool:
    """Returns whether a best checkpoint was saved with the best value of a `Checkpoint`'s state.

    One that cannot be loaded counts as such, and fails where it is used.
    """
    if not path.exists():
        return False
    try:
        own = load_verified(path)["callbacks"]["Checkpoint"]["best_model_score"]
    except (UserError, KeyError):
        return True
    kept = state["best_model_score"]
    return None not in (own, kept) and float(own) == float(kept)


class AtomicFiles(TorchCheckpointIO):
    """Lightning plugin for checkpoint files: atomic writes, loading with `weights_only=True`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint with its checksum, atomically; ignores `storage_options`.

        Called by Lightning's strategy, in the process of rank 0. Creates missing folders.

        Raises:
            WriteError: If it cannot be written; an older one stays.
        """
        path = Path(path)
        make_folder(path.parent)
        with atomic_file(path) as file:
            torch.save(checkpoint_format.expect_checksum(checkpoint), file)
            checksums.append_zip_checksum(file)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Called by Lightning on resuming: `load_checkpoint` on the CPU, ignoring all options."""
        return load_checkpoint(Path(path))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Loads the tensors and plain values of a checkpoint, on the CPU, after verifying its checksum.

    One without a checksum, of an earlier vaelab, is verified by those of the archive's members.

    Raises:
        UserError: If there is no such file, it is no checkpoint of vaelab, or it is of a newer
            format version.
        DamagedFileError: If it is damaged; the message names the checkpoint beside it that is
            whole.
    """
    try:
        return load_verified(path)
    except DamagedFileError as error:
        whole = [other.name for other in checkpoints_beside(path) if is_whole(other)]
        beside = f"; {whole[0]} beside it is whole" if whole else ""
        raise DamagedFileError(f"{error}{beside}") from error


def load_verified(path: Path) -> dict[str, Any]:
    """Loads a checkpoint as `load_checkpoint` does, without a look at others in its folder."""
    if path.exists():
        check_regular_file(path)
    try:
        if not path.stat().st_size:  # reading some empty files of /proc waits
            raise EOFError
        with path.open("rb") as file:
            has_checksum = checksums.verify_zip(file, path)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such checkpoint") from error
    except DamagedFileError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # zip and torch.load raise many types for a damaged archive
        raise DamagedFileError(f"{path}: truncated, or no checkpoint") from error
    checkpoint_format.check_format(path, content)
    if checkpoint_format.has_checksum(content) and not has_checksum:
        raise DamagedFileError(f"{path}: damaged, for its checksum is missing")
    return content


def checkpoints_beside(path: Path) -> list[Path]:
    """Returns the last and the best checkpoint of a checkpoint's folder, but not itself."""
    both = (path.with_name(name) for name in ("last.ckpt", "best.ckpt"))
    return [other for other in both if other != path and other.exists()]


def is_whole(path: Path) -> bool:
    """Returns whether a checkpoint can be loaded; loads it."""
    try:
        load_verified(path)
    except UserError:
        return False
    return True
