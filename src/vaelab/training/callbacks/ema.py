"""Callback that keeps an exponential moving average of the weights, for evaluation."""

from typing import Annotated, Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from pydantic import Field
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

KEY = "ema"
"""Key in a checkpoint of the weights that are trained; its `state_dict` has their averages."""


class EMA(Callback):
    """Callback that averages the weights over training steps, exponentially.

    The model has the averages in validation and test, in pictures and after training. Checkpoints
    have them as the model's weights, so loading one gives the averages; the trained weights are
    stored beside them, and a resumed run goes on with both.

    After n steps the decay is min(decay, (1 + n) / (10 + n)), so the random first weights
    soon have no influence. Buffers that are saved are averaged too, such as the statistics of a
    batch norm; integers are copied. Buffers that are not saved, such as an annealed weight,
    stay unchanged.

    Lightning's `WeightAveraging` averages annealed weights as well, has the trained weights in the
    model when pictures are drawn, and copies parts before they are initialised from data.

    Args:
        decay: The weight of the last average in the next one.
    """

    def __init__(self, decay: Annotated[float, Field(ge=0, lt=1)]) -> None:
        self.decay = decay
        self.spare: dict[str, Tensor] = {}  # averages, or trained weights where the model has those
        self.has_averages = False  # the model, and so not `spare`
        self.updates = 0
        self.step = 0  # the optimizer step of the last update

    def on_load_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called by Lightning on resuming, after the model was loaded: keeps the trained weights.

        Where the checkpoint has none, the averages begin with the weights that were loaded.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        found = checkpoint.get(KEY, {"weights": {}, "updates": 0})
        self.spare, self.updates = found["weights"], found["updates"]
        self.has_averages = bool(self.spare)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before fit: begins the averages, unless they go on."""
        own = tensors_of(module)
        self.spare = {n: self.spare.get(n, own[n]).to(own[n], copy=True) for n in own}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning when training starts: counts from the steps done."""
        self.step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Called by Lightning before each training batch: gives the model the trained weights."""
        if self.has_averages:
            self.swap(module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Called by Lightning after each training batch: averages, if it completed a step."""
        self.update(trainer, module)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning before each validation, in fit: gives the model the averages.

        It keeps them until the next training batch, so for all callbacks of the validation.
        """
        if trainer.state.fn == TrainerFn.FITTING and not self.has_averages:
            self.swap(module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning when training ends: gives the model the averages."""
        if not self.has_averages:
            self.swap(module)

    def on_save_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Called by Lightning before it saves a checkpoint: stores averages and trained weights.

        The averages become its `state_dict`. A step that was not yet averaged is averaged first.
        """
        if not self.spare:
            return
        if trainer.training:
            self.update(trainer, module)
        averages, trained = dict(self.spare), checkpoint["state_dict"]
        if self.has_averages:
            averages, trained = trained, averages
        checkpoint["state_dict"] = averages
        checkpoint[KEY] = {"weights": dict(trained), "updates": self.updates}

    @torch.no_grad()
    def update(self, trainer: Trainer, module: LightningModule) -> None:
        """Adds the weights after a step to the averages, in place; skips a step added before."""
        if trainer.global_step == self.step:
            return
        self.step, self.updates = trainer.global_step, self.updates + 1
        own = tensors_of(module)
        averaged = [name for name in own if own[name].is_floating_point()]
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average = get_ema_multi_avg_fn(decay)
        average([self.spare[n] for n in averaged], [own[n] for n in averaged], self.updates)
        for name in own.keys() - averaged:
            self.spare[name].copy_(own[name])

    @torch.no_grad()
    def swap(self, module: LightningModule) -> None:
        """Exchanges the model's weights and the spare ones, in place."""
        self.has_averages = not self.has_averages
        for name, own in tensors_of(module).items():
            kept = own.clone()
            own.copy_(self.spare[name])
            self.spare[name].copy_(kept)


def tensors_of(module: LightningModule) -> dict[str, Tensor]:
    """Returns the parameters and saved buffers of a model by name, which share its memory."""
    return {name: t for name, t in module.state_dict().items() if isinstance(t, Tensor)}
