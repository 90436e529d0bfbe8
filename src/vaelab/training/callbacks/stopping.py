"""Callback that lets all processes of a training stop after the same step."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vaelab.distributed import max_over_processes
from vaelab.training.stop_signals import exit_code, stop_signals
from vaelab.training.window import has_completed_step


class Stopping(Callback):
    """Callback that defers stop signals in fit, and agrees on them with the other processes.

    Processes agree after each optimizer step, each validation and each epoch. Then Lightning
    raises SIGTERMException in all of them, for `Trainer.received_sigterm` is true. `Trainer`
    attaches it.

    Attributes:
        number: The number of the signal that stops the training, 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning when training starts: from now on signals wait for a step's end."""
        self.number = stop_signals.noted = 0
        stop_signals.deferred = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Called by Lightning after each training batch: agrees if an optimizer step is complete.

        Gradients of a part of a step would be lost in a checkpoint.
        """
        if has_completed_step(trainer):
            self.agree(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after a validation: agrees, in fit only."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.agree(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after each training epoch: agrees."""
        self.agree(trainer)

    def agree(self, trainer: Trainer) -> None:
        """Stores the signal that any process was sent; every process must call it."""
        number = max_over_processes(stop_signals.poll(), trainer.strategy.root_device)
        self.number = stop_signals.noted = number

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning when training ends: signals no longer wait."""
        stop_signals.deferred = False

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        """Called by Lightning on an exception: sets the exit code of a stop by a signal."""
        if isinstance(exception, SIGTERMException) and trainer.state.fn == TrainerFn.FITTING:
            exception.code = exit_code(self.number)
