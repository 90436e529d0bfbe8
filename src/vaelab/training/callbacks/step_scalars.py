"""Callback that logs the terms of the loss of training steps."""

from collections.abc import Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer

from vaelab.training.scalars import average_over_processes, log_step_scalars
from vaelab.training.window import Window, is_logging_step


class StepScalars(Callback):
    """Callback that logs distortion, rate, loss and elbo every `log_every_n_steps` steps.

    Each is the mean over the batches since the last logging step, over all processes, in nats per
    image, logged as `train/<name>`. Only a logging step waits for the device. Of a variant whose
    `training_step` does not return these terms nothing is logged. `ELBO` attaches it to its
    trainer.
    """

    def __init__(self) -> None:
        self.window = Window()

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        """Called by Lightning after each training batch: keeps its terms, logs at logging steps.

        At logging steps it also flushes the loggers, to which other callbacks have logged before.

        Raises:
            NotFiniteError: If a term since the last logging step is not finite.
        """
        if isinstance(outputs, Mapping) and "objective" in outputs:
            self.window.append(outputs["distortion"], outputs["rate"], outputs["objective"])
        if self.window and is_logging_step(trainer):
            means = self.window.pop_means(trainer.fit_loop.total_batch_idx)
            values = module.with_bits_per_dim(means)
            named = {f"train/{name}": value for name, value in values.items()}
            log_step_scalars(trainer, average_over_processes(trainer, named))
            for logger in trainer.loggers:
                logger.save()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before each validation, and so before it saves best and last."""
        self.check_finite(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called by Lightning before it saves a checkpoint, which then has no weights of NaN."""
        self.check_finite(trainer)

    def check_finite(self, trainer: Trainer) -> None:
        """Raises NotFiniteError if a term that is not yet logged is not finite.

        The infinite rate of a deterministic code, whose loss is finite, is allowed.
        """
        if self.window:
            self.window.finite_rows(trainer.fit_loop.total_batch_idx)
