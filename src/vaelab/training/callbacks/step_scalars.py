"""Callback that logs the terms of the loss of training steps, once for each step of a run."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from vaelab.acceleration import step_counts
from vaelab.distributed import gather_values, rank_and_world_size
from vaelab.errors import NotFiniteError
from vaelab.training.rewinding import rewind_loggers
from vaelab.training.scalars import average_over_processes, log_step_scalars, write_to_loggers
from vaelab.training.window import Window, has_completed_step, is_logging_step


class StepScalars(Callback):
    """Callback that logs distortion, rate, loss and elbo every `log_every_n_steps` steps.

    Each is the mean over the batches since the last logging step, over all processes, in nats per
    image, logged as `train/<name>`. Only a logging step waits for the device. Of a variant whose
    `training_step` does not return these terms nothing is logged. `ELBO` attaches it to its
    trainer.

    A resumed run has the points that it would have had without the stop: the batches since the last
    logging step are in the checkpoint, and what was logged after the checkpoint is deleted.
    """

    def __init__(self) -> None:
        self.window = Window()
        self.ahead: list[dict[str, float]] = []
        """Values of validations since the last step, which are logged at the next one."""
        self.loaded_step: int | None = None  # of the checkpoint to resume from, until fit starts

    def state_dict(self) -> dict[str, Any]:
        """Called by Lightning to save a checkpoint, in every process: all processes' batches.

        They are the means of each batch since the last logging step, `rows` [processes, n, 3].
        Beside them are the values of validations between accumulated batches.
        """
        return {"rows": torch.stack(gather_values(self.window.all_rows())), "ahead": self.ahead}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by Lightning on resuming: restores what `state_dict` has.

        With another number of processes each takes the mean over those of the checkpoint.
        """
        rank, processes = rank_and_world_size()
        rows = state_dict["rows"]
        self.window.replace_rows(rows[rank] if len(rows) == processes else rows.mean(0))
        self.ahead = state_dict["ahead"]

    def on_load_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called by Lightning on resuming: keeps the step of the checkpoint for `on_fit_start`."""
        self.loaded_step = checkpoint["global_step"]

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before fit: deletes logged points from the first step to train on.

        Of these it logs again what the checkpoint has of validations. Skips a second fit of the
        same trainer without a checkpoint, which goes on at its step.
        """
        if self.loaded_step is not None:
            rewind_loggers(trainer, self.loaded_step)
            for scalars in self.ahead:
                write_to_loggers(trainer, scalars, self.loaded_step)
        elif not trainer.global_step:
            rewind_loggers(trainer, None)
        self.loaded_step = None

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Called by Lightning before each training batch: corrects its count of steps for logs."""
        step_counts.correct_logged_step(trainer)

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        """Called by Lightning after each training batch: keeps its terms, logs at logging steps.

        At logging steps it also flushes the loggers, to which other callbacks have logged before.

        Raises:
            NotFiniteError: As `check_finite` does.
        """
        if isinstance(outputs, Mapping) and "objective" in outputs:
            self.window.append(outputs["distortion"], outputs["rate"], outputs["objective"])
        if has_completed_step(trainer):
            self.ahead = []
        if self.window and is_logging_step(trainer):
            self.check_finite(trainer)
            means = self.window.pop_means(trainer.fit_loop.total_batch_idx)
            values = module.with_bits_per_dim(means)
            named = {f"train/{name}": value for name, value in values.items()}
            log_step_scalars(trainer, average_over_processes(trainer, named))
            for logger in trainer.loggers:
                logger.save()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before each validation, and so before it saves best and last."""
        self.check_finite(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after each validation: keeps values between accumulated batches."""
        if trainer.state.fn == TrainerFn.FITTING and not has_completed_step(trainer):
            logged = trainer.logged_metrics.items()
            values = {name: float(value) for name, value in logged if name.startswith("val/")}
            self.ahead.append({**values, "epoch": trainer.current_epoch})

    def on_save_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called by Lightning before it saves a checkpoint: see `check_finite`."""
        self.check_finite(trainer)

    def check_finite(self, trainer: Trainer) -> None:
        """Raises NotFiniteError, in all processes, if a term not yet logged is not finite in one.

        The infinite rate of a deterministic code, whose loss is finite, is allowed. A collective
        call, so that no process waits for one that has raised.
        """
        if not self.window:
            return
        found: NotFiniteError | None = None
        try:
            self.window.finite_rows(trainer.fit_loop.total_batch_idx)
        except NotFiniteError as error:
            found = error
        if not trainer.strategy.reduce_boolean_decision(found is None):
            raise found or NotFiniteError("a term of the loss is not finite in another process")
