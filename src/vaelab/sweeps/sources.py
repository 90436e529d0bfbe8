"""Sources of jobs: the interface that says which jobs a sweep has, and a fixed list."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Protocol

from hydra.core.override_parser.types import Override

from vaelab.errors import UserError
from vaelab.sweeps.job import Job

Plan = Callable[..., Job]
"""Composes and checks a job of overrides, see `vaelab.sweeps.planning.Planner.__call__`."""


class Source(Protocol):
    """Interface of what says which jobs a sweep has; called by `SweepRunner`."""

    @property
    def most_jobs(self) -> int:
        """How many jobs there are at most, known before any is composed."""

    def first_jobs(self, plan: Plan) -> list[Job]:
        """Returns all jobs known before the first one starts; `plan` composes and checks a job."""

    def next_jobs(self, free: int) -> list[Job]:
        """Called while no job waits and `free` could start: returns new jobs, or [] for now."""

    def record_end(self, job: Job) -> None:
        """Called when a job is done, failed or stopped: records it; may set its state to failed."""

    def jobs_to_come(self) -> int:
        """Returns how many jobs there will be beside those returned so far."""

    def summary_lines(self) -> list[str]:
        """Returns lines to print at the end; if empty, the best `val/elbo` is printed."""


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """Returns the overrides of each job of a grid, in which the last setting changes fastest.

    Of a setting that is given twice the last value counts.

    Raises:
        UserError: If a setting has an interval, of which only a search takes values.
    """
    choices: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values = [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            values = list(override.sweep_string_iterator())
        else:
            raise UserError(
                f"{override.input_line}: an interval is for a search, hydra/sweeper=optuna; a grid "
                f"takes values, as in {key}=1,2 or {key}=range(1,5)"
            )
        choices[key] = [f"{key}={value}" for value in values]
    return [list(job) for job in product(*choices.values())]


class FixedJobs:
    """A source whose jobs are all known at the start, such as those of a grid.

    Args:
        overrides: The overrides of each job.
    """

    def __init__(self, overrides: Sequence[Sequence[str]]) -> None:
        self.overrides = overrides
        self.jobs: list[Job] = []

    @property
    def most_jobs(self) -> int:
        """The number of jobs."""
        return len(self.overrides)

    def first_jobs(self, plan: Plan) -> list[Job]:
        """Composes and checks a job by `plan` for each list of overrides; keeps and returns all."""
        self.jobs = [plan(list(overrides)) for overrides in self.overrides]
        return self.jobs

    def next_jobs(self, free: int) -> list[Job]:
        """Returns no jobs: all were returned at the start."""
        return []

    def record_end(self, job: Job) -> None:
        """Does nothing."""

    def jobs_to_come(self) -> int:
        """Returns 0: all jobs were returned at the start."""
        return 0

    def summary_lines(self) -> list[str]:
        """Returns no lines, so that the best `val/elbo` is printed."""
        return []
