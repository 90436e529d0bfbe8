"""Training scalars on their way to the loggers."""

from collections.abc import Mapping

import torch
from lightning import Trainer


def write(trainer: Trainer, scalars: Mapping[str, float]) -> None:
    """Logs scalars of the training step that just ended, where `LightningModule.log` would.

    Which does more for each of them, and goes through all of them again at every step after. The
    loggers save them when the module has logged its own, which it does last.
    """
    tensors = dict(zip(scalars, torch.tensor(list(scalars.values())).unbind(), strict=True))
    trainer.callback_metrics.update(tensors)
    trainer.logged_metrics.update(tensors)
    for logger in trainer.loggers:
        logger.log_metrics({**scalars, "epoch": trainer.current_epoch}, trainer.global_step - 1)


def averaged(trainer: Trainer, scalars: Mapping[str, float]) -> dict[str, float]:
    """The means over all processes."""
    if trainer.world_size == 1:
        return dict(scalars)
    values = torch.tensor(list(scalars.values()), device=trainer.strategy.root_device)
    means = trainer.strategy.reduce(values, reduce_op="mean")
    return dict(zip(scalars, means.tolist(), strict=True))
