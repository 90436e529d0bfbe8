"""Where the processes of a sweep run: on this machine, in a Ray cluster, or under SLURM."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from omegaconf import OmegaConf

from vaelab.errors import UserError
from vaelab.sweeps.job import Job
from vaelab.sweeps.process import Order


class Handle(Protocol):
    """A job that was given to an engine.

    Attributes:
        where: The device that it has, for the screen; empty until it has begun.
    """

    where: str

    def poll(self) -> int | None:
        """The exit code of the job, negative for a signal; None until it has ended."""

    def stop(self) -> None:
        """Asks it to write a checkpoint and stop, or not to begin."""

    def kill(self) -> None:
        """Ends it at once."""


class Engine(Protocol):
    """Runs jobs."""

    def expect(self, jobs: int) -> None:
        """Learns how many jobs there are, before the first."""

    def check(self, job: Job) -> None:
        """Raises a UserError if this job could never start here."""

    def free(self, job: Job | None = None) -> int:
        """How many more jobs, like this one, could start now."""

    def start(self, job: Job, order: Order) -> Handle:
        """Starts a job; what it takes is free again once its `poll` has given an exit code."""

    def close(self) -> None:
        """Leaves nothing behind."""


def engine(name: str, settings: Mapping[str, Any]) -> Engine:
    """The engine of that name, such as `vaelab.sweeps.engines.local.Local`.

    Raises:
        UserError: If a setting is wrong, or what the engine needs is not installed.
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
    plain = OmegaConf.to_container(OmegaConf.create(dict(settings)), resolve=True)
    assert isinstance(plain, dict)
    validation.check_call(target, plain, "hydra.launcher.")
    return target(**{str(name): value for name, value in plain.items()})
