"""The folder of a training run: its earlier results, checkpoint to resume, lock and config."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from vaelab.commands import cli, command_lines, config_folders
from vaelab.commands.error_messages import user_message
from vaelab.elbo import ELBO
from vaelab.errors import NotFiniteError, UserError
from vaelab.runs import naming, resume
from vaelab.runs.folder import COMPOSED, FAILURE, read_config
from vaelab.runs.screen import relative_path, shell_path
from vaelab.training.callbacks.checkpoint import load_checkpoint
from vaelab.training.checkpoint_format import check_architecture

LEAVING = 60.0
"""Seconds to wait for the lock, while another process stops in the same folder."""


class RunFolder:
    """The folder that Hydra made for a training run, with its console and lock.

    Args:
        cfg: The composed configuration.

    Attributes:
        choices: The choice of each group of configurations.
        overrides: The overrides of the command line.
        data_folder: The folder of data sets and their classifiers.
        console: The console, silent in all processes but the first.
    """

    def __init__(self, cfg: DictConfig) -> None:
        hydra_cfg = HydraConfig.get()
        self.cfg = cfg
        self.choices: dict[str, str] = dict(hydra_cfg.runtime.choices)
        self.overrides = list(hydra_cfg.overrides.task)
        self.folder = Path(hydra_cfg.runtime.output_dir)
        self.data_folder = Path(cfg.paths.data)
        self.console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.console.quiet = os.environ.get("LOCAL_RANK", "0") != "0"

    def say(self, text: str) -> None:
        """Prints a line in the first process; does nothing in the others."""
        self.console.print(text, markup=False)

    @property
    def path(self) -> Path:
        """The folder as the user would type it: relative to the working folder if below it."""
        return relative_path(self.folder)

    @property
    def best(self) -> Path:
        """The path of the best checkpoint; the file need not exist."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The path of the last checkpoint; the file need not exist."""
        return self.folder / "checkpoints" / "last.ckpt"

    def finished_elbo(self) -> float | None:
        """Returns and prints a finished run's val/elbo; None if unfinished or with rerun or ckpt.

        Raises:
            UserError: If the folder holds a run with other settings.
        """
        found = resume.finished_elbo(self.folder)
        if found is None or self.cfg.rerun or self.cfg.ckpt is not None:
            return None
        resume.check_same_run(self.folder, self.path, self.cfg)
        shown = shell_path(self.folder)
        self.say(f"{shown} is finished, with val/elbo {found:.3f}; rerun=true starts it over")
        return found

    def checkpoint_to_resume(self, model: ELBO) -> Path | None:
        """Returns the checkpoint to go on from, by `ckpt` or as left here; None to start anew.

        Without `ckpt` it is the last of an earlier start in this folder, unless rerun=true. Says
        so then; with `ckpt` warns if its run divided the images in another way.

        Raises:
            UserError: If the checkpoint does not exist, is of another architecture, or already at
                the requested length; or if the folder holds a run with other settings.
        """
        ckpt = self.cfg.ckpt
        if ckpt is None:
            if self.cfg.rerun or not self.last.exists():
                return None
            resume.check_same_run(self.folder, self.path, self.cfg)
            state = load_checkpoint(self.last)
            check_architecture(model.state_dict(), state["state_dict"])
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
        check_architecture(model.state_dict(), state["state_dict"])
        self.warn_of_other_images(path)
        done = state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        for name, count in (("max_epochs", done), ("max_steps", state["global_step"])):
            if 0 < self.cfg.trainer[name] <= count:
                raise UserError(
                    f"{path} is of {count:,} {name[4:]} already; "
                    f"give a larger trainer.{name} than {self.cfg.trainer[name]:,}"
                )
        return path

    def warn_of_other_images(self, checkpoint: Path) -> None:
        """Warns if a checkpoint's run divided its images otherwise; skips one outside runs."""
        earlier = checkpoint.absolute().parent.parent
        if not (earlier / COMPOSED).exists():
            return
        before, now = (resume.split_settings(c) for c in (read_config(earlier), self.cfg))
        if changed := [f"{name}={now[name]}" for name in now if now[name] != before.get(name)]:
            rank_zero_warn(
                f"{' '.join(changed)} divides the images in another way than the checkpoint's run; "
                "what is tested may have been trained on"
            )

    def acquire_lock(self) -> None:
        """Locks the folder against other processes, waiting 60 s at most; first process only.

        The lock holds until `release_lock` or the end of the process.

        Raises:
            UserError: If another process still holds the lock.
        """
        if self.console.quiet:
            return
        path = self.folder / COMPOSED.with_name("lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(path, is_singleton=True)  # this process may lock it again
        try:
            with suppress(NotImplementedError):  # a file system without locks
                self.lock.acquire(timeout=LEAVING)
        except Timeout as error:
            raise UserError(f"{self.path}: another process is working in this folder") from error

    def release_lock(self) -> None:
        """Unlocks the folder; only in the first process, and after `acquire_lock`."""
        self.lock.release()

    @contextmanager
    def discard_if_refused(self, trainer: Trainer) -> Iterator[None]:
        """Context manager: deletes a new folder at a user's error before the first step.

        Only what this start of the run has made is deleted, in the first process, which holds the
        lock. A folder with a loss that is not finite stays, for it is marked as failed.
        """
        try:
            yield
        except Exception as error:
            refused = user_message(error, "train") and not isinstance(error, NotFiniteError)
            is_new = self.folder in cli.missing_paths
            if refused and is_new and trainer.global_step == 0 and not self.console.quiet:
                self.release_lock()
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def write_config(self) -> None:
        """Writes the configuration; deletes earlier results, with rerun all outputs of the run.

        Does nothing but in the first process. Writes the overrides, too. The results are
        results.json and failure.json.
        """
        if self.console.quiet:  # not the first process
            return
        if self.cfg.rerun:
            resume.delete_outputs(self.folder)
        for name in ("results.json", FAILURE):  # these mark an end
            (self.folder / name).unlink(missing_ok=True)
        composed = self.folder / COMPOSED
        composed.parent.mkdir(exist_ok=True)
        OmegaConf.save(self.cfg, composed)
        OmegaConf.save(OmegaConf.create(self.overrides), composed.with_name("overrides.yaml"))

    def checkpoint_note(self) -> str:
        """Returns words on the last checkpoint: its step, or that there is none."""
        if not self.last.exists():
            return "there is no checkpoint yet"
        return f"the checkpoint of step {load_checkpoint(self.last)['global_step']:,} is kept"

    def resume_command(self, *changes: str) -> str:
        """Returns the command line that resumes this run, with these overrides changed."""
        changed = {"ckpt", "rerun", *map(naming.setting_name, changes)}
        kept = [o for o in self.overrides if naming.setting_name(o) not in changed]
        folder = f"hydra.run.dir={naming.quote_if_needed(str(self.path))}"
        start = [
            *command_lines.program_words(),
            *config_folders.config_dir_flags(HydraConfig.get()),
        ]
        return shlex.join([*start, *kept, *changes, folder, "ckpt=last"])
