from typing import Any

from lightning import Callback, LightningModule, Trainer
from turns import Turns


class TakesTurns(Callback):
    """Holds the training that it watches between its blocks of steps.

    A block that an epoch ended in is taken anew after it, so that validation and checkpoints are
    in none.
    """

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.turns = Turns()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        self.turns.step_taken()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.turns.interrupted()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.turns.interrupted()
