"""Callbacks that make a run fail or stop; a configuration names them by `_target_`."""

import os
import signal
import time
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
    """Sends a signal to its own process, before a training step, or a validation or test batch.

    With a `rank` only the process of this rank does. It does nothing if the environment variable
    STOP is `no`, with which a command can be given again.
    """

    def __init__(
        self,
        number: int,
        step: int,
        validating: bool = False,
        testing: bool = False,
        rank: int | None = None,
    ) -> None:
        self.number = number
        self.step = step
        self.validating = validating
        self.testing = testing
        self.rank = rank

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Called by Lightning before each training step."""
        if not self.validating and not self.testing and trainer.global_step == self.step:
            self.send(trainer)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Called by Lightning before each validation batch."""
        if self.validating and trainer.global_step >= self.step:
            self.send(trainer)

    def on_test_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Called by Lightning before each test batch."""
        if self.testing:
            self.send(trainer)
            time.sleep(60 if self.is_on() else 0)

    def send(self, trainer: Trainer) -> None:
        """Sends the signal, once."""
        if self.rank in (None, trainer.global_rank) and self.is_on():
            os.kill(os.getpid(), self.number)
            self.number = 0

    def is_on(self) -> bool:
        """Returns whether the environment lets it send signals."""
        return os.environ.get("STOP") != "no"


def measure(subject: Any) -> dict[str, Any]:
    """A metric of `evaluate` that sends SIGTERM to its own process if MEASURE_TROUBLE is set."""
    if os.environ.get("MEASURE_TROUBLE"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    return {"measure": {"value": 1.0, "se": None}}


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
