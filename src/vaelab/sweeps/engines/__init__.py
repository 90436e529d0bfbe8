"""Engines, which start the processes of jobs: on this machine, in a Ray cluster or under SLURM."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from vaelab.errors import UserError
from vaelab.sweeps.job import Job
from vaelab.sweeps.process import Order


class Handle(Protocol):
    """Interface of a job that an engine has started or queued.

    Attributes:
        where: The device of the job, as the screen shows it; empty until the job has started.
    """

    where: str

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal, None before; frees resources at the end."""

    def stop(self) -> None:
        """Asks the job to write a checkpoint and exit, or not to start; does not wait."""

    def kill(self) -> None:
        """Kills the job, or asks for that on its node, without a checkpoint; does not wait."""


class Engine(Protocol):
    """Interface of an engine, which starts jobs and knows how many more have room."""

    def prepare(self, jobs: int) -> None:
        """Called before jobs are composed, with how many there may be: begins what takes long."""

    def expect(self, jobs: int) -> None:
        """Called once before the first job: tells the engine how many jobs are expected."""

    def check_job(self, job: Job) -> None:
        """Raises UserError if this job could never start on this engine."""

    def count_startable(self, job: Job | None = None) -> int:
        """Returns how many more jobs, like this one if it is given, could start now."""

    def start(self, job: Job, order: Order) -> Handle:
        """Starts or queues a job and takes its resources until its handle's `poll` sees its end.

        May add variables to `order.environment`.
        """

    def close(self) -> None:
        """Called once at the end: releases everything that the engine holds."""


def build_engine(name: str, settings: Mapping[str, Any]) -> Engine:
    """Imports the engine class of a dotted name, checks its settings and returns an instance.

    The name is for example `vaelab.sweeps.engines.local.Local`.

    Raises:
        UserError: If a setting is wrong, or a package that the engine needs is not installed.
    """
    from vaelab.runs import validation

    module, _, name = name.rpartition(".")
    try:
        target = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        extra = module.rpartition(".")[2]
        raise UserError(
            f'hydra/launcher={extra} needs {error.name}: pip install -e ".[{extra}]"'
        ) from error
    return validation.build_checked(target, settings, "hydra.launcher.")
