"""The SLURM engine: jobs submitted to SLURM by submitit."""

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import submitit
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from vaelab.errors import UserError, first_line
from vaelab.sweeps.engines.allocations import Allocation, SlurmTask
from vaelab.sweeps.engines.remote import RemoteHandle
from vaelab.sweeps.engines.slurm_commands import has_accounting
from vaelab.sweeps.fork_server import Start
from vaelab.sweeps.job import Job
from vaelab.sweeps.process import Order
from vaelab.sweeps.worker import (
    exchange_path,
)

LIMITS = 100
"""Number of time limits after which a job is no longer queued again."""
SIGNAL_DELAY = 90
"""Seconds before its time limit at which submitit lets SLURM signal a job, by default."""


class Slurm:
    """Engine that submits jobs to SLURM, whose nodes see the same folders and the same Python.

    A job that reaches its time limit writes a checkpoint, is queued again and continues. So does
    one that SLURM stops and queues again, as at preemption or `scontrol requeue`. Short jobs may
    share an allocation, which is a job of SLURM for several jobs of the sweep.

    Args:
        cluster: `slurm`, or `local` to try it out on this machine without SLURM.
        n_jobs: Jobs that are submitted at once, running or queued.
        jobs_per_allocation: Jobs of an allocation: one after the other, or side by side if it has
            GPUs for more than one, by `parameters`.
        start: How the jobs of an allocation for several start: `fork` of a server that has imported
            torch, or `fresh`; auto: `fork`.
        partition: SLURM partition; default: the cluster's own.
        timeout_min: Time limit of each allocation, in minutes.
        cpus_per_job: CPU cores of each job; auto: its `trainer.devices`.
        gpus_per_job: GPUs of each job; auto: its `trainer.devices` if `trainer.accelerator` is gpu.
        mem_gb: Memory of each job in GB; default: the cluster's own.
        parameters: Further parameters for submitit, such as `slurm_account`.
    """

    def __init__(
        self,
        *,
        cluster: Literal["slurm", "local"],
        n_jobs: PositiveInt,
        jobs_per_allocation: PositiveInt,
        start: Start,
        partition: str | None,
        timeout_min: PositiveInt,
        cpus_per_job: PositiveInt | Literal["auto"],
        gpus_per_job: NonNegativeInt | Literal["auto"],
        mem_gb: PositiveFloat | None,
        parameters: dict[str, Any],
    ) -> None:
        self.cluster, self.n_jobs, self.parameters = cluster, n_jobs, parameters
        self.cpus_per_job, self.gpus_per_job = cpus_per_job, gpus_per_job
        self.jobs_per_allocation = min(jobs_per_allocation, n_jobs)
        self.process_start = start
        self.latest: Allocation | None = None
        self.shared = {
            "timeout_min": timeout_min,
            "mem_gb": mem_gb,
            "slurm_partition": partition,
            "nodes": 1,
            "tasks_per_node": 1,
        }
        self.submitted = 0
        self.accounts = cluster != "slurm" or has_accounting()
        try:
            self.trial = self.build_executor(Path(tempfile.gettempdir()))
        except RuntimeError as error:
            raise UserError(
                "hydra/launcher=slurm: there is no srun on this machine; "
                "hydra.launcher.cluster=local tries it out without SLURM"
            ) from error

    def build_executor(self, folder: Path) -> submitit.AutoExecutor:
        """Returns a submitit executor with files in this folder; RuntimeError without `srun`."""
        limits = {"slurm_max_num_timeout": LIMITS, "local_max_num_timeout": LIMITS}
        return submitit.AutoExecutor(folder, cluster=self.cluster, **limits)

    def requested_resources(self, job: Job) -> dict[str, Any]:
        """Returns the submitit parameters of a job: name, CPU cores, GPUs, limits and `parameters`.

        Raises UserError as `requested_gpus` does.
        """
        return {
            **self.shared,
            "name": job.name,
            "cpus_per_task": self.requested_cpus(job),
            "gpus_per_node": self.requested_gpus(job) or None,
            **self.parameters,
        }

    def requested_gpus(self, job: Job) -> int:
        """Returns how many GPUs a job requests.

        Raises:
            UserError: If the number of GPUs is needed and `trainer.devices` does not give it.
        """
        gpus = self.gpus_per_job
        if gpus == "auto":
            gpus = job.devices if job.accelerator in ("gpu", "cuda") else 0
        elif job.accelerator in ("cpu", "mps"):
            gpus = 0
        if gpus < 0:
            raise UserError(
                f"trainer.devices={job.devices}: how many? hydra.launcher.gpus_per_job=..."
            )
        return gpus

    def requested_cpus(self, job: Job) -> int:
        """Returns how many CPU cores a job requests."""
        return max(job.devices, 1) if self.cpus_per_job == "auto" else self.cpus_per_job

    def prepare(self, jobs: int) -> None:
        """Does nothing: allocations are for composed jobs."""

    def expect(self, jobs: int) -> None:
        """Prints a notice if SLURM keeps no accounting; ignores the number of jobs."""
        if not self.accounts:
            print("SLURM keeps no accounts here: that a job has ended is seen by its files")

    def check_job(self, job: Job) -> None:
        """Raises UserError for a time limit that is too short or if submitit refuses a parameter.

        Submits nothing.
        """
        asked = self.requested_resources(job)
        limit, delay = asked["timeout_min"], asked.get("slurm_signal_delay_s", SIGNAL_DELAY)
        if self.cluster == "slurm" and limit * 60 <= delay:
            raise UserError(
                f"hydra.launcher.timeout_min={limit}: SLURM asks a job to stop {delay} seconds "
                "before its limit, so each job would stop at once: give it more minutes"
            )
        try:
            self.trial.update_parameters(**asked)
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise UserError(f"hydra.launcher.parameters: {first_line(error)}") from error

    def count_startable(self, job: Job | None = None) -> int:
        """Returns how many more jobs may be submitted now; the job makes no difference.

        Those are full allocations, or what the latest allocation lacks if it is not submitted yet.
        """
        if self.latest and self.latest.is_open():
            return self.jobs_per_allocation - len(self.latest.orders)
        free = self.n_jobs - self.submitted
        return free - free % self.jobs_per_allocation

    def start(self, job: Job, order: Order) -> RemoteHandle:
        """Puts a job into an allocation, counted until `poll` sees its end; may set a variable.

        That is OMP_NUM_THREADS in `order.environment`, unless it is there. The allocation is
        submitted when it is full, or at the first `poll` of one of its jobs.
        """
        threads = max(1, self.requested_cpus(job) // max(job.devices, 1))
        given = os.environ.get("OMP_NUM_THREADS", str(threads))
        order.environment.setdefault("OMP_NUM_THREADS", given)
        resources, gpus = self.requested_resources(job), self.requested_gpus(job)
        if not self.latest or not self.latest.can_take(resources, gpus):
            executor = self.build_executor(exchange_path(order, "submitit"))
            self.latest = Allocation(executor, resources, gpus, self.process_start)
        allocation = self.latest

        def submit() -> SlurmTask:
            """Adds the job to its allocation, and submits that if it is full."""
            allocation.add(order)
            if len(allocation.orders) == self.jobs_per_allocation:
                allocation.submit()
            return SlurmTask(allocation, order, self.accounts)

        def give_back() -> None:
            """Counts the job as ended; deletes submitit's files of the last of an allocation."""
            self.submitted -= 1
            allocation.remove(order)

        self.submitted += 1
        return RemoteHandle(order, submit, give_back)

    def close(self) -> None:
        """Does nothing: SLURM keeps no connection."""
