"""Callbacks that make a run fail or stop; a configuration names them by `_target_`."""

import os
import signal
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Fault(Callback):
    """Sets a bias of the decoder to NaN before a training step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Called by Lightning before each training step."""
        if trainer.fit_loop.total_batch_idx == self.step:
            module.decoder.out.bias.data[0] = float("nan")


class Stop(Callback):
    """Sends a signal to its own process, before a training step, a validation or a test batch.

    It does nothing if the environment variable STOP is `no`, with which a command can be given
    again.
    """

    def __init__(
        self, number: int, step: int, validating: bool = False, testing: bool = False
    ) -> None:
        self.number = number
        self.step = step
        self.validating = validating
        self.testing = testing

    def stop(self) -> None:
        """Sends the signal, unless it is turned off."""
        if os.environ.get("STOP") != "no":
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Called by Lightning before each training step."""
        if not (self.validating or self.testing) and trainer.global_step == self.step:
            self.stop()

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Called by Lightning before each validation batch."""
        if self.validating and trainer.global_step >= self.step:
            self.stop()

    def on_test_batch_start(self, *_: Any) -> None:
        """Called by Lightning before each test batch."""
        if self.testing:
            self.stop()


class Trouble(Callback):
    """Raises an error in, or kills, the jobs that the environment variable TROUBLE lists.

    It maps names of run folders to a signal or `raise`: `beta-1_seed-2=SIGKILL beta-4=raise`.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Called by Lightning before each training step."""
        folder = Path(trainer.default_root_dir).name
        wanted = dict(pair.split("=") for pair in os.environ.get("TROUBLE", "").split())
        if trainer.global_step != self.step or folder not in wanted:
            return
        if wanted[folder] == "raise":
            raise RuntimeError(f"trouble in {folder}")
        os.kill(os.getpid(), getattr(signal, wanted[folder]))
