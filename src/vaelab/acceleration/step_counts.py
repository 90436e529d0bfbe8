"""Step counts of checkpoints written by vaelab 0.1.0, which updated the weights itself."""

from typing import Any


def restore(checkpoint: dict[str, Any]) -> None:
    """Sets the number of optimizer steps, in place, from which Lightning goes on counting.

    Lightning counts the steps of manual and of automatic optimisation apart, and in a checkpoint of
    manual optimisation the others are none.
    """
    if "loops" not in checkpoint:  # it is of weights alone
        return
    steps = {"ready": checkpoint["global_step"], "completed": checkpoint["global_step"]}
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"] |= steps
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]
