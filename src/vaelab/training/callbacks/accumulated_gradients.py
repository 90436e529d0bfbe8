"""Callback that saves gradients accumulated towards the next optimizer step in checkpoints."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from vaelab.training.window import has_completed_step

KEY = "accumulated_gradients"
"""Key in a checkpoint of gradients by parameter name; absent if there are none."""


class AccumulatedGradients(Callback):
    """Callback that saves and restores gradients, if `accumulate_grad_batches` are not complete.

    Without them the first step after a resumption would average fewer batches, and all later
    points would differ. `ELBO` attaches it to its trainer.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Tensor] = {}  # until training starts

    def on_save_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called by Lightning before it saves a checkpoint, in every process: adds gradients.

        They are means over all processes. Skipped if the last batch completed a step.
        """
        if not has_completed_step(trainer):
            checkpoint[KEY] = {
                name: trainer.strategy.reduce(parameter.grad.clone(), reduce_op="mean")
                for name, parameter in module.named_parameters()
                if parameter.grad is not None
            }

    def on_load_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called by Lightning on resuming: keeps the gradients for `on_train_start`."""
        self.loaded = checkpoint.get(KEY, {})

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning when training starts, after it reset gradients: restores them."""
        for name, parameter in module.named_parameters():
            if name in self.loaded:
                parameter.grad = self.loaded[name].to(parameter)
        self.loaded = {}
