"""Callbacks for tests, named in a configuration as a user's own would be."""

import os
import signal
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Fault(Callback):
    """Breaks a weight before a training step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.step:
            module.decoder.out.bias.data[0] = float("nan")


class Stop(Callback):
    """Sends the process a signal, before a training step or in the middle of a validation."""

    def __init__(self, number: int, step: int, validating: bool = False) -> None:
        self.number = number
        self.step = step
        self.validating = validating

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if not self.validating and trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self.validating and trainer.global_step >= self.step:
            os.kill(os.getpid(), self.number)


class Trouble(Callback):
    """Does to the jobs of a sweep what TROUBLE says, as in `beta-1_seed-2=SIGKILL beta-4=raise`."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        folder = Path(trainer.default_root_dir).name
        wanted = dict(pair.split("=") for pair in os.environ.get("TROUBLE", "").split())
        if trainer.global_step != self.step or folder not in wanted:
            return
        if wanted[folder] == "raise":
            raise RuntimeError(f"trouble in {folder}")
        os.kill(os.getpid(), getattr(signal, wanted[folder]))
