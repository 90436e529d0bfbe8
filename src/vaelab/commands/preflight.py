"""Instantiation of a training's parts, and its checks before the run folder is locked."""

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, TypeVar

import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar, StochasticWeightAveraging
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch.optim import Optimizer

from vaelab.data import Images
from vaelab.data.pixels import draw
from vaelab.elbo import ELBO
from vaelab.errors import UserError, first_line, spelling_hint
from vaelab.evaluation import Plan
from vaelab.randomness import seeded_generator
from vaelab.training.callbacks import Annealing
from vaelab.training.learning_rates import Schedule

T = TypeVar("T")

LOGGING_HOOKS = ("on_validation_epoch_start", "on_validation_batch_end", "on_validation_epoch_end")
"""Hooks of a callback that can log metrics of the validation, if they are overridden."""


def instantiate_as(kind: type[T], path: str, node: Any, **settings: Any) -> T:
    """Instantiates a node of the configuration; raises UserError if the result is no `kind`.

    Args:
        kind: The expected class.
        path: The node's name on the command line.
        node: The node, with a `_target_`.
        settings: Further keywords for the `_target_`.

    Raises:
        UserError: If the result is of another class.
    """
    return require_instance(instantiate(node, _convert_="all", **settings), kind, path, node)


def instantiate_callbacks(nodes: Mapping[str, Any]) -> list[Callback]:
    """Instantiates callbacks; skips null nodes and None results; UserError for another class."""
    made = {name: instantiate(node, _convert_="all") for name, node in nodes.items() if node}
    return [
        require_instance(callback, Callback, f"callbacks.{name}", nodes[name])
        for name, callback in made.items()
        if callback is not None
    ]


def require_instance(made: Any, kind: type[T], path: str, node: Any) -> T:
    """Returns the object if it is an instance of `kind`; otherwise raises UserError."""
    if isinstance(made, kind):
        return made
    known, target = f"{kind.__module__}.{kind.__name__}", node.get("_target_")
    raise UserError(f"{path}._target_={target}: a {type(made).__name__} is no {known}")


def check_training(
    cfg: DictConfig, plan: Plan, model: ELBO, data: Images, trainer: Trainer
) -> None:
    """Raises UserError if a training's parts do not fit; loads data, sets defaults of annealing.

    The parts are data, optimizer, callbacks and evaluation. Builds the optimizer once, to try
    it, and may run one validation step.

    Raises:
        UserError: If data, optimizer, annealing or evaluation do not fit the model or each
            other.
    """
    for name in data.shapes.keys() & cfg.model.keys():
        raise UserError(
            f"model.{name} is told by the data; change them with data=... or data.*=..."
        )
    model.check_trainable()
    assert data.sizes  # raises UserError without test images
    data.check_training_draw()
    check_batches(trainer, model, data)
    check_optimizer(model, trainer)
    check_averaging(trainer)
    check_limits(trainer)
    check_loggers(trainer)
    check_monitors(trainer, model, data)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Annealing):
            callback.resolve_target(trainer, model)
    plan.check_applicable(model, data)


def check_optimizer(model: ELBO, trainer: Trainer) -> None:
    """Raises UserError if optimizer or scheduler refuse their settings, or a step of few weights.

    Some optimizers refuse what they are given only in their first step. It is tried on zeros of the
    shape of the smallest weight of each group. Skips the step where a variant configures its
    optimizers itself.
    """
    configured = model.configure_optimizers()
    optimizer = configured
    if isinstance(configured, Mapping):
        optimizer = configured["optimizer"]
        check_scheduler(configured.get("lr_scheduler"), trainer)
    elif model.make_scheduler is not None:
        raise UserError(
            f"scheduler: {type(model).__name__} configures its optimizers itself, and no scheduler "
            "with them; give scheduler=none"
        )
    every = model.options  # not those of the groups, to which a scheduler has added its own
    if not isinstance(optimizer, Optimizer) or len(every) != len(optimizer.param_groups):
        return
    usual = optimizer.defaults  # some hold what their constructor does not take
    used = [pair for pair in zip(optimizer.param_groups, every, strict=True) if pair[0]["params"]]
    options = [
        {k: v for k, v in own.items() if k != "params" and (k not in usual or usual[k] != v)}
        for _, own in used
    ]
    smallest = [min(group["params"], key=torch.numel) for group, _ in used]
    device = trainer.strategy.root_device
    weights = [torch.zeros_like(weight, device=device).requires_grad_() for weight in smallest]
    try:
        groups = [{**own, "params": [w]} for own, w in zip(options, weights, strict=True)]
        trial = model.make_optimizer(groups)
        for weight, own in zip(weights, options, strict=True):
            model.make_optimizer([weight], **own)  # which checks the ranges of a group's options
            weight.grad = torch.zeros_like(weight)
        trial.step(lambda: 0.0)
    except Exception as error:  # whatever an optimizer raises
        raise UserError(f"model.optimizer: {first_line(error)}") from error


