from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from pydantic import NonNegativeInt

from vaelab.randomness import stream


class Seeding(Callback):
    """Makes the noise of every step a function of (seed, stage, batch), in every process.

    So a resumed run draws what it would have drawn, without a random state in the checkpoint,
    and every validation of every run draws the same.

    Args:
        seed: Names the random streams of training; validation and test have one of their own.
    """

    def __init__(self, seed: NonNegativeInt) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        reseed(module.device, stream("noise", self.seed, trainer.fit_loop.total_batch_idx))

    def on_validation_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        number = batch_idx * trainer.world_size + trainer.global_rank  # among those of all
        reseed(module.device, stream("evaluation", number))

    def on_test_batch_start(
        self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self.on_validation_batch_start(trainer, module, batch, batch_idx)


def reseed(device: torch.device, seed: int) -> None:
    """Seeds the default generators of the device, which is the current one, and of the CPU.

    As `torch.manual_seed`, which sees to every device that there might be, in ten times the time.
    """
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
