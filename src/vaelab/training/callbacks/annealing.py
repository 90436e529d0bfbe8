"""Callback that anneals one weight of the model, such as beta, by a schedule."""

from collections.abc import Callable
from functools import partial
from math import isinf
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from pydantic import PositiveFloat
from torch import Tensor

from vaelab.errors import UserError, first_line
from vaelab.training.callbacks.length import training_batches
from vaelab.training.scalars import log_step_scalars
from vaelab.training.window import is_logging_step


class Annealing(Callback):
    """Callback that scales one weight of the model by a schedule, in training steps only.

    The factor is a function of the training batches seen, so a resumed run continues where it
    stopped. Validation, checkpoints and everything else see the configured value. Warns if
    training is too short for the schedule, or if a resumed run changes the schedule's length.

    Args:
        target: The weight to scale, such as `beta`; default the first scalar buffer of the model.
        schedule: (batches seen, steps=...) -> factor, see `vaelab.training.schedules`.
        duration: Length of the schedule, in `unit`.
        unit: Training batches (`steps`), epochs, or fraction of the whole training.

    Raises:
        UserError: In `resolve_target` and `setup`, if the model has no such weight, or if the
            training has no end to take a fraction of.
    """

    def __init__(
        self,
        target: str | None,
        schedule: Callable[..., float],
        duration: PositiveFloat,
        unit: Literal["steps", "epochs", "fraction"],
    ) -> None:
        self.target = target or ""
        if isinstance(schedule, partial):  # Hydra's subclass takes 0.2 ms per call
            schedule = partial(schedule.func, *schedule.args, **schedule.keywords)
        self.schedule = schedule
        self.duration = duration
        self.unit = unit
        self.steps = 0  # length of the schedule in batches; known when training starts
        self.steps_before = 0  # length in the checkpoint that training resumes from

    def resolve_target(self, trainer: Trainer, module: LightningModule) -> None:
        """Sets `target` to its default if it is not given; raises UserError if it is no weight.

        Also raises UserError if the unit is `fraction` and the training has no end, or if the
        schedule gives no number.
        """
        weights = [name for name, b in module.named_buffers(recurse=False) if b.dim() == 0]
        self.target = self.target or next(iter(weights), "null")
        weight = getattr(module, self.target, None)
        if not (isinstance(weight, float) or (isinstance(weight, Tensor) and weight.dim() == 0)):
            raise UserError(
                f"annealing.target={self.target}: {type(module).__name__} has no such weight; "
                f"it has {', '.join(weights) or 'none'}"
            )
        if self.unit == "fraction" and trainer.max_epochs == trainer.max_steps == -1:
            raise UserError("annealing.unit=fraction needs a trainer.max_epochs or max_steps")
        try:
            float(self.schedule(0, steps=1))
        except Exception as error:  # whatever a schedule raises
            raise UserError(f"annealing.schedule: {first_line(error)}") from error

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Called by Lightning before fit, validate and test: finds the weight, makes it a tensor.

        Keeps its full value. Replaces the module's attribute if it is a float. Raises as
        `resolve_target`.
        """
        self.resolve_target(trainer, module)
        if isinstance(weight := getattr(module, self.target), float):
            device = trainer.strategy.root_device
            vars(module)[self.target] = torch.tensor(weight, device=device)
        self.full = self.now = float(getattr(module, self.target))

    def state_dict(self) -> dict[str, Any]:
        """Called by Lightning to save a checkpoint: returns the schedule's length in batches."""
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by Lightning on resuming: keeps the saved length, only to warn of a change."""
        self.steps_before = state_dict["steps"]

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning when training starts: sets the schedule's length, may warn of it.

        Warns if training ends before the schedule, or if the length has changed since an earlier
        start of the run.

        Raises:
            UserError: If the length is of epochs, or of a training, of unknown length.
        """
        total = training_batches(trainer)
        unit = {"steps": 1, "epochs": trainer.num_training_batches, "fraction": total}[self.unit]
        if isinf(unit):
            raise UserError(
                f"annealing.unit={self.unit}: the training loader has no length; give "
                "trainer.max_steps and annealing.unit=fraction, or annealing.unit=steps"
            )
        self.steps = max(1, round(self.duration * unit))
        self.ends_in_time = self.steps <= total
        if not self.ends_in_time:
            rank_zero_warn(
                f"annealing {self.target} takes {self.steps:,} batches and training {total:,.0f}: "
                f"it ends at {self.weight_at(round(total) - 1):.3g}, not at {self.full:g}"
            )
        self.warn_if_length_changed(trainer)

    def warn_if_length_changed(self, trainer: Trainer) -> None:
        """Warns if a resumed run began with another length of schedule and is still within one."""
        before, now = self.steps_before, trainer.fit_loop.total_batch_idx + 1
        if before in (0, self.steps) or now >= max(before, self.steps):
            return
        if self.unit == "steps":
            cure = f"annealing.duration={before}"
        else:
            epochs = before / trainer.num_training_batches
            cure = f"annealing.unit=epochs annealing.duration={epochs:.6g}"
        rank_zero_warn(
            f"annealing {self.target} took {before:,} batches in this run so far and takes "
            f"{self.steps:,} now, so at batch {now:,} it goes from "
            f"{self.weight_at(now, before):.3g} to {self.weight_at(now):.3g}; "
            f"{cure} goes on as before"
        )

    def weight_at(self, step: int, steps: int | None = None) -> float:
        """Returns the annealed weight at batch `step`; default `steps`: the schedule's length."""
        return self.full * self.schedule(step, steps=steps or self.steps)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Called by Lightning before each training batch: sets the weight until the batch's end."""
        self.set_weight(module, self.weight_at(trainer.fit_loop.total_batch_idx))

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Called by Lightning after each training batch: restores the weight, may log.

        Logs the annealed weight of the batch at logging steps.
        """
        self.set_weight(module, self.full)
        if is_logging_step(trainer):
            value = self.weight_at(trainer.fit_loop.total_batch_idx)
            log_step_scalars(trainer, {f"train/{self.target}": value})

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning when training ends: warns if it stopped before the schedule."""
        last = trainer.fit_loop.total_batch_idx
        if self.ends_in_time and last + 1 < self.steps:  # by early stopping or max_time
            rank_zero_warn(
                f"annealing {self.target} takes {self.steps:,} batches and training ended after "
                f"{last + 1:,}, at {self.weight_at(last):.3g} and not at {self.full:g}"
            )

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: Any) -> None:
        """Called by Lightning on an exception: restores the full weight, if `setup` has run."""
        if hasattr(self, "full"):
            self.set_weight(module, self.full)

    def set_weight(self, module: LightningModule, value: float) -> None:
        """Overwrites the target weight in place; skips the write if the value is unchanged."""
        if value != self.now:
            getattr(module, self.target).fill_(value)
            self.now = value
