"""From the overrides of a job to its folder and its command, checked before anything starts."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vaelab.commands import cli
from vaelab.runs import comparability, naming, resume
from vaelab.sweeps.job import Job

OURS = (
    *("hydra.sweep", "hydra.sweeper", "hydra/sweeper", "hydra.launcher", "hydra/launcher"),
    *("hydra.mode", "hydra.run"),
)
"""Hydra's settings that are of the sweep and not of its jobs."""


class Planner:
    """Makes jobs of overrides.

    Args:
        config: Hydra's configuration of the whole sweep.
        loader: Composes the configuration of a job.
        task: What the command runs; its `check`, if it has one, is given every configuration.
    """

    def __init__(self, config: DictConfig, loader: ConfigLoader, task: TaskFunction) -> None:
        self.config = config
        self.loader = loader
        self.check = getattr(task, "check", None)
        self.folder = Path(config.hydra.sweep.dir)
        given = OmegaConf.to_container(config.hydra.overrides.task)
        params = OmegaConf.select(config, "hydra.sweeper.params") or {}
        given = [*(f"{name}={value}" for name, value in params.items()), *given]  # type: ignore[misc]
        parsed = OverridesParser.create().parse_overrides(given)
        self.axes = {o.get_key_element() for o in parsed if o.is_sweep_override()}
        self.folders: dict[Path, list[str]] = {}

    def __call__(
        self, overrides: list[str], environment: dict[str, str] | None = None, name: str = ""
    ) -> Job:
        """A job, with its configuration composed and checked.

        Args:
            overrides: Of the command line, without those for Hydra.
            environment: Variables for its process.
            name: Of its folder; by itself what tells it from the other jobs.

        Raises:
            UserError: If the configuration is wrong, or the folder holds another run.
        """
        swept = [o for o in overrides if o.partition("=")[0] in self.axes]
        composed = self.loader.load_sweep_config(self.config, overrides)
        name = name or naming.label(swept) or "run"
        folder = self.place(composed, name, overrides)
        with running(composed, folder):
            task = without_hydra(composed)
            if self.check:
                self.check(task)
            again = bool(task.get("rerun")) or task.get("ckpt") is not None
            if not again and resume.started(folder):
                resume.check(folder, folder, task)
            compared = comparability.key(comparability.part(task))
        trainer = task.get("trainer") or {}
        job = Job(
            overrides=overrides,
            swept=dict(o.split("=", 1) for o in swept),
            folder=folder,
            accelerator=str(trainer.get("accelerator", "auto")),
            devices=count(trainer.get("devices", 1)),
            again=again,
            environment=environment or {},
            compared=compared,
        )
        job.seen_failure = job.failure.get("mark")
        if not again and job.finished:
            job.state = "done"
        return job

    def place(self, composed: DictConfig, name: str, overrides: list[str]) -> Path:
        """The folder of a job, which no other job of the sweep has."""
        folder = self.sub(composed, name)
        if self.folders.setdefault(folder, overrides) != overrides:
            folder = self.sub(composed, f"{name}_{naming.digest(overrides)}")
            self.folders[folder] = overrides
        return folder

    def sub(self, composed: DictConfig, name: str) -> Path:
        job = composed.hydra.job
        with read_write(job), open_dict(job):
            job.id, job.num = name, len(self.folders)
        with running(composed, self.folder):
            return self.folder / str(composed.hydra.sweep.subdir)

    def command(self, job: Job) -> list[str]:
        """The command of a job's process."""
        kept = [o for o in self.config.hydra.overrides.hydra if not is_ours(o)]
        return [
            *cli.process(),
            *cli.config_folders(self.config.hydra),
            *job.overrides,
            *kept,
            "hydra.mode=RUN",
            f"hydra.run.dir={naming.quote(str(job.folder))}",
        ]


def is_ours(override: str) -> bool:
    key = override.lstrip("+~").partition("=")[0]
    return any(key == ours or key.startswith((f"{ours}.", f"{ours}@")) for ours in OURS)


def without_hydra(composed: DictConfig) -> DictConfig:
    """The configuration that the task is given."""
    task = composed.copy()
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


class running:  # noqa: N801
    """As if the job with this configuration ran in this folder, for what looks at `HydraConfig`."""

    def __init__(self, composed: DictConfig, folder: Path) -> None:
        self.composed, self.folder = composed, folder

    def __enter__(self) -> None:
        self.before = HydraConfig.instance().cfg
        runtime = self.composed.hydra.runtime
        with read_write(runtime), open_dict(runtime):
            runtime.output_dir = os.path.abspath(self.folder)
        HydraConfig.instance().set_config(self.composed)

    def __exit__(self, *_: Any) -> None:
        HydraConfig.instance().cfg = self.before


def count(devices: int | str | Sequence[int]) -> int:
    """How many devices `trainer.devices` asks for; -1 for all."""
    if isinstance(devices, int):
        return devices
    if isinstance(devices, str):
        return int(devices) if devices.lstrip("-").isdigit() else -1
    return len(devices)
