"""Checks of a training before it starts, for what would be found in it or after it."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from omegaconf import DictConfig

from vaelab.data import Images
from vaelab.data.pixels import draw
from vaelab.elbo import ELBO
from vaelab.errors import UserError, nearest
from vaelab.evaluation import Plan
from vaelab.randomness import generator
from vaelab.training.callbacks import Annealing

T = TypeVar("T")

USUAL = ("lightning.", "vaelab.")
"""Packages whose callbacks log nothing that a validation of the model does not measure."""


def instantiate_as(kind: type[T], path: str, node: Any, **settings: Any) -> T:
    """Instantiates a part of the configuration.

    Args:
        kind: What it should be.
        path: Its name on the command line.
        node: The part.
        settings: Given to its `_target_` beside those in the configuration.

    Raises:
        UserError: If its `_target_` makes something else.
    """
    return checked(instantiate(node, _convert_="all", **settings), kind, path, node)


def instantiate_callbacks(nodes: Mapping[str, Any]) -> list[Callback]:
    """Instantiates callbacks by their names, without those that are null or make nothing."""
    made = {name: instantiate(node, _convert_="all") for name, node in nodes.items() if node}
    return [
        checked(callback, Callback, f"callbacks.{name}", nodes[name])
        for name, callback in made.items()
        if callback is not None
    ]


def checked(made: Any, kind: type[T], path: str, node: Any) -> T:
    """What a part of the configuration made, if it is what it should be."""
    if isinstance(made, kind):
        return made
    known, target = f"{kind.__module__}.{kind.__name__}", node.get("_target_")
    raise UserError(f"{path}._target_={target}: a {type(made).__name__} is no {known}")


def check(cfg: DictConfig, plan: Plan, model: ELBO, data: Images, trainer: Trainer) -> None:
    """Finds before the folder is taken what would be found in training, or after it.

    Raises:
        UserError: If data, optimizer, annealing or evaluation do not fit the model or each
            other.
    """
    for name in data.shapes.keys() & cfg.model.keys():
        raise UserError(
            f"model.{name} is told by the data; change them with data=... or data.*=..."
        )
    assert data.sizes  # or it says what is missing
    check_batches(trainer, model, data)
    model.configure_optimizers()
    check_limits(trainer)
    check_monitors(trainer, model, data)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Annealing):
            callback.check(trainer, model)
    plan.check(model, data)


def check_limits(trainer: Trainer) -> None:
    """Raises UserError if nothing is left to choose the best checkpoint by, or to report."""
    limits = {
        "limit_train_batches": "nothing is trained",
        "limit_val_batches": "the best checkpoint is chosen by a validation; "
        "trainer.check_val_every_n_epoch=N has fewer of them",
        "limit_test_batches": "a run ends with its test",
    }
    for name, why in limits.items():
        if getattr(trainer, name) == 0:
            raise UserError(f"trainer.{name}=0: {why}")


def check_batches(trainer: Trainer, model: ELBO, data: Images) -> None:
    """Raises UserError if training batches cannot be divided, or are too small for the model."""
    data.check(trainer.world_size)
    size, least = data.fitting(trainer.world_size), model.least_batch(trainer.world_size)
    if size < least:
        why = "" if size == data.batch_size else f", of {len(data.rows['train'])} training images"
        where = "" if trainer.world_size == 1 else f", on {trainer.world_size} devices"
        raise UserError(
            f"data.batch_size={size}{why}: {type(model).__name__} compares the images of a batch "
            f"with each other, and needs {least} or more{where}"
        )


def check_monitors(trainer: Trainer, model: ELBO, data: Images) -> None:
    """Raises UserError if a callback watches what no validation measures.

    Where a callback or a model of the user's own may log more, nothing is known beforehand.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    watched = {
        str(monitor): type(callback).__name__
        for callback in callbacks
        if (monitor := getattr(callback, "monitor", None)) and getattr(callback, "strict", True)
    }
    usual = [type(made).__module__.startswith(USUAL) for made in (model, *callbacks)]
    if watched.keys() <= {"val/loss", "val/elbo"} or not all(usual):
        return
    try:
        known = {f"val/{name}" for name in validated(model, data)}
    except UserError:  # an objective that takes what only a training has
        return
    for monitor, name in watched.items():
        if monitor not in known and not monitor.startswith("train/"):
            hint = nearest(monitor, known)
            raise UserError(f"{name}: no validation measures monitor={monitor}; {hint}")


@torch.no_grad()
def validated(model: ELBO, data: Images) -> list[str]:
    """The names of what a validation measures, from one of two images."""
    images, _, rows = data.stored("val")
    x = draw(images[rows[:2]], data.pixels, generator("check"))
    y = data.labels("val")[rows[:2]]
    training = model.training
    try:
        with torch.random.fork_rng(devices=[]):
            model.eval()
            model.on_validation_epoch_start()
            model.validation_step((x, y), 0)
            values, _ = model.totals.read()
    finally:
        model.train(training)
        model.on_validation_epoch_start()
    return [*values, *(["bits_per_dim"] if model.bits_offset is not None else [])]
