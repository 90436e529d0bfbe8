"""The end of a training run: its table, figures, results.json, evaluation and next commands."""

import math
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any

import torch
from lightning import Trainer
from omegaconf import OmegaConf

from vaelab import pictures
from vaelab.commands import command_lines
from vaelab.commands.ending import Ending
from vaelab.commands.resumption import checkpoint_note
from vaelab.commands.run_folder import RunFolder
from vaelab.elbo import ELBO
from vaelab.errors import NotFiniteError, UserError, WriteError
from vaelab.evaluation import Plan, evaluation_table
from vaelab.files.atomic import first_write_error, make_folder
from vaelab.networks import MLPEncoder
from vaelab.observations import kind_text
from vaelab.pictures.image_files import write_image
from vaelab.pictures.tensorboard import Board, first_validation_images
from vaelab.posteriors import Deterministic
from vaelab.runs import finished, resume
from vaelab.runs.folder import BEST_STEP, FAILURE, PROGRESS, git_commit, processor_name
from vaelab.runs.screen import metrics_table, shell_path
from vaelab.training.callbacks import Speed
from vaelab.training.callbacks.checkpoint import load_checkpoint
from vaelab.training.json_files import read_json, write_json

MANY_PIXELS = 20_000  # of an image and its channels, from which on dense layers diverge easily
FEW_STEPS = 300  # optimizer steps before which latents may not be active yet
PACKAGES = ("vaelab", "torch", "lightning", "hydra-core", "torchvision", "numpy")
FINAL = ("val/elbo", "test/elbo", "test/distortion", "test/rate")  # in the hparams tab


def finish_run(
    run: RunFolder,
    plan: Plan,
    model: ELBO,
    trainer: Trainer,
    ending: Ending,
    metrics: dict[str, float],
    seconds: float,
) -> None:
    """Ends a run in the first process: writes results and figures, evaluates and unlocks it.

    Does nothing in other processes. Prints the table of metrics, and at last the commands
    to see its curves and, unless `reproduce` trains it, to go on. Logs the final metrics to
    TensorBoard; deletes progress.json.
    With trainer.fast_dev_run only the table is printed, and the final metrics logged.
    """
    if not trainer.is_global_zero:
        return
    board = Board.writer(trainer)
    if board is not None:
        for name in FINAL:
            if name in metrics:
                board.add_scalar(final_tag(name), metrics[name], trainer.global_step)
        board.flush()
    best = "best checkpoint" if run.best.exists() else "last weights"
    rows = [(name, f"{value:.3f}") for name, value in sorted(metrics.items())]
    run.console.print(metrics_table(f"{best}, nats per {noun_of(model)}", rows, "value"))
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    for said in remarks(model, trainer, ending, metrics):
        run.say(said)
    save_figures(run, model, trainer)
    kept = load_checkpoint(run.best)["global_step"] if run.best.exists() else trainer.global_step
    results = metrics | {BEST_STEP: kept} | run_metadata(run, trainer, ending, seconds)
    if plan.what:
        results[resume.UNMEASURED] = [*plan.what]
    write_json(run.folder / "results.json", results)
    (run.folder / PROGRESS).unlink(missing_ok=True)
    if plan.what:
        measure_run(run, plan, trainer.strategy.root_device)
    run.release_lock()
    shown = shell_path(run.folder)
    run.say(f"run folder  {shown}")
    if any(run.folder.glob("events.out.*")):
        run.say(f"curves      tensorboard --logdir {shown}")
    if ending.longer and not command_lines.outer_command():
        run.say(f"go on       {run.resume_command(ending.longer)}")


def reuse_finished_run(run: RunFolder, plan: Plan) -> float | None:
    """Returns a finished run's val/elbo, after evaluating what is due; None if it is to be trained.

    It is to be trained if unfinished, or with rerun or ckpt. See `measure_run` for the files.
    """
    found = run.finished_elbo()
    if found is not None and resume.unmeasured_metrics(run.folder):
        measure_run(run, plan, finished.select_device(run.cfg.trainer.get("accelerator", "auto")))
    return found


def measure_run(run: RunFolder, plan: Plan, device: torch.device) -> None:
    """Evaluates a run as evaluate.py would, prints the table and marks results.json as measured."""
    # By the settings of this command, not by those that somebody may have left in the folder.
    record = plan.evaluate_run(run.folder, device, run.data_folder, cfg=run.cfg)
    run.console.print(evaluation_table({run.path: record}))
    results = read_json(run.folder / "results.json")
    results.pop(resume.UNMEASURED, None)
    write_json(run.folder / "results.json", results)


