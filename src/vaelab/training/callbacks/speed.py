"""Callback that measures and logs the speed of training, and keeps how long it took."""

from time import monotonic, perf_counter
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from vaelab.training.scalars import log_step_scalars
from vaelab.training.window import is_logging_step


class Speed(Callback):
    """Callback that logs training images per second, over all devices, and the learning rate.

    The clock runs from the start of a training batch to the next one. It is stopped during
    validation, pictures and checkpoints, and between two epochs. The time of a training with all of
    these is kept in its checkpoints.

    Attributes:
        images_per_second: Between the last two logging steps; before the first, since the start.
        earlier_seconds: Time of the starts before this one, each up to the checkpoint from which
            the next went on; 0 in a training that goes on from none.
    """

    def __init__(self) -> None:
        self.began = monotonic()
        self.earlier_seconds = self.loaded_seconds = 0.0
        self.started: float | None = None
        self.seconds = self.total_seconds = 0.0  # since the last logging step; before that step
        self.images = self.total_images = 0
        self.images_per_second = 0.0

    def state_dict(self) -> dict[str, float]:
        """Called by Lightning to save a checkpoint: the seconds of all starts until now."""
        return {"seconds": self.earlier_seconds + monotonic() - self.began}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Called by Lightning on resuming, and before a test: keeps the time for `on_fit_start`."""
        self.loaded_seconds = state_dict["seconds"]

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before training: starts the time of this start."""
        self.began, self.earlier_seconds = monotonic(), self.loaded_seconds

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Called by Lightning before each training batch: starts a stopped clock, reads the rate.

        After the batch a scheduler has set the learning rate of the next one.
        """
        self.learning_rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        if self.started is None:
            self.started = perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Called by Lightning after each training batch: counts images, logs at logging steps.

        At logging steps it logs the images per second since the last one, and the learning rate of
        the first optimizer's first group.
        """
        x, *_ = batch
        self.images += len(x) * trainer.world_size
        if is_logging_step(trainer):
            self.stop_clock()
            self.close_interval()
            speed = self.images_per_second
            scalars = {
                "train/learning_rate": self.learning_rate,
                "train/images_per_second": speed,
            }
            log_step_scalars(trainer, scalars)
            self.started = perf_counter()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before each validation: stops the clock."""
        self.stop_clock(module.device)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after each training epoch: stops the clock."""
        self.stop_clock(module.device)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning when training ends: stops the clock."""
        self.stop_clock(module.device)

    def stop_clock(self, device: torch.device | None = None) -> None:
        """Stops the clock until the next batch; first waits for `device`, if given and CUDA."""
        if self.started is None:
            return
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)
        self.seconds += perf_counter() - self.started
        self.started = None
        if not self.total_images:
            self.images_per_second = self.mean_images_per_second

    def close_interval(self) -> None:
        """Sets the speed since the last logging step, and resets the counts of the interval."""
        self.images_per_second = self.images / self.seconds
        self.total_seconds += self.seconds
        self.total_images += self.images
        self.seconds, self.images = 0.0, 0

    @property
    def mean_images_per_second(self) -> float:
        """Images per second since this process started training; 0 before the first batch."""
        seconds = self.total_seconds + self.seconds
        return (self.total_images + self.images) / seconds if seconds else 0.0
