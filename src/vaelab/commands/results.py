"""The end of a training run: its table, figures, results.json and what to type next."""

import math
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import OmegaConf

from vaelab import pictures
from vaelab.commands.run_folder import RunFolder
from vaelab.elbo import ELBO
from vaelab.errors import NotFiniteError
from vaelab.evaluation import Plan
from vaelab.evaluation import table as evaluated
from vaelab.networks import MLPEncoder
from vaelab.pictures.tensorboard import Board, first_images
from vaelab.posteriors import Deterministic
from vaelab.runs import finished, resume
from vaelab.runs.folder import PROGRESS, git_commit
from vaelab.runs.screen import pasted, table
from vaelab.training.callbacks import Speed
from vaelab.training.json_files import read_json, write_json

MANY_PIXELS = 20_000  # of an image and its channels, from which on dense layers diverge easily
PACKAGES = ("vaelab", "torch", "lightning", "hydra-core", "torchvision", "numpy")
FINAL = ("val/elbo", "test/elbo", "test/distortion", "test/rate")  # in the hparams tab


def finish(
    run: RunFolder,
    plan: Plan,
    model: ELBO,
    trainer: Trainer,
    metrics: dict[str, float],
    seconds: float,
) -> None:
    """Writes results.json and figures, measures the run, and shows the next commands."""
    if not trainer.is_global_zero:
        return
    board = Board.writer(trainer)
    if board is not None:
        for name in FINAL:
            if name in metrics:
                board.add_scalar(final_tag(name), metrics[name])
        board.flush()
    best = "best checkpoint" if run.best.exists() else "last weights"
    rows = [(name, f"{value:.3f}") for name, value in sorted(metrics.items())]
    run.console.print(table(f"{best}, nats per image", rows, "value"))
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    for said in remarks(model, trainer, metrics):
        run.say(said)
    draw(run, model, trainer)
    results = metrics | circumstances(run, trainer, seconds)
    if plan.what:
        results[resume.UNMEASURED] = [*plan.what]
    write_json(run.folder / "results.json", results)
    (run.folder / PROGRESS).unlink(missing_ok=True)
    if plan.what:
        measure(run, plan, trainer.strategy.root_device)
    run.release()
    shown = pasted(run.folder)
    run.say(f"run folder  {shown}")
    if any(run.folder.glob("events.out.*")):
        run.say(f"curves      tensorboard --logdir {shown}")
    more = f"trainer.max_epochs={2 * max(1, trainer.current_epoch)}"
    if trainer.global_step == trainer.max_steps:
        more = f"trainer.max_steps={2 * trainer.max_steps}"
    run.say(f"go on       {run.command(more)}")


def earlier(run: RunFolder, plan: Plan) -> float | None:
    """The `val/elbo` of a run that came to its end before; measures what is to be measured yet."""
    found = run.result()
    if found is not None and resume.unmeasured(run.folder):
        measure(run, plan, finished.device(run.cfg.trainer.get("accelerator", "auto")))
    return found


def measure(run: RunFolder, plan: Plan, device: torch.device) -> None:
    """Measures what `evaluate` asks for, as evaluate.py would, and notes that it is done."""
    record = plan.carry_out(run.folder, device, Path(run.cfg.paths.data))
    run.console.print(evaluated({run.path: record}))
    results = read_json(run.folder / "results.json")
    results.pop(resume.UNMEASURED, None)
    write_json(run.folder / "results.json", results)


def draw(run: RunFolder, model: ELBO, trainer: Trainer) -> None:
    """Saves the pictures of the overview into `figures`."""
    folder = run.folder / "figures"
    folder.mkdir(exist_ok=True)
    x, y = first_images(trainer, 64)
    model.to(x.device)
    for name, picture in pictures.overview(model, x, y).items():
        picture.image().save(folder / f"{name}.png")


def circumstances(run: RunFolder, trainer: Trainer, seconds: float) -> dict[str, Any]:
    """What the metrics were measured with."""
    speed = next((c for c in trainer.callbacks if isinstance(c, Speed)), None)  # type: ignore[attr-defined]
    pruned = any(getattr(c, "pruned", False) for c in trainer.callbacks)  # type: ignore[attr-defined]
    end = stopped(trainer)
    return {
        **({"pruned": True} if pruned else {}),
        **({"stopped": end} if end else {}),
        "seed": run.cfg.seed,
        "seconds": round(seconds, 2),
        "train/images_per_second": round(speed.average, 1) if speed else None,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "device": str(trainer.strategy.root_device),
        "devices": trainer.world_size,
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "git_commit": git_commit(),
        "overrides": run.overrides,
        "config": OmegaConf.to_container(run.cfg, resolve=True),
    }


@contextmanager
def explained_end(run: RunFolder, model: ELBO) -> Iterator[None]:
    """Says how to go on if the training inside is stopped by a signal, or diverges."""
    try:
        yield
    except SystemExit:
        run.say(f"stopped; go on with  {run.command()}")
        raise
    except NotFiniteError as error:
        raise NotFiniteError(f"{error}; {run.kept()}. {advice(model, error)}") from error


def stopped(trainer: Trainer) -> str | None:
    """Where a training ended before the length that was asked for, as `epoch 4 of 30`."""
    epochs, steps = trainer.max_epochs or -1, trainer.max_steps
    if epochs == -1 == steps or 0 < epochs <= trainer.current_epoch:
        return None
    if 0 < steps <= trainer.global_step:
        return None
    if epochs > 0:
        return f"epoch {trainer.current_epoch} of {epochs}"
    return f"step {trainer.global_step} of {steps}"


def remarks(model: ELBO, trainer: Trainer, metrics: Mapping[str, float]) -> Iterator[str]:
    """What the numbers alone do not say: that training was stopped, or came to nothing."""
    if end := stopped(trainer):
        early = any(isinstance(c, EarlyStopping) and c.stopped_epoch for c in trainer.callbacks)  # type: ignore[attr-defined]
        yield f"stopped at {end}{' by EarlyStopping' if early else ''}"
    if not model.continuous:
        if metrics.get("test/codes_used") == 1:
            yield "one code is used for all images: try a smaller model.optimizer.lr"
    elif metrics.get("test/active_units") == 0:
        yield (
            "no latent is active, so the codes say nothing of the image (posterior collapse): try "
            "annealing=linear, model.free_bits=0.1, a smaller model.beta or a weaker decoder"
        )


def advice(model: ELBO, error: NotFiniteError) -> str:
    """What may help a training that diverged."""
    if isinstance(model.posterior, Deterministic) and "the rate" in str(error):
        return "posterior=deterministic is for model=ae, rae and wae"
    found = ["a smaller model.optimizer.lr", "trainer.gradient_clip_val=1"]
    if model.pixels == "grey" and model.bits_offset is None:
        found.append("data.pixels=dequantized, without which a density has no upper bound")
    if isinstance(model.encoder, MLPEncoder) and math.prod(model.x_shape) > MANY_PIXELS:
        found.append(f"network=conv, for {math.prod(model.x_shape):,} inputs are many for a layer")
    return f"Try {', or '.join(found)}"


def final_tag(name: str) -> str:
    """The tag of a final metric: apart from its curve, which a NaN at the start would spoil."""
    return f"hp/{name.replace('/', '_')}"
