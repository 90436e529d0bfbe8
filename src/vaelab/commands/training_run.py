"""A training run: what it says at the start, and what it leaves in its folder at the end."""

import math
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from vaelab import pictures
from vaelab.commands import cli, preflight
from vaelab.commands.quiet import quieten
from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.errors import NotFiniteError, UserError
from vaelab.evaluation import Plan
from vaelab.evaluation import table as evaluated
from vaelab.networks import MLPEncoder
from vaelab.pictures.tensorboard import Board, first_images
from vaelab.posteriors import Deterministic
from vaelab.runs import finished, naming, resume
from vaelab.runs.folder import COMPOSED, PROGRESS, flat, git_commit
from vaelab.runs.screen import here, pasted, table
from vaelab.training.callbacks import Annealing, Speed
from vaelab.training.callbacks.checkpoint import load as load_checkpoint
from vaelab.training.json_files import read_json, write_json
from vaelab.training.tensorboard import name_columns

MANY_PIXELS = 20_000  # of an image and its channels, from which on dense layers diverge easily
PACKAGES = ("vaelab", "torch", "lightning", "hydra-core", "torchvision", "numpy")
FINAL = ("val/elbo", "test/elbo", "test/distortion", "test/rate")  # in the hparams tab
LEAVING = 60.0
"""Seconds for which to wait for a process that is stopping in the same folder."""
COMPARED = (
    "model",
    "data",
    "network",
    "likelihood",
    "posterior",
    "prior",
    "condition",
    "annealing",
    "seed",
    "precision",
)


