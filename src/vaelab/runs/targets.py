"""The names in `_target_` of a configuration: what they are of, and today's for earlier ones."""

from importlib import import_module
from typing import Any

RENAMED = {
    "vaelab.callbacks.Annealing": "vaelab.training.callbacks.Annealing",
    "vaelab.callbacks.Board": "vaelab.pictures.tensorboard.Board",
    "vaelab.callbacks.Checkpoint": "vaelab.training.callbacks.Checkpoint",
    "vaelab.callbacks.Progress": "vaelab.training.callbacks.Progress",
    "vaelab.callbacks.Pruning.of": "vaelab.sweeps.pruning.Pruning.of",
    "vaelab.callbacks.Seeding": "vaelab.training.callbacks.Seeding",
    "vaelab.callbacks.Speed": "vaelab.training.callbacks.Speed",
    "vaelab.logger.TensorBoard": "lightning.pytorch.loggers.TensorBoardLogger",
    "vaelab.optimizers.Adam": "torch.optim.Adam",
    "vaelab.optimizers.AdamW": "torch.optim.AdamW",
    "vaelab.schedules.cosine": "vaelab.training.schedules.cosine",
    "vaelab.schedules.cyclical": "vaelab.training.schedules.cyclical",
    "vaelab.schedules.linear": "vaelab.training.schedules.linear",
    "vaelab.schedules.sigmoid": "vaelab.training.schedules.sigmoid",
    "vaelab.trainer.Trainer": "vaelab.training.trainer.Trainer",
}
"""Old to new names."""


def rename_targets(node: Any) -> Any:
    """A copy of a configuration, plain dictionaries and lists, with new names in `_target_`."""
    if isinstance(node, dict):
        return {
            key: RENAMED.get(value, value)
            if key == "_target_" and isinstance(value, str)
            else rename_targets(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [rename_targets(value) for value in node]
    return node


def locate(name: str) -> Any:
    """The class or function of a dotted name, as Hydra finds it: an attribute before a module.

    Raises:
        ImportError: If there is none of that name.
    """
    first, *others = name.split(".")
    found, path = import_module(first), first
    for part in others:
        path = f"{path}.{part}"
        if not hasattr(found, part):
            import_module(path)
        found = getattr(found, part)
    return found
