"""Length of a training in batches and in optimizer steps, from the trainer's limits."""

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


def training_steps(trainer: Trainer) -> float:
    """Returns the optimizer steps of a whole training by max_epochs and max_steps; inf without.

    Disregards `max_time` and early stopping. `trainer.estimated_stepping_batches` takes the batches
    of a step for the same in all epochs.
    """
    epoch, epochs = trainer.num_training_batches, trainer.max_epochs
    limit = math.inf if trainer.max_steps == -1 else trainer.max_steps
    if epochs in (None, -1) or math.isinf(epoch):
        return limit
    if not is_accumulation_scheduled(trainer):
        return min(limit, epochs * math.ceil(epoch / trainer.accumulate_grad_batches))
    steps = (math.ceil(epoch / batches_per_step(trainer, number)) for number in range(epochs))
    return min(limit, sum(steps))


def is_accumulation_scheduled(trainer: Trainer) -> bool:
    """Returns whether the batches of an optimizer step change while training."""
    every = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(callback, GradientAccumulationScheduler) for callback in every)


def batches_per_step(trainer: Trainer, epoch: int) -> int:
    """Returns the batches accumulated in an optimizer step in an epoch, counted from 0."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            return callback.get_accumulate_grad_batches(epoch)
    return trainer.accumulate_grad_batches
