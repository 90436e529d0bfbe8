"""Output of a training run before it starts: what is trained, on which data, and where."""

import os
from pathlib import Path

import torch
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import OmegaConf

from vaelab.commands.results import FINAL, final_tag
from vaelab.commands.run_folder import RunFolder
from vaelab.data import Images
from vaelab.data.description import (
    coarse_numbers_warning,
    describe,
    far_numbers_warning,
    rare_classes_warning,
)
from vaelab.elbo import ELBO
from vaelab.errors import UserError, first_line
from vaelab.observations import size_text
from vaelab.runs import naming
from vaelab.runs.folder import flatten
from vaelab.training.tensorboard import write_hparams_columns

COMPARED = (
    "model",
    "data",
    "network",
    "likelihood",
    "posterior",
    "prior",
    "condition",
    "annealing",
    "scheduler",
    "early_stopping",
    "ema",
    "seed",
    "precision",
)


def introduce(run: RunFolder, model: ELBO, data: Images, trainer: Trainer) -> None:
    """Prints a run's model, data, device, parameters, condition and folder; first process only."""
    sizes = data.sizes
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    note = getattr(data.source, "note", None)
    device = trainer.strategy.root_device
    threads = torch.get_num_threads()
    cpu = f"{threads} thread{'s' * (threads > 1)}"
    where = cpu if device.type == "cpu" else str(device)
    run.say(
        f"{run.choices['model']} on {run.choices['data']}"
        + (f" ({note})" if note else "")
        + f": {sizes['train']:,} training, {sizes['val']:,} validation and {sizes['test']:,} "
        f"test {data.noun} of {size_text(model.x_shape)}, {data.pixels} "
        + ("pixels" if data.noun == "images" else "numbers")
    )
    run.say(
        f"{run.choices['network']} network, {parameters:,} parameters, "
        f"{model.latent_dim} latent{'s' * (model.latent_dim != 1)}, "
        f"{run.choices['likelihood']} likelihood; "
        f"{trainer.world_size} x {device.type} ({where}), precision {trainer.precision}"
    )
    run.say("; ".join(describe(data)))
    warnings = (rare_classes_warning, far_numbers_warning, coarse_numbers_warning)
    for warning in (make(data) for make in warnings):
        if warning is not None:
            rank_zero_warn(warning)
    if run.cfg.data.columns and not model.context_dim:
        run.say("data.columns: not seen by this model, which has condition=none")
    if run.choices["model"] == "cvae" and not model.context_dim:
        run.say("model=cvae with condition=none is model=vae")
    if model.context_dim:
        columns = [f"{name} ({count} classes)" for name, count in model.classes.items()]
        columns += [f"{n} ({w} number{'s' * (w > 1)})" for n, w in model.numbers.items()]
        run.say(f"{run.choices['condition']} condition on {', '.join(columns)}")
    run.say(f"run folder {run.path}")


def log_settings(run: RunFolder, trainer: Trainer) -> None:
    """Logs the settings that tell runs apart as hyperparameters, to every logger.

    TensorBoard also gets NaN for the final metrics, which come later. Its hparams tab shows first
    the model, beta, the number of latents, and what a sweep or the command line has set. Skips
    TensorBoard in the folder of an earlier start, whose settings the tab would show all the same.

    Raises:
        UserError: If a logger refuses its settings.
    """
    every = flatten(OmegaConf.to_container(run.cfg, resolve=True)) | run.choices
    swept = os.environ.get("VAELAB_SWEPT", "").split()
    given = {naming.setting_name(override) for override in swept or run.overrides} & every.keys()
    told = {n for n in every if n.partition(".")[0] in COMPARED and "._" not in n}
    told |= {naming.setting_name(override) for override in swept}
    first = {"model", "model.beta", "model.latent_dim"} | (given & told)
    settings = {name: value for name, value in every.items() if name in told}
    unknown = {final_tag(name): float("nan") for name in FINAL}
    for logger in trainer.loggers:
        try:  # a logger reads some of its settings only when it is used
            if isinstance(logger, TensorBoardLogger):
                if any(Path(logger.log_dir).glob("events.out.*")):
                    continue
                write_hparams_columns(logger, settings, first, unknown)
                logger.log_hyperparams(settings, metrics=unknown)
            else:
                logger.log_hyperparams(settings)
        except (TypeError, ValueError) as error:
            raise UserError(f"logger: {first_line(error)}") from error
