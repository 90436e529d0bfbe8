"""Allocations of SLURM as a launcher sees them: jobs of SLURM for one or several of a sweep."""

import shutil
import signal
from pathlib import Path
from time import monotonic
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError

from vaelab.errors import UserError
from vaelab.sweeps.engines.remote import Lost
from vaelab.sweeps.engines.slurm_commands import is_queued
from vaelab.sweeps.engines.slurm_worker import RequeuingWorker
from vaelab.sweeps.fork_server import Start
from vaelab.sweeps.process import Order
from vaelab.sweeps.worker import end_file
from vaelab.training.json_files import read_json_or_nothing

SELDOM = 20.0
"""Seconds between two calls of squeue for a job."""
WAIT = 15
"""Calls that look for the result file of an ended job, which a slow file system may show late."""


class Allocation:
    """A job of SLURM for one or several jobs of the sweep, submitted by submitit.

    Args:
        executor: Submits it, with files in a folder of its own.
        resources: Its submitit parameters, by its first job.
        gpus: GPUs of each of its jobs.
        start: How several jobs start, see `Slurm`.

    Attributes:
        orders: The jobs.
        job: Submitit's job, once it was submitted.
        refused: Why SLURM refused it, or empty.
    """

    def __init__(
        self,
        executor: submitit.AutoExecutor,
        resources: dict[str, Any],
        gpus: int,
        start: Start,
    ) -> None:
        self.executor, self.resources = executor, resources
        self.gpus, self.process_start = gpus, start
        self.orders: list[Order] = []
        self.wanted: set[Path] = set()  # logs of the jobs that have not ended
        self.cancelled: set[Path] = set()
        self.job: submitit.Job[dict[Path, int]] | None = None
        self.refused = ""

    def is_open(self) -> bool:
        """True until it is submitted."""
        return self.job is None and not self.refused

    def can_take(self, resources: dict[str, Any], gpus: int) -> bool:
        """True if it is open and was made for a job with these parameters but the name."""
        alike = {**resources, "name": ""} == {**self.resources, "name": ""}
        return self.is_open() and alike and gpus == self.gpus

    def add(self, order: Order) -> None:
        """Adds a job."""
        self.orders.append(order)
        self.wanted.add(order.log)

    def remove(self, order: Order) -> None:
        """Notes the end of a job; after the last one deletes submitit's files."""
        self.wanted.discard(order.log)
        if not self.wanted:
            shutil.rmtree(self.executor.folder, ignore_errors=True)

    def submit(self) -> None:
        """Submits it, with SIGINT blocked, unless that was tried before; UserError if refused."""
        if not self.is_open():
            return
        name = self.resources["name"]
        if others := len(self.orders) - 1:
            name = f"{name}_and_{others}"
        self.executor.update_parameters(**self.resources | {"name": name})
        # Ctrl-C reaches all processes of the terminal, and only the launcher may act on it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.job = self.executor.submit(
                RequeuingWorker(self.orders, self.gpus, self.process_start)
            )
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            last = str(error).strip().splitlines()[-1]
            self.refused = f"SLURM does not take {name}: {last}"
            raise UserError(self.refused) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def cancel(self, order: Order) -> None:
        """Notes that a job is no longer wanted; cancels all in SLURM if none is."""
        self.cancelled.add(order.log)
        if self.job and self.wanted <= self.cancelled:
            self.job.cancel(check=False)


class SlurmTask:
    """A job in an allocation of SLURM.

    Args:
        allocation: The allocation.
        order: The job.
        accounts: True if SLURM keeps accounts of ended jobs, so that submitit can ask for them.
            Without accounts submitit would print three warnings at each question.
    """

    def __init__(self, allocation: Allocation, order: Order, accounts: bool) -> None:
        self.allocation, self.order, self.accounts = allocation, order, accounts
        self.looks, self.patience = 0, WAIT
        self.queued, self.asked = True, monotonic()

    def has_ended(self, job: submitit.Job[dict[Path, int]]) -> bool:
        """True if an allocation has ended, by accounts, else by `squeue` or its result file.

        `squeue` is run at most once in SELDOM seconds.
        """
        if self.accounts:
            return job.done()
        if self.queued and monotonic() - self.asked >= SELDOM:
            self.queued, self.asked = is_queued(job.job_id), monotonic()
        return not self.queued or job.paths.result_pickle.exists()

    def result(self) -> int | None:
        """Returns the job's exit code, None until it is known; raises Lost if none will come.

        Submits its allocation if that was not done. A result file may appear late on a network file
        system, so it is looked for in WAIT calls.
        """
        self.allocation.submit()
        if (job := self.allocation.job) is None:
            raise Lost(self.allocation.refused)
        code = read_json_or_nothing(end_file(self.order)).get("exit")
        if code is not None or not self.has_ended(job):
            return code
        if not job.paths.result_pickle.exists():
            self.looks += 1
            if self.looks < self.patience:
                return None
            printed = job.stderr() or ""
            state = job.state if self.accounts else "one without a result"
            raise Lost(f"{printed}\nSLURM: job {job.job_id} ended as {state}")
        try:
            return job.result()[self.order.log]
        except (FailedJobError, UncompletedJobError) as error:
            rule = "-" * 22
            raise Lost(str(error).partition(rule)[2].rpartition(rule)[0] or str(error)) from error

    def cancel(self) -> None:
        """Cancels the job, and in SLURM if no other of its allocation is wanted.

        No longer waits for its result file.
        """
        self.patience = 0
        self.allocation.cancel(self.order)
