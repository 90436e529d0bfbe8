"""The folder of a training run: what an earlier start left there, its lock, and how to continue."""

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from vaelab.commands import cli
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.runs import naming, resume
from vaelab.runs.folder import COMPOSED
from vaelab.runs.screen import here, pasted
from vaelab.training.callbacks.checkpoint import load as load_checkpoint
from vaelab.training.checkpoint_format import check_architecture

LEAVING = 60.0
"""Seconds for which to wait for a process that is stopping in the same folder."""


class RunFolder:
    """The folder that Hydra made for a run.

    Args:
        cfg: The composed configuration.

    Attributes:
        choices: The choice of each group of configurations.
        overrides: Those of the command line.
        console: Silent in the processes beside the first.
    """

    def __init__(self, cfg: DictConfig) -> None:
        hydra_cfg = HydraConfig.get()
        self.cfg = cfg
        self.choices: dict[str, str] = dict(hydra_cfg.runtime.choices)
        self.overrides = list(hydra_cfg.overrides.task)
        self.folder = Path(hydra_cfg.runtime.output_dir)
        self.console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.console.quiet = os.environ.get("LOCAL_RANK", "0") != "0"

    def say(self, text: str) -> None:
        """Prints a line in the first process."""
        self.console.print(text, markup=False)

    @property
    def path(self) -> Path:
        """The folder as the user would type it."""
        return here(self.folder)

    @property
    def best(self) -> Path:
        """The best checkpoint; there need not be one."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The last checkpoint; there need not be one."""
        return self.folder / "checkpoints" / "last.ckpt"

    def result(self) -> float | None:
        """The `val/elbo` of this very run, if it has been run to its end already.

        Raises:
            UserError: If the run in the folder is another one.
        """
        found = resume.result(self.folder)
        if found is None or self.cfg.rerun or self.cfg.ckpt is not None:
            return None
        resume.check(self.folder, self.path, self.cfg)
        shown = pasted(self.folder)
        self.say(f"{shown} is finished, with val/elbo {found:.3f}; rerun=true starts it over")
        return found

    def checkpoint_to_resume(self, model: ELBO) -> Path | None:
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

    def release(self) -> None:
        """Lets other processes into the folder again."""
        self.lock.release()

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
