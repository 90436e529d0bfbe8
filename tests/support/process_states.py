"""Callback that saves what each process of a training has at its end, to compare processes."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from vaelab.training.callbacks import EMA, EarlyStopping


class ProcessState(Callback):
    """Saves the weights, averages, rates and counts of its process into the run folder."""

    def __init__(self) -> None:
        self.validations: list[dict[str, Any]] = []

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after each validation: notes rates and counts."""
        stopping = [c for c in trainer.callbacks if isinstance(c, EarlyStopping)]
        self.validations.append(
            {
                "step": trainer.global_step,
                "rates": [group["lr"] for group in trainer.optimizers[0].param_groups],
                "schedules": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
                "waited": [c.wait_count for c in stopping],
            }
        )

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Called by Lightning after fit: saves state-RANK.pt."""
        (averages,) = (c for c in trainer.callbacks if isinstance(c, EMA))
        state = {
            "weights": module.state_dict(),
            "spare": averages.spare,
            "updates": averages.updates,
            "epochs": trainer.current_epoch,
            "validations": self.validations,
        }
        torch.save(state, Path(trainer.default_root_dir, f"state-{trainer.global_rank}.pt"))
