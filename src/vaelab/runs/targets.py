"""Import of the `_target_` names in a configuration, and what earlier versions wrote otherwise."""

from collections.abc import Iterator
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
    "vaelab.logger.TensorBoard": "vaelab.training.tensorboard.TensorBoardLogger",
    "vaelab.optimizers.Adam": "torch.optim.Adam",
    "vaelab.optimizers.AdamW": "torch.optim.AdamW",
    "vaelab.samplers.Flow": "vaelab.evaluation.samplers.Flow",
    "vaelab.samplers.GMM": "vaelab.evaluation.samplers.GMM",
    "vaelab.samplers.Own": "vaelab.evaluation.samplers.Own",
    "vaelab.schedules.cosine": "vaelab.training.schedules.cosine",
    "vaelab.schedules.cyclical": "vaelab.training.schedules.cyclical",
    "vaelab.schedules.linear": "vaelab.training.schedules.linear",
    "vaelab.schedules.sigmoid": "vaelab.training.schedules.sigmoid",
    "vaelab.trainer.Trainer": "vaelab.training.trainer.Trainer",
}
"""Old and new names of `_target_`, for run folders and exports of earlier versions."""


IMPLIED: dict[str, dict[str, Any]] = {
    "vaelab.models.LadderVAE": {"prior_scale": "exp", "feature_limit": None}
}
"""By `_target_`, what a part did before there were these settings, where conf has another."""


def update_config(node: Any) -> Any:
    """Returns a copy of nested dicts and lists, with what earlier versions wrote as of today.

    Old names in `_target_` are replaced, and settings added that were `IMPLIED`.
    """
    if isinstance(node, dict):
        found = {key: update_config(value) for key, value in node.items()}
        target = found.get("_target_")
        if not isinstance(target, str):
            return found
        target = RENAMED.get(target, target)
        return IMPLIED.get(target, {}) | found | {"_target_": target}
    if isinstance(node, list):
        return [update_config(value) for value in node]
    return node


def implied_names(node: Any, path: str = "") -> Iterator[str]:
    """Yields the dotted names of the settings in nested dicts that `IMPLIED` may have added."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from implied_names(value, f"{path}{key}.")
        yield from (f"{path}{name}" for name in IMPLIED.get(str(node.get("_target_")), {}))


def import_target(name: str) -> Any:
    """Imports what a dotted name stands for, as Hydra does: attributes before modules.

    Raises:
        ImportError: If nothing has that name.
    """
    first, *others = name.split(".")
    found, path = import_module(first), first
    for part in others:
        path = f"{path}.{part}"
        if not hasattr(found, part):
            import_module(path)
        found = getattr(found, part)
    return found
