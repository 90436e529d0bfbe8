from time import perf_counter
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from vaelab.training.scalars import write
from vaelab.training.window import due


class Speed(Callback):
    """Logs training images per second, over all devices, and the learning rate.

    The clock runs from the start of a training batch to the next one, and stands still during
    validation, pictures, checkpoints and whatever else is between two epochs.

    Attributes:
        images_per_second: From one logging step to the next; before the first, so far.
    """

    def __init__(self) -> None:
        self.started: float | None = None
        self.seconds = self.total_seconds = 0.0  # since the last logging step, and before it
        self.images = self.total_images = 0
        self.images_per_second = 0.0

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self.started is None:
            self.started = perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        x, *_ = batch
        self.images += len(x) * trainer.world_size
        if due(trainer):
            self.pause()
            self.read()
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            speed = self.images_per_second
            write(trainer, {"train/learning_rate": rate, "train/images_per_second": speed})
            self.started = perf_counter()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.pause(module.device)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.pause(module.device)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.pause(module.device)

    def pause(self, device: torch.device | None = None) -> None:
        """Stops the clock, when a GPU has done what it was given, until the next batch."""
        if self.started is None:
            return
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)
        self.seconds += perf_counter() - self.started
        self.started = None
        if not self.total_images:
            self.images_per_second = self.average

    def read(self) -> None:
        """Takes the speed since the last logging step, and begins to count anew."""
        self.images_per_second = self.images / self.seconds
        self.total_seconds += self.seconds
        self.total_images += self.images
        self.seconds, self.images = 0.0, 0

    @property
    def average(self) -> float:
        """Images per second of the whole training."""
        seconds = self.total_seconds + self.seconds
        return (self.total_images + self.images) / seconds if seconds else 0.0
