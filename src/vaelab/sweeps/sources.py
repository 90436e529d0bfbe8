"""Which jobs a sweep has."""

from collections.abc import Callable, Sequence
from typing import Protocol

from vaelab.sweeps.job import Job

Plan = Callable[..., Job]


class Source(Protocol):
    """Where a sweep gets its jobs from, as it goes."""

    def first(self, plan: Plan) -> list[Job]:
        """All jobs that are known before the first one starts; `plan` makes and checks one."""

    def more(self, free: int) -> list[Job]:
        """Jobs to be added when nothing waits and `free` could start; none at the end."""

    def ended(self, job: Job) -> None:
        """Learns what came of one, and may call it failed yet."""

    def to_come(self) -> int:
        """How many more jobs there will be, beside those that are known."""

    def summary(self) -> list[str]:
        """Lines for the end; without any, the best `val/elbo` is named."""


class Grid:
    """Jobs that are all known at the start.

    Args:
        overrides: Those of each job.
    """

    def __init__(self, overrides: Sequence[Sequence[str]]) -> None:
        self.overrides = overrides
        self.jobs: list[Job] = []

    def first(self, plan: Plan) -> list[Job]:
        self.jobs = [plan(list(overrides)) for overrides in self.overrides]
        return self.jobs

    def more(self, free: int) -> list[Job]:
        return []

    def ended(self, job: Job) -> None:
        pass

    def to_come(self) -> int:
        return 0

    def summary(self) -> list[str]:
        return []
