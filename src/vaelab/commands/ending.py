"""How a training ended: at its full length or early, and what makes it longer."""

import math
from typing import NamedTuple

from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from omegaconf import DictConfig

from vaelab.training import callbacks


class Ending(NamedTuple):
    """How a training ended.

    Attributes:
        stopped: Where it ended early, as `epoch 4 of 30`; None at its full length.
        is_early_stopping: Whether an EarlyStopping callback ended it.
        longer: A setting by which it gets longer, to go on; None if none does.
    """

    stopped: str | None
    is_early_stopping: bool
    longer: str | None


def read_ending(cfg: DictConfig, trainer: Trainer) -> Ending:
    """Returns how a training ended; to be called before its test.

    The test of a checkpoint loads the state of callbacks at that checkpoint, which knows of no end.
    """
    stopped, early = stopping_point(trainer), early_stopping(trainer) is not None
    return Ending(stopped, early, longer_setting(cfg, trainer))


def early_stopping(trainer: Trainer) -> EarlyStopping | None:
    """Returns the callback that stopped a training; None if none did, or another one."""
    stopping = [c for c in trainer.callbacks if isinstance(c, EarlyStopping)]  # type: ignore[attr-defined]
    return next((c for c in stopping if c.stopping_reason_message), None)


def stopping_point(trainer: Trainer) -> str | None:
    """Returns where a training ended early, as `epoch 4 of 30`; None at its full length."""
    epochs, steps = trainer.max_epochs or -1, trainer.max_steps
    if epochs == -1 == steps or 0 < epochs <= trainer.current_epoch:
        return None
    if 0 < steps <= trainer.global_step:
        return None
    if epochs > 0:
        return f"epoch {trainer.current_epoch} of {epochs}"
    return f"step {trainer.global_step} of {steps}"


def longer_setting(cfg: DictConfig, trainer: Trainer) -> str | None:
    """Returns a setting by which an ended training gets longer, to go on; None if none does."""
    timer = next((c for c in trainer.callbacks if isinstance(c, Timer)), None)  # type: ignore[attr-defined]
    remaining = timer.time_remaining() if timer else None
    if timer and remaining is not None and remaining <= 0 and "max_time" in cfg.trainer:
        seconds = 2 * math.ceil(timer.time_elapsed())  # which go on counting where they ended
        days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
        return f"+trainer.max_time={days:02}:{hours:02}:{minutes:02}:{seconds % 60:02}"
    stopped = early_stopping(trainer)
    if stopped and stopping_point(trainer):
        patient = stopped.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED
        is_ours = isinstance(stopped, callbacks.EarlyStopping) and cfg.early_stopping
        return f"early_stopping.patience={2 * stopped.patience}" if patient and is_ours else None
    if trainer.global_step == trainer.max_steps:
        return f"trainer.max_steps={2 * trainer.max_steps}"
    return f"trainer.max_epochs={2 * max(1, trainer.current_epoch)}"
