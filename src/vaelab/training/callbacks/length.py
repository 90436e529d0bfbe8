"""Length of a training in batches, from the trainer's limits."""

import math

from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler


def training_batches(trainer: Trainer) -> float:
    """Returns the batches of a whole training by max_epochs and max_steps; inf if both are -1.

    Disregards `max_time` and early stopping. `trainer.estimated_stepping_batches` counts optimizer
    steps, and the last step of an epoch may take fewer batches than the others.
    """
    epoch = trainer.num_training_batches
    limit = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs * epoch
    if trainer.max_steps == -1:
        return limit
    batches: float = 0
    number, steps = 0, trainer.max_steps
    while batches < limit:
        together = batches_per_step(trainer, number)
        if steps * together <= epoch:
            return min(limit, batches + steps * together)
        number, batches = number + 1, batches + epoch
        steps -= math.ceil(epoch / together)
    return limit


def batches_per_step(trainer: Trainer, epoch: int) -> int:
    """Returns the batches accumulated in an optimizer step in an epoch, counted from 0."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            return callback.get_accumulate_grad_batches(epoch)
    return trainer.accumulate_grad_batches
