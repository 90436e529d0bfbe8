"""Correction of Lightning's step counts after a resumption, also of vaelab 0.1.0's checkpoints."""

from typing import Any

import lightning
from lightning import Trainer

IS_TRIED = lightning.__version__.startswith("2.6.")
"""Whether this is a version of Lightning whose counts are known; with any other all is left."""


def restore_step_count(checkpoint: dict[str, Any]) -> None:
    """Sets a checkpoint's automatic step counts, in place, to `global_step`; skips bare weights.

    Does nothing with a version of Lightning that was not tried. Lightning counts the steps of
    manual and of automatic optimisation separately, and a checkpoint of vaelab 0.1.0 has 0
    automatic ones.
    """
    if "loops" not in checkpoint or not IS_TRIED:
        return
    steps = {"ready": checkpoint["global_step"], "completed": checkpoint["global_step"]}
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"] |= steps
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]


def close_finished_epoch(checkpoint: dict[str, Any]) -> None:
    """Sets a checkpoint's loops, in place, to before the next epoch if its epoch is finished.

    Skips bare weights. With `max_steps` Lightning 2.6 otherwise ends a finished epoch once more:
    it counts it twice, and so trains an epoch too few.
    """
    if "loops" not in checkpoint or not IS_TRIED:
        return
    loops = checkpoint["loops"]["fit_loop"]
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    if epochs["current"]["processed"] < epochs["current"]["ready"]:
        return
    for counts in (epochs["total"], epochs["current"]):
        counts["completed"] = counts["processed"]
    batches["current"] = dict.fromkeys(batches["current"], 0)
    batches["is_last_batch"] = False


def close_limited_epoch(checkpoint: dict[str, Any]) -> None:
    """Sets a checkpoint's loaders, in place, to their start if its epoch had its last batch.

    Skips bare weights. Lightning 2.6 makes no new iterator for the next epoch after a checkpoint of
    a validation at an epoch's end. With `limit_train_batches` the next epoch would have what is
    left of that epoch's batches.
    """
    if "loops" not in checkpoint or not IS_TRIED:
        return
    loops = checkpoint["loops"]["fit_loop"]
    batches = loops["epoch_loop.batch_progress"]
    if batches["is_last_batch"] and batches["current"]["completed"] == batches["current"]["ready"]:
        for state in loops["state_dict"].get("combined_loader", []):
            if "position" in state:
                state["position"] = 0


def correct_logged_step(trainer: Trainer) -> None:
    """Sets the step that Lightning logs at to the steps done; call it before a training batch.

    Lightning 2.6 counts one too many after a checkpoint that was saved in a validation within an
    epoch, and every later point of `LightningModule.log` would be a step too late.
    """
    if IS_TRIED:
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