def save_figures(run: RunFolder, model: ELBO, trainer: Trainer) -> None:
    """Writes overviews of up to 64 validation images as PNG files; moves the model to their device.

    The files are in the folder `figures`, which is created.
    """
    folder = run.folder / "figures"
    make_folder(folder)
    x, y = first_validation_images(trainer, 64)
    model.to(x.device)
    for name, picture in pictures.draw_overview(model, x, y).items():
        write_image(folder / f"{name}.png", picture.image())


def run_metadata(
    run: RunFolder, trainer: Trainer, ending: Ending, seconds: float
) -> dict[str, Any]:
    """Returns what results.json holds beside metrics: time, speed, versions, configuration."""
    speed = next((c for c in trainer.callbacks if isinstance(c, Speed)), None)  # type: ignore[attr-defined]
    pruned = any(getattr(c, "pruned", False) for c in trainer.callbacks)  # type: ignore[attr-defined]
    return {
        **({"pruned": True} if pruned else {}),
        **({"stopped": ending.stopped} if ending.stopped else {}),
        "seed": run.cfg.seed,
        "seconds": round(seconds + (speed.earlier_seconds if speed else 0.0), 2),
        "train/images_per_second": round(speed.mean_images_per_second, 1) if speed else None,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "device": str(trainer.strategy.root_device),
        "devices": trainer.world_size,
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "git_commit": git_commit(),
        "overrides": run.overrides,
        "config": OmegaConf.to_container(run.cfg, resolve=True),
    }


@contextmanager
def explain_failure(run: RunFolder, model: ELBO) -> Iterator[None]:
    """Context manager: at NotFiniteError writes failure.json, and raises it again with advice.

    By that file a report calls the run failed. The advice has the step of the last checkpoint.
    """
    try:
        yield
    except NotFiniteError as error:
        if not run.console.quiet:  # the first process
            with suppress(WriteError):  # the loss is what is to be told
                write_json(run.folder / FAILURE, {"error": str(error)})
        raise NotFiniteError(
            f"{error}; {checkpoint_note(run)}. {divergence_advice(model, error)}"
        ) from error


@contextmanager
def explain_write_error(run: RunFolder) -> Iterator[None]:
    """Context manager: raises WriteError with the last whole checkpoint if a file can't be written.

    Loggers' errors name no file; then the message names the run folder.
    """
    try:
        yield
    except Exception as error:
        first = first_write_error(error)
        other = isinstance(error, UserError) and not isinstance(error, WriteError)
        if first is None or other:
            raise
        said = f"cannot write {run.path}: {first.strerror}" if isinstance(first, OSError) else first
        raise WriteError(f"{said}; {checkpoint_note(run)}") from error


def noun_of(model: ELBO) -> str:
    """Returns what one x is called: image, signal or vector."""
    return kind_text(model.x_shape).removesuffix("s")


def remarks(
    model: ELBO, trainer: Trainer, ending: Ending, metrics: Mapping[str, float]
) -> Iterator[str]:
    """Yields remarks on an early stop, posterior collapse, or one code for all images."""
    if ending.stopped:
        yield f"stopped at {ending.stopped}{' by EarlyStopping' * ending.is_early_stopping}"
    if not model.has_continuous_latents:
        if metrics.get("test/codes_used") == 1:
            yield f"one code is used for all {noun_of(model)}s: try a smaller model.optimizer.lr"
    elif metrics.get("test/active_units") == 0 and trainer.global_step < FEW_STEPS:
        yield (
            f"no latent is active after {trainer.global_step:,} steps, which are few: try a larger "
            "trainer.max_epochs or a smaller data.batch_size"
        )
    elif metrics.get("test/active_units") == 0:
        yield (
            f"no latent is active, so the codes say nothing of the {noun_of(model)} (posterior "
            "collapse): try annealing=linear, model.free_bits=0.1, a smaller model.beta or a "
            "weaker decoder"
        )


def divergence_advice(model: ELBO, error: NotFiniteError) -> str:
    """Returns advice after a non-finite loss: settings to try, by the kind of model."""
    if isinstance(model.posterior, Deterministic) and "the rate" in str(error):
        return "posterior=deterministic is for model=ae, rae and wae"
    found = ["a smaller model.optimizer.lr", "trainer.gradient_clip_val=1"]
    if model.pixels == "grey" and model.bits_offset is None:
        found.append("data.pixels=dequantized, without which a density has no upper bound")
    dense = isinstance(model.encoder, MLPEncoder) and len(model.x_shape) > 1
    if dense and math.prod(model.x_shape) > MANY_PIXELS:
        found.append(f"network=conv, for {math.prod(model.x_shape):,} inputs are many for a layer")
    return f"Try {', or '.join(found)}"


def final_tag(name: str) -> str:
    """Returns the TensorBoard tag of a final metric, not that of its curve: `hp/val_elbo`."""
    return f"hp/{name.replace('/', '_')}"
