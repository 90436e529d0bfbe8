from time import perf_counter
from typing import Any

from lightning import Callback, LightningModule, Trainer

from vaelab.metrics import due, write


class Speed(Callback):
    """Logs training images per second, over all devices, and the learning rate.

    The clock runs while training batches do, not during validation, pictures and checkpoints.
    """

    def __init__(self) -> None:
        self.started: float | None = None
        self.seconds = self.total_seconds = 0.0
        self.batches = self.total_images = 0
        self.images_per_second = 0.0

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self.started is None:
            self.started = perf_counter()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.batches += 1
        if due(trainer):
            self.stop(trainer)
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            speed = self.images_per_second
            write(trainer, {"train/learning_rate": rate, "train/images_per_second": speed})
            self.started = perf_counter()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        if self.batches:
            self.stop(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.batches:
            self.stop(trainer)

    def stop(self, trainer: Trainer) -> None:
        """Reads and stops the clock."""
        now = perf_counter()
        seconds = now - (self.started if self.started is not None else now)
        images = self.batches * trainer.datamodule.batch_size  # type: ignore[attr-defined]
        self.started, self.batches = None, 0
        self.total_seconds += seconds
        self.total_images += images
        if seconds:
            self.images_per_second = images / seconds

    @property
    def average(self) -> float:
        """Images per second of the whole training."""
        return self.total_images / self.total_seconds if self.total_seconds else 0.0
