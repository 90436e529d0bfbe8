"""Logging of training scalars, faster than `LightningModule.log`."""

from collections.abc import Mapping

import torch
from lightning import Trainer


def log_step_scalars(trainer: Trainer, scalars: Mapping[str, float]) -> None:
    """Logs scalars of the last training step to all loggers and the trainer's metrics.

    `LightningModule.log` is slower: it processes every metric again at each later step. This does
    not flush the loggers; `StepScalars` does, after all other callbacks have logged.
    """
    tensors = dict(zip(scalars, torch.tensor(list(scalars.values())).unbind(), strict=True))
    trainer.callback_metrics.update(tensors)
    trainer.logged_metrics.update(tensors)
    write_to_loggers(trainer, {**scalars, "epoch": trainer.current_epoch}, trainer.global_step - 1)


def write_to_loggers(trainer: Trainer, scalars: Mapping[str, float], step: int) -> None:
    """Writes scalars to all loggers at an optimizer step, counted from 0; does not flush them."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(scalars), step)


def average_over_processes(trainer: Trainer, scalars: Mapping[str, float]) -> dict[str, float]:
    """Returns each scalar's mean over all processes; a collective call, made in every process."""
    if trainer.world_size == 1:
        return dict(scalars)
    values = torch.tensor(list(scalars.values()), device=trainer.strategy.root_device)
    means = trainer.strategy.reduce(values, reduce_op="mean")
    return dict(zip(scalars, means.tolist(), strict=True))
