"""Training scalars on their way to the loggers."""

from collections.abc import Mapping

import torch
from lightning import Trainer


def write(trainer: Trainer, scalars: Mapping[str, float]) -> None:
    """Logs scalars of the training step that just ended, where `LightningModule.log` would.

    Which does more for each of them, and goes through all of them again at every step after.
    """
    tensors = {name: torch.tensor(x) for name, x in scalars.items()}
    trainer.callback_metrics.update(tensors)
    trainer.logged_metrics.update(tensors)
    for logger in trainer.loggers:
        logger.log_metrics({**scalars, "epoch": trainer.current_epoch}, trainer.global_step - 1)
        logger.save()


def averaged(trainer: Trainer, scalars: Mapping[str, float]) -> dict[str, float]:
    """The means over all processes."""
    if trainer.world_size == 1:
        return dict(scalars)
    values = torch.tensor(list(scalars.values()), device=trainer.strategy.root_device)
    means = trainer.strategy.reduce(values, reduce_op="mean")
    return dict(zip(scalars, means.tolist(), strict=True))