def check_scheduler(config: Any, trainer: Trainer) -> None:
    """Raises UserError if a schedule of vaelab's needs the end of a training that has none."""
    scheduler = config["scheduler"] if isinstance(config, Mapping) else config
    if isinstance(scheduler, Schedule):
        endless = trainer.max_epochs == trainer.max_steps == -1
        scheduler.check_length(inf if endless else 1)


def check_averaging(trainer: Trainer) -> None:
    """Raises UserError for a callback whose averaged weights would be in no checkpoint."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StochasticWeightAveraging):
            raise UserError(
                "StochasticWeightAveraging: its averages are in no checkpoint, and neither results "
                "nor vaelab.load would have them; ema=default has averaged weights in both"
            )


def check_limits(trainer: Trainer) -> None:
    """Raises UserError if a batch limit is 0: no training, no best checkpoint, or no test."""
    limits = {
        "limit_train_batches": "nothing is trained",
        "limit_val_batches": "the best checkpoint is chosen by a validation; "
        "trainer.check_val_every_n_epoch=N has fewer of them",
        "limit_test_batches": "a run ends with its test",
    }
    for name, why in limits.items():
        if getattr(trainer, name) == 0:
            raise UserError(f"trainer.{name}=0: {why}")


def check_loggers(trainer: Trainer) -> None:
    """Raises UserError if the trainer was given a logger that is none of Lightning's."""
    for logger in trainer.loggers:
        if not isinstance(logger, Logger):
            raise UserError(f"trainer.logger: a {type(logger).__name__} is no logger of Lightning")


def check_batches(trainer: Trainer, model: ELBO, data: Images) -> None:
    """Raises UserError if batches do not divide among devices, or are too small for the model."""
    data.check_batch_size(trainer.world_size)
    size = data.train_batch_size(trainer.world_size)
    least = model.min_batch_size(trainer.world_size)
    if size < least:
        why = (
            ""
            if size == data.batch_size
            else f", of {len(data.rows['train'])} training {data.noun}"
        )
        where = "" if trainer.world_size == 1 else f", on {trainer.world_size} devices"
        raise UserError(
            f"data.batch_size={size}{why}: {type(model).__name__} compares the {data.noun} of a "
            f"batch with each other, and needs {least} or more{where}"
        )


def check_monitors(trainer: Trainer, model: ELBO, data: Images) -> None:
    """Raises UserError if a monitored metric is never validated; skips trainings that log others.

    Skips models and callbacks with validation hooks of their own, which may log more. Also skips
    callbacks that are not strict, `train/` metrics, and models that cannot take a step before
    training.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    watched = {
        str(monitor): type(callback).__name__
        for callback in callbacks
        if (monitor := getattr(callback, "monitor", None)) and getattr(callback, "strict", True)
    }
    if watched.keys() <= {"val/loss", "val/elbo"}:
        return
    others = [c for c in callbacks if not isinstance(c, ProgressBar)]
    if any(overrides(callback, Callback, LOGGING_HOOKS) for callback in others):
        return
    if overrides(model, ELBO, ("validation_step", "on_validation_epoch_end")):
        return
    try:
        known = {f"val/{name}" for name in validation_metric_names(model, data)}
    except UserError:  # an objective that needs what exists only in a training
        return
    for monitor, name in watched.items():
        if monitor not in known and not monitor.startswith("train/"):
            hint = spelling_hint(monitor, known)
            raise UserError(f"{name}: no validation measures monitor={monitor}; {hint}")


def overrides(made: object, base: type, methods: Iterable[str]) -> bool:
    """Returns whether the object's class has other methods than the base, of those named."""
    return any(getattr(type(made), name) is not getattr(base, name) for name in methods)


@torch.no_grad()
def validation_metric_names(model: ELBO, data: Images) -> list[str]:
    """Returns the names of validation metrics by a step on two images; empties the model's totals.

    Restores the model's mode and the CPU's random state.
    """
    images, _, rows = data.stored("val")
    x = draw(images[rows[:2]], data.pixels, seeded_generator("check"))
    y = data.labels("val")[rows[:2]]
    training = model.training
    try:
        with torch.random.fork_rng(devices=[]):
            model.eval()
            model.on_validation_epoch_start()
            model.validation_step((x, y), 0)
            means, model.rate_per_latent = model.totals.compute_means()
            return [*model.evaluation_scalars(means)]
    finally:
        model.train(training)
        model.on_validation_epoch_start()
