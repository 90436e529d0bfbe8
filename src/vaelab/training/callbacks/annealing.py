from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from pydantic import PositiveFloat
from torch import Tensor

from vaelab.errors import UserError
from vaelab.training.callbacks.length import training_batches
from vaelab.training.scalars import write
from vaelab.training.window import due


class Annealing(Callback):
    """Scales one weight of the model during training steps, and only then.

    The factor is a function of the training batches seen, so a resumed run goes on where it
    stopped. Validation, checkpoints and everything else see the configured value. Warnings say if
    training is too short for the schedule, or a resumed run has one of another length.

    Args:
        target: The weight to scale, such as `beta`; by itself the first that the model has.
        schedule: (batches seen, steps=...) -> factor, see `vaelab.training.schedules`.
        duration: How long the schedule runs.
        unit: What `duration` counts: training batches, epochs, or the whole training.

    Raises:
        UserError: In `check` and in `setup`, if the model has no such weight, or the training no
            end to take a fraction of.
    """

    def __init__(
        self,
        target: str | None,
        schedule: Callable[..., float],
        duration: PositiveFloat,
        unit: Literal["steps", "epochs", "fraction"],
    ) -> None:
        self.target = target or ""
        if isinstance(schedule, partial):  # Hydra's kind takes 0.2 ms to check itself at each call
            schedule = partial(schedule.func, *schedule.args, **schedule.keywords)
        self.schedule = schedule
        self.duration = duration
        self.unit = unit
        self.steps = 0  # batches of the schedule, once they are known
        self.steps_before = 0  # those in the checkpoint that training goes on from

    def check(self, trainer: Trainer, module: LightningModule) -> None:
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

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self.check(trainer, module)
        if isinstance(weight := getattr(module, self.target), float):
            device = trainer.strategy.root_device
            vars(module)[self.target] = torch.tensor(weight, device=device)
        self.full = self.now = float(getattr(module, self.target))

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps_before = state_dict["steps"]

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        total = training_batches(trainer)
        unit = {"steps": 1, "epochs": trainer.num_training_batches, "fraction": total}[self.unit]
        self.steps = max(1, round(self.duration * unit))
        self.ends_in_time = self.steps <= total
        if not self.ends_in_time:
            rank_zero_warn(
                f"annealing {self.target} takes {self.steps:,} batches and training {total:,.0f}: "
                f"it ends at {self.value(round(total) - 1):.3g}, not at {self.full:g}"
            )
        self.compare(trainer)

    def compare(self, trainer: Trainer) -> None:
        """Warns if the run that goes on began with a schedule of another length."""
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
            f"{self.steps:,} now, so at batch {now:,} it goes from {self.value(now, before):.3g} "
            f"to {self.value(now):.3g}; {cure} goes on as before"
        )

    def value(self, step: int, steps: int | None = None) -> float:
        """The weight at a training batch, of a schedule of so many batches or of this one."""
        return self.full * self.schedule(step, steps=steps or self.steps)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.scale(module, self.value(trainer.fit_loop.total_batch_idx))

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.scale(module, self.full)
        if due(trainer):
            value = self.value(trainer.fit_loop.total_batch_idx)
            write(trainer, {f"train/{self.target}": value})

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        last = trainer.fit_loop.total_batch_idx
        if self.ends_in_time and last + 1 < self.steps:  # stopped early, or after some time
            rank_zero_warn(
                f"annealing {self.target} takes {self.steps:,} batches and training ended after "
                f"{last + 1:,}, at {self.value(last):.3g} and not at {self.full:g}"
            )

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: Any) -> None:
        if hasattr(self, "full"):
            self.scale(module, self.full)  # whatever the batch was

    def scale(self, module: LightningModule, value: float) -> None:
        if value != self.now:
            getattr(module, self.target).fill_(value)
            self.now = value