class Run:
    """One training run: `cfg` composed, in the folder that Hydra made for it."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self.choices: dict[str, str] = dict(HydraConfig.get().runtime.choices)
        self.overrides = list(HydraConfig.get().overrides.task)
        self.folder = Path(HydraConfig.get().runtime.output_dir)
        self.began = monotonic()
        self.console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        if os.environ.get("LOCAL_RANK", "0") != "0":
            self.console.quiet = True
        quieten()
        what = cli.names(cfg.evaluate)
        command = shlex.join([*cli.program(), *self.overrides])
        self.plan = Plan(cfg.metrics, what, cfg.seed, cfg.rerun, command, self.say)

    @property
    def path(self) -> Path:
        """The folder as the user would type it."""
        return here(self.folder)

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    def result(self) -> float | None:
        """What this very run came to, if it has been run to its end already.

        Raises:
            UserError: If the run in the folder is another one.
        """
        found = resume.result(self.folder)
        if found is None or self.cfg.rerun or self.cfg.ckpt is not None:
            return None
        resume.check(self.folder, self.path, self.cfg)
        shown = pasted(self.folder)
        self.say(f"{shown} is finished, with val/elbo {found:.3f}; rerun=true starts it over")
        if resume.unmeasured(self.folder):
            self.measure(finished.device(self.cfg.trainer.get("accelerator", "auto")))
        return found

    def check(self, model: ELBO, data: Images, trainer: Trainer) -> None:
        """Finds before the folder is taken what would be found in training, or after it.

        Raises:
            UserError: If data, optimizer, annealing or evaluation do not fit the model or each
                other.
        """
        for name in data.shapes.keys() & self.cfg.model.keys():
            raise UserError(
                f"model.{name} is told by the data; change them with data=... or data.*=..."
            )
        assert data.sizes  # or it says what is missing
        preflight.check_batches(trainer, model, data)
        model.configure_optimizers()
        preflight.check_limits(trainer)
        preflight.check_monitors(trainer, model, data)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Annealing):
                callback.check(trainer, model)
        self.plan.check(model, data)

    def resume(self, model: ELBO) -> Path | None:
        """The checkpoint that `ckpt` asks for, or of a run that was interrupted, to go on from.

        Raises:
            UserError: If it is not there, of another model, or has nothing left to do; or if
                nothing is asked for and the folder holds another run.
        """
        ckpt = self.cfg.ckpt
        if ckpt is None:
            if self.cfg.rerun or not self.last.exists():
                return None
            resume.check(self.folder, self.path, self.cfg)
            state = load_checkpoint(self.last)
            model.check_architecture(state["state_dict"])
            self.say(f"going on from step {state['global_step']:,} of {self.path}")
            return self.last
        path = Path(ckpt)
        if ckpt in ("last", "best"):
            path = self.last.with_name(f"{ckpt}.ckpt")
            if not path.exists():
                raise UserError(
                    f"ckpt={ckpt}: there is no {path.name} in {self.path}; name the run that goes "
                    "on with hydra.run.dir=FOLDER, or the file with ckpt=PATH"
                )
        if path.is_dir():
            path = path / "checkpoints" / "last.ckpt"
        if self.cfg.rerun and path.resolve().is_relative_to(self.folder.resolve()):
            raise UserError(
                f"ckpt={ckpt} goes on with the run in {self.path}, and rerun=true starts it over; "
                "give one of them"
            )
        state = load_checkpoint(path)
        model.check_architecture(state["state_dict"])
        done = state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        for name, count in (("max_epochs", done), ("max_steps", state["global_step"])):
            if 0 < self.cfg.trainer[name] <= count:
                raise UserError(
                    f"{path} is of {count:,} {name[4:]} already; "
                    f"give a larger trainer.{name} than {self.cfg.trainer[name]:,}"
                )
        return path

    def occupy(self) -> None:
        """Keeps other processes out of the folder until the run is finished or its process ends.

        Raises:
            UserError: If another one does not leave it; one that is stopping soon does.
        """
        if self.console.quiet:
            return
        path = self.folder / COMPOSED.with_name("lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(path, is_singleton=True)  # a second run in this process is welcome
        try:
            with suppress(NotImplementedError):  # a file system without locks
                self.lock.acquire(timeout=LEAVING)
        except Timeout as error:
            raise UserError(f"{self.path}: another process is working in this folder") from error

    def record(self) -> None:
        """Writes the composed configuration into the folder, where Hydra keeps it."""
        if self.console.quiet:  # a process beside the first one
            return
        if self.cfg.rerun:
            resume.clear(self.folder)
        (self.folder / "results.json").unlink(missing_ok=True)  # until it is finished again
        composed = self.folder / COMPOSED
        composed.parent.mkdir(exist_ok=True)
        OmegaConf.save(self.cfg, composed)
        OmegaConf.save(OmegaConf.create(self.overrides), composed.with_name("overrides.yaml"))

    def introduce(self, model: ELBO, data: Images, trainer: Trainer) -> None:
        """Says what will be trained, on what, and where."""
        sizes = data.sizes
        channels, height, width = model.x_shape
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        note = getattr(data.source, "note", None)
        device = trainer.strategy.root_device
        where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
        self.say(
            f"{self.choices['model']} on {self.choices['data']}"
            + (f" ({note})" if note else "")
            + f": {sizes['train']:,} training, {sizes['val']:,} validation and {sizes['test']:,} "
            f"test images of {height} x {width} x {channels}, {data.pixels} pixels"
        )
        self.say(
            f"{self.choices['network']} network, {parameters:,} parameters, "
            f"{model.latent_dim} latents, {self.choices['likelihood']} likelihood; "
            f"{trainer.world_size} x {device.type} ({where}), precision {trainer.precision}"
        )
        self.say("; ".join(data.described()))
        if model.context_dim:
            columns = [f"{name} ({count} classes)" for name, count in model.classes.items()]
            columns += [f"{n} ({w} number{'s' * (w > 1)})" for n, w in model.numbers.items()]
            self.say(f"{self.choices['condition']} condition on {', '.join(columns)}")
        self.say(f"run folder {self.path}")

    def log_settings(self, trainer: Trainer) -> None:
        """Gives the settings that tell runs apart to the loggers, for TensorBoard's hparams tab.

        The tab opens on the model, beta, the size of the latents, and what a sweep or the command
        line has set.
        """
        every = flat(OmegaConf.to_container(self.cfg, resolve=True)) | self.choices
        swept = os.environ.get("VAELAB_SWEPT", "").split()
        given = {naming.key(override) for override in swept or self.overrides} & every.keys()
        told = {n for n in every if n.partition(".")[0] in COMPARED and "._" not in n}
        told |= {naming.key(override) for override in swept}
        first = {"model", "model.beta", "model.latent_dim"} | (given & told)
        settings = {name: value for name, value in every.items() if name in told}
        unknown = {final_tag(name): float("nan") for name in FINAL}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                name_columns(logger, settings, first, unknown)
                logger.log_hyperparams(settings, metrics=unknown)
            else:
                logger.log_hyperparams(settings)

    @contextmanager
    def stopping(self, model: ELBO) -> Iterator[None]:
        """Says how to go on if the training inside is stopped by a signal, or diverges."""
        try:
            yield
        except SystemExit:
            self.say(f"stopped; go on with  {self.command()}")
            raise
        except NotFiniteError as error:
            raise NotFiniteError(f"{error}; {self.kept()}. {advice(model, error)}") from error

    def kept(self) -> str:
        """What there is to go on from, in words."""
        if not self.last.exists():
            return "there is no checkpoint yet"
        return f"the checkpoint of step {load_checkpoint(self.last)['global_step']:,} is kept"

    def command(self, *changes: str) -> str:
        """The command line that goes on with this run, with these overrides changed."""
        changed = {"ckpt", "rerun", *map(naming.key, changes)}
        kept = [o for o in self.overrides if naming.key(o) not in changed]
        folder = f"hydra.run.dir={naming.value(str(self.path))}"
        start = [*cli.program(), *cli.config_folders(HydraConfig.get())]
        return shlex.join([*start, *kept, *changes, folder, "ckpt=last"])

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def measure(self, device: torch.device) -> None:
        """Measures what `evaluate` asks for, as evaluate.py would, and notes that it is done."""
        record = self.plan.carry_out(self.folder, device, Path(self.cfg.paths.data))
        self.console.print(evaluated({self.path: record}))
        results = read_json(self.folder / "results.json")
        results.pop(resume.UNMEASURED, None)
        write_json(self.folder / "results.json", results)

    def finish(self, model: ELBO, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Writes results.json and figures, measures the run, and shows the next commands."""
        if not trainer.is_global_zero:
            return
        board = Board.writer(trainer)
        if board is not None:
            for name in FINAL:
                if name in metrics:
                    board.add_scalar(final_tag(name), metrics[name])
            board.flush()
        best = "best checkpoint" if self.best.exists() else "last weights"
        rows = [(name, f"{value:.3f}") for name, value in sorted(metrics.items())]
        self.console.print(table(f"{best}, nats per image", rows, "value"))
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for said in remarks(model, trainer, metrics):
            self.say(said)
        self.draw(model, trainer)
        results = metrics | self.circumstances(trainer)
        if self.plan.what:
            results[resume.UNMEASURED] = [*self.plan.what]
        write_json(self.folder / "results.json", results)
        (self.folder / PROGRESS).unlink(missing_ok=True)
        if self.plan.what:
            self.measure(trainer.strategy.root_device)
        self.lock.release()
        shown = pasted(self.folder)
        self.say(f"run folder  {shown}")
        if any(self.folder.glob("events.out.*")):
            self.say(f"curves      tensorboard --logdir {shown}")
        more = f"trainer.max_epochs={2 * max(1, trainer.current_epoch)}"
        if trainer.global_step == trainer.max_steps:
            more = f"trainer.max_steps={2 * trainer.max_steps}"
        self.say(f"go on       {self.command(more)}")

    def circumstances(self, trainer: Trainer) -> dict[str, Any]:
        """What the metrics were measured with."""
        speed = next((c for c in trainer.callbacks if isinstance(c, Speed)), None)  # type: ignore[attr-defined]
        pruned = any(getattr(c, "pruned", False) for c in trainer.callbacks)  # type: ignore[attr-defined]
        end = stopped(trainer)
        return {
            **({"pruned": True} if pruned else {}),
            **({"stopped": end} if end else {}),
            "seed": self.cfg.seed,
            "seconds": round(monotonic() - self.began, 2),
            "train/images_per_second": round(speed.average, 1) if speed else None,
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "device": str(trainer.strategy.root_device),
            "devices": trainer.world_size,
            "versions": {name: version(name) for name in PACKAGES}
            | {"python": platform.python_version()},
            "git_commit": git_commit(),
            "overrides": self.overrides,
            "config": OmegaConf.to_container(self.cfg, resolve=True),
        }

    def draw(self, model: ELBO, trainer: Trainer) -> None:
        folder = self.folder / "figures"
        folder.mkdir(exist_ok=True)
        x, y = first_images(trainer, 64)
        model.to(x.device)
        for name, picture in pictures.overview(model, x, y).items():
            picture.image().save(folder / f"{name}.png")


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
