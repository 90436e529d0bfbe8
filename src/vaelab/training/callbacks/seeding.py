"""Callback that seeds torch's default generators before every batch."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from pydantic import NonNegativeInt

from vaelab.randomness import stream_seed


class Seeding(Callback):
    """Callback that seeds torch's global generators before every batch, by stage and batch number.

    So a resumed run draws the same noise as an uninterrupted one, without a random state in the
    checkpoint, and every validation of every run draws the same noise.

    Args:
        seed: Seed of the noise in training; validation and test do not depend on it.
    """

    def __init__(self, seed: NonNegativeInt) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Called by Lightning before each training batch: seeds torch by seed and batches seen."""
        reseed(module.device, stream_seed("noise", self.seed, trainer.fit_loop.total_batch_idx))

    def on_validation_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Called by Lightning before each validation batch: seeds torch by batch number only."""
        number = batch_idx * trainer.world_size + trainer.global_rank  # over all processes
        reseed(module.device, stream_seed("evaluation", number))

    def on_test_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Called by Lightning before each test batch: seeds torch as in validation."""
        self.on_validation_batch_start(trainer, module, batch, batch_idx)


def reseed(device: torch.device, seed: int) -> None:
    """Seeds torch's global generators: the CPU's, for CUDA the current GPU's too, or else all.

    `torch.manual_seed` seeds every possible device and takes ten times as long; it is used for
    other types of device.
    """
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
