"""Conversion of step counts in checkpoints of vaelab 0.1.0, which used manual optimisation."""

from typing import Any


def restore_step_count(checkpoint: dict[str, Any]) -> None:
    """Sets a checkpoint's automatic step counts, in place, to `global_step`; skips bare weights.

    Lightning counts the steps of manual and of automatic optimisation separately, and a checkpoint
    of vaelab 0.1.0 has 0 automatic ones.
    """
    if "loops" not in checkpoint:
        return
    steps = {"ready": checkpoint["global_step"], "completed": checkpoint["global_step"]}
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"] |= steps
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]
