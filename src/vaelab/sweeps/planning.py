"""From the overrides of a job to its folder and its command, checked before any job starts."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vaelab.commands import command_lines, config_folders, earlier_settings
from vaelab.errors import DamagedFileError, UserError
from vaelab.runs import comparability, naming, resume
from vaelab.sweeps.job import Job

OURS = (
    *("hydra.sweep", "hydra.sweeper", "hydra/sweeper", "hydra.launcher", "hydra/launcher"),
    *("hydra.mode", "hydra.run"),
)
"""Settings of Hydra that belong to the sweep and are not passed to its jobs."""


class Planner:
    """Composes, checks and returns jobs from overrides, without starting them.

    Args:
        config: Hydra's configuration of the whole sweep.
        loader: Composes the configuration of a job.
        task: The function that the command runs; its attribute `check`, if any, checks each
            configuration.
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
        """Composes the configuration of a job, checks it and returns the job; reserves its folder.

        The state of the job is done if its folder holds the finished run, and failed if files of
        it are damaged.

        Args:
            overrides: Overrides of the command line, without those of Hydra.
            environment: Variables for the job's process, beside those of `hydra.job.env_set`, which
                are set from its start: some are read before Hydra sets them.
            name: Name of the run folder; default: the overrides that differ between jobs.

        Raises:
            UserError: If the configuration is wrong, or the folder holds another run.
        """
        swept = self.swept(overrides)
        composed = self.loader.load_sweep_config(self.config, overrides)
        name = name or naming.overrides_label(swept) or "run"
        folder = self.reserve_folder(composed, name, overrides)
        with hydra_config_of(composed, folder):
            task = without_hydra(composed)
            if self.check:
                self.check(task)
            again = bool(task.get("rerun")) or task.get("ckpt") is not None
            damage = "" if again else find_damage(folder, task)
            compared = comparability.scale_key(comparability.compared_config(task))
            variables = OmegaConf.to_container(composed.hydra.job.env_set, resolve=True)
        trainer = task.get("trainer") or {}
        job = Job(
            overrides=overrides,
            swept=dict(o.split("=", 1) for o in swept),
            folder=folder,
            sweep=self.folder,
            accelerator=str(trainer.get("accelerator", "auto")),
            devices=device_count(trainer.get("devices", 1)),
            again=again,
            environment=variables | (environment or {}),  # type: ignore[operator, arg-type]
            compared=compared,
        )
        job.seen_failure, job.seen_results = job.failure.get("mark"), job.results_mark()
        if damage:
            job.state, job.error = "failed", damage
        elif not again and job.is_finished:
            job.state = "done"
        return job

    def swept(self, overrides: Sequence[str]) -> list[str]:
        """Returns those overrides that differ between jobs."""
        return [o for o in overrides if o.partition("=")[0] in self.axes]

    def reserve_folder(self, composed: DictConfig, name: str, overrides: list[str]) -> Path:
        """Reserves and returns a job's folder, with a digest if it is taken; changes `composed`.

        See `compose_folder` for what it sets in the configuration.

        Raises:
            UserError: If `hydra.sweep.subdir` gives another job the same folder all the same.
        """
        folder = self.compose_folder(composed, name)
        if self.folders.setdefault(folder, overrides) != overrides:
            folder = self.compose_folder(composed, f"{name}_{naming.overrides_digest(overrides)}")
            if (other := self.folders.setdefault(folder, overrides)) != overrides:
                both = " and ".join(" ".join(self.swept(o)) for o in (other, overrides))
                raise UserError(
                    f"hydra.sweep.subdir: gives the same folder, {folder}, to {both}; it has to "
                    "have all settings that differ between jobs"
                )
        return folder

    def compose_folder(self, composed: DictConfig, name: str) -> Path:
        """Returns a job's folder by `hydra.sweep.subdir`; sets id and number in its configuration.

        Sets `hydra.runtime.output_dir`, too, to the sweep folder.
        """
        job = composed.hydra.job
        with read_write(job), open_dict(job):
            job.id, job.num = name, len(self.folders)
        with hydra_config_of(composed, self.folder):
            return self.folder / str(composed.hydra.sweep.subdir)

    def command(self, job: Job) -> list[str]:
        """Returns the arguments, program first, of the process that runs a job."""
        kept = [o for o in self.config.hydra.overrides.hydra if not is_sweep_setting(o)]
        return [
            *command_lines.process_argv(),
            *config_folders.config_dir_flags(self.config.hydra),
            *job.overrides,
            *kept,
            "hydra.mode=RUN",
            f"hydra.run.dir={naming.quote(str(job.folder))}",
        ]


def find_damage(folder: Path, task: DictConfig) -> str:
    """Returns what is wrong with the files of a job's earlier run, empty if nothing is.

    Raises:
        UserError: If the folder holds a run with other settings.
    """
    try:
        if resume.has_run(folder):
            today = partial(earlier_settings.settings_today, folder)
            resume.check_same_run(folder, folder, task, today)
    except DamagedFileError as error:
        return str(error)
    return ""


def is_sweep_setting(override: str) -> bool:
    """True if an override of Hydra's settings is of the sweep and not of its jobs."""
    key = override.lstrip("+~").partition("=")[0]
    return any(key == ours or key.startswith((f"{ours}.", f"{ours}@")) for ours in OURS)


def without_hydra(composed: DictConfig) -> DictConfig:
    """Returns a copy of a composed configuration without its `hydra` node."""
    task = composed.copy()
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


class hydra_config_of:  # noqa: N801
    """Context manager that sets the global `HydraConfig` to a job's configuration, and restores it.

    It also writes the folder into `hydra.runtime.output_dir` of that configuration.
    """

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


def device_count(devices: int | str | Sequence[int]) -> int:
    """Returns how many devices `trainer.devices` asks for; -1 for all and any text but a number."""
    if isinstance(devices, int):
        return devices
    if isinstance(devices, str):
        return int(devices) if devices.lstrip("-").isdigit() else -1
    return len(devices)
