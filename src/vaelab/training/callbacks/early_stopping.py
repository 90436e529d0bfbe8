"""Callback that stops training when `val/loss` has stopped falling."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from pydantic import NonNegativeFloat, PositiveInt

from vaelab.training.callbacks.annealing import Annealing


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's EarlyStopping by `val/loss`; a resumed run stops where it would have stopped.

    `val/loss` is measured with every weight as configured. While a weight is annealed, training
    minimises another loss, so those validations do not count.

    Args:
        patience: The validations without a new least `val/loss` after which training stops.
        min_delta: By how much, in nats, `val/loss` must fall to count.
        monitor: Name of the logged value.
        mode: Whether the best value is the lowest (`min`) or the highest (`max`).
        options: Further arguments of Lightning's EarlyStopping.
    """

    def __init__(
        self,
        patience: PositiveInt,
        min_delta: NonNegativeFloat,
        monitor: str = "val/loss",
        mode: str = "min",
        **options: Any,
    ) -> None:
        super().__init__(monitor, min_delta, patience, mode=mode, **options)

    @property
    def state_key(self) -> str:
        """The key of this callback's state in checkpoints, independent of its settings."""
        return "EarlyStopping"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by Lightning on resuming: restores its counts, with the present patience."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before fit: stops it if it had been stopped at the checkpoint.

        So only the test that is still to be done follows. With a larger patience training goes on.
        """
        patient = self.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED
        if patient and self.wait_count < self.patience:
            self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
            self.stopped_epoch, self.stopping_reason_message = 0, None
        if self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after each validation: counts it, unless a weight is annealed."""
        if not is_annealed(trainer):
            super().on_validation_end(trainer, module)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after each epoch, which has a validation: counts it likewise."""
        if not is_annealed(trainer):
            super().on_train_epoch_end(trainer, module)


def is_annealed(trainer: Trainer) -> bool:
    """Returns whether the last training batch had a weight that was not the configured one."""
    last = trainer.fit_loop.total_batch_idx
    every = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(c, Annealing) and last < c.steps for c in every)
