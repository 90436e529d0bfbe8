"""The folder of a training run: its earlier results, checkpoint to resume, lock and config."""

import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from omegaconf import DictConfig
from rich.console import Console

from vaelab.commands import cli, command_lines, config_folders, earlier_settings, stopping
from vaelab.commands.error_messages import user_message
from vaelab.errors import NotFiniteError, UserError
from vaelab.files.atomic import delete_partial_files, explain_write_errors, make_folder
from vaelab.runs import naming, resume
from vaelab.runs.folder import COMPOSED, EVALUATION, FAILURE, write_config
from vaelab.runs.screen import printable, relative_path, shell_path

RUN_MODE = "hydra.mode=RUN"
"""Override for a single run, where the configuration would make it a sweep."""
LEAVING = 60.0
"""Seconds to wait for the lock, while another process stops in the same folder."""


class RunFolder:
    """The folder of a training run, with its console and lock.

    Args:
        cfg: The composed configuration, without `hydra`.
        hydra_cfg: Its part `hydra`, with the folder, overrides and choices of groups.
        program: The words that start the command that the run is shown as.
        is_new: Whether the folder was not there before this start of the run.
        is_job: Whether the command line had hydra.mode=RUN, as that of a sweep's job.

    Attributes:
        choices: The choice of each group of configurations.
        overrides: The overrides of the command line.
        data_folder: The folder of data sets and their classifiers.
        console: The console, silent in all processes but the first.
    """

    def __init__(
        self,
        cfg: DictConfig,
        hydra_cfg: Any,
        program: Sequence[str],
        *,
        is_new: bool,
        is_job: bool = False,
    ) -> None:
        self.cfg = cfg
        self.choices: dict[str, str] = dict(hydra_cfg.runtime.choices)
        self.overrides = list(hydra_cfg.overrides.task)
        self.folder = Path(hydra_cfg.runtime.output_dir)
        self.program = [*program, *config_folders.config_dir_flags(hydra_cfg)]
        if is_job or hydra_cfg.mode == RunMode.MULTIRUN:  # an experiment may be a sweep
            self.program.append(RUN_MODE)
        self.is_new = is_new
        self.data_folder = Path(cfg.paths.data)
        self.console = Console(highlight=False, markup=False, soft_wrap=not sys.stdout.isatty())
        self.console.quiet = not stopping.is_first_process()
        self.before = {path: change_time(path) for path in (self.last, self.results)}

    @classmethod
    def of_command(cls, cfg: DictConfig) -> Self:
        """The folder that Hydra made for this process's command."""
        hydra_cfg = HydraConfig.get()
        is_new = Path(hydra_cfg.runtime.output_dir) in cli.missing_paths
        is_job = RUN_MODE in command_lines.typed_arguments  # Hydra's overrides always have it
        program = command_lines.program_words()
        return cls(cfg, hydra_cfg, program, is_new=is_new, is_job=is_job)

    def say(self, text: str) -> None:
        """Prints a line in the first process; does nothing in the others."""
        self.console.print(printable(text))

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

    @property
    def results(self) -> Path:
        """The path of the final results; the file need not exist."""
        return self.folder / "results.json"

    def finished_elbo(self) -> float | None:
        """Returns and prints a finished run's val/elbo; None if unfinished or with rerun or ckpt.

        Raises:
            UserError: If the folder holds a run with other settings.
        """
        if self.cfg.rerun or self.cfg.ckpt is not None:
            return None
        if (found := resume.finished_elbo(self.folder)) is None:
            return None
        self.check_same_run()
        shown = shell_path(self.folder)
        self.say(f"{shown} is finished, with val/elbo {found:.3f}; rerun=true starts it over")
        return found

    def check_same_run(self) -> None:
        """Raises UserError if the folder holds a run with other settings."""
        today = partial(earlier_settings.settings_today, self.folder)
        resume.check_same_run(self.folder, self.path, self.cfg, today)

    def acquire_lock(self) -> None:
        """Locks the folder against other processes, waiting 60 s at most; first process only.

        The lock holds until `release_lock` or the end of the process.

        Raises:
            UserError: If another process still holds the lock.
        """
        if self.console.quiet:
            return
        path = self.folder / COMPOSED.with_name("lock")
        make_folder(path.parent)
        self.lock = FileLock(path, is_singleton=True)  # this process may lock it again
        with explain_write_errors(path), suppress(NotImplementedError):  # there may be no locks
            try:
                self.lock.acquire(timeout=LEAVING)
            except Timeout as error:
                raise UserError(
                    f"{self.path}: another process is working in this folder"
                ) from error

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
            if refused and self.is_new and trainer.global_step == 0 and not self.console.quiet:
                self.release_lock()
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def write_config(self, anew: bool, keeps_best: bool = True) -> None:
        """Writes the configuration; deletes earlier results, with rerun all outputs of the run.

        Does nothing but in the first process. Writes the overrides, too. The results are
        results.json and failure.json. If the best checkpoint is chosen anew, it goes with its
        evaluation.json. A run that starts `anew`, from no checkpoint, also loses the curves of an
        earlier start, which was killed before its first checkpoint.
        """
        if self.console.quiet:  # not the first process
            return
        delete_partial_files(self.last.parent)  # the lock is held: nobody else writes there
        with explain_write_errors(self.path):
            if self.cfg.rerun:
                resume.delete_outputs(self.folder)
            elif anew and (self.folder / COMPOSED).exists():
                resume.delete_curves(self.folder)
            for name in ("results.json", FAILURE):  # these mark an end
                (self.folder / name).unlink(missing_ok=True)
            if not keeps_best:
                for path in (self.best, self.folder / EVALUATION):
                    path.unlink(missing_ok=True)
        write_config(self.folder, self.cfg, self.overrides)

    def resume_command(self, *changes: str) -> str:
        """Returns the command line that resumes this run, with these overrides changed."""
        return f"{self.command_here({'ckpt', 'rerun'}, *changes)} ckpt=last"

    def continuing_command(self) -> str:
        """Returns the command line that goes on with this one, after a stop at any moment.

        It resumes from a checkpoint of this run, or else begins as this command did; after the
        results were written, it measures what is left of `evaluate`.
        """
        if self.before[self.results] != change_time(self.results) is not None:
            return self.command_here({"ckpt", "rerun"})
        if self.before[self.last] != change_time(self.last) is not None:
            return self.resume_command()
        return self.command_here(set())

    def command_here(self, dropped: set[str], *added: str) -> str:
        """Returns this command line for this run folder, without and with some overrides.

        Args:
            dropped: Names of overrides to leave out.
            added: Overrides to add, in place of those of the same names.
        """
        dropped = dropped | set(map(naming.setting_name, added))
        kept = [o for o in self.overrides if naming.setting_name(o) not in dropped]
        folder = f"hydra.run.dir={naming.quote_if_needed(str(self.path))}"
        return shlex.join([*self.program, *kept, *added, folder])


def change_time(path: Path) -> int | None:
    """Returns when a file was last changed, in nanoseconds; None if there is no such file."""
    return path.stat().st_mtime_ns if path.exists() else None
