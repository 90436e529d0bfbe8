"""Jobs of SLURM, by way of submitit."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import submitit
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError
from submitit.helpers import DelayedSubmission

from vaelab.errors import UserError, first_line
from vaelab.sweeps.engines.remote import Lost, Remote
from vaelab.sweeps.job import Job
from vaelab.sweeps.process import Order
from vaelab.sweeps.worker import Worker, begun, beside

LIMITS = 100
"""Time limits that a job may come to, and go on after, before it is left."""
SELDOM = 20.0
"""Seconds between two looks into SLURM's queue."""
WAIT = 15
"""Looks for the result of a job that has ended, on a file system that is slow to show it."""


class Slurm:
    """Submits jobs to SLURM, whose nodes see the same folders and the same Python.

    A job that comes to its time limit writes a checkpoint, is queued again and goes on.

    Args:
        cluster: `slurm`, or `local` to try it out on this machine.
        n_jobs: Jobs that are submitted at once, whether they run or wait.
        partition: By itself the cluster's own.
        timeout_min: Time limit of each job, in minutes.
        cpus_per_job: By itself as many as `trainer.devices`.
        gpus_per_job: By itself as many as `trainer.devices` where `trainer.accelerator` is gpu.
        mem_gb: Memory of each job; by itself the cluster's own.
        parameters: More for submitit, such as `slurm_account`.
    """

    def __init__(
        self,
        *,
        cluster: Literal["slurm", "local"],
        n_jobs: PositiveInt,
        partition: str | None,
        timeout_min: PositiveInt,
        cpus_per_job: PositiveInt | Literal["auto"],
        gpus_per_job: NonNegativeInt | Literal["auto"],
        mem_gb: PositiveFloat | None,
        parameters: dict[str, Any],
    ) -> None:
        self.cluster, self.n_jobs, self.parameters = cluster, n_jobs, parameters
        self.cpus_per_job, self.gpus_per_job = cpus_per_job, gpus_per_job
        self.shared = {
            "timeout_min": timeout_min,
            "mem_gb": mem_gb,
            "slurm_partition": partition,
            "nodes": 1,
            "tasks_per_node": 1,
        }
        self.submitted = 0
        self.accounts = cluster != "slurm" or keeps_accounts()
        try:
            self.trial = self.executor(Path(tempfile.gettempdir()))
        except RuntimeError as error:
            raise UserError(
                "hydra/launcher=slurm: there is no srun on this machine; "
                "hydra.launcher.cluster=local tries it out without SLURM"
            ) from error

    def executor(self, folder: Path) -> submitit.AutoExecutor:
        limits = {"slurm_max_num_timeout": LIMITS, "local_max_num_timeout": LIMITS}
        return submitit.AutoExecutor(folder, cluster=self.cluster, **limits)

    def asked(self, job: Job) -> dict[str, Any]:
        """What a job asks of SLURM."""
        gpus = self.gpus_per_job
        if gpus == "auto":
            gpus = job.devices if job.accelerator in ("gpu", "cuda") else 0
        elif job.accelerator in ("cpu", "mps"):
            gpus = 0
        if gpus < 0:
            raise UserError(
                f"trainer.devices={job.devices}: how many? hydra.launcher.gpus_per_job=..."
            )
        return {
            **self.shared,
            "name": job.name,
            "cpus_per_task": self.cpus(job),
            "gpus_per_node": gpus or None,
            **self.parameters,
        }

    def cpus(self, job: Job) -> int:
        return max(job.devices, 1) if self.cpus_per_job == "auto" else self.cpus_per_job

    def expect(self, jobs: int) -> None:
        if not self.accounts:
            print("SLURM keeps no accounts here: that a job has ended is seen by its files")

    def check(self, job: Job) -> None:
        try:
            self.trial.update_parameters(**self.asked(job))
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise UserError(f"hydra.launcher.parameters: {first_line(error)}") from error

    def free(self, job: Job | None = None) -> int:
        return self.n_jobs - self.submitted

    def start(self, job: Job, order: Order) -> Remote:
        threads = max(1, self.cpus(job) // max(job.devices, 1))
        given = os.environ.get("OMP_NUM_THREADS", str(threads))
        order.environment.setdefault("OMP_NUM_THREADS", given)
        folder = beside(order, "submitit")

        def submit() -> Submitted:
            executor = self.executor(folder)
            executor.update_parameters(**self.asked(job))
            # A Ctrl-C in the terminal is for the launcher, and not for what is started here.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                return Submitted(executor.submit(Requeued(order)), self.accounts)
            except (FailedJobError, FailedSubmissionError, OSError) as error:
                last = str(error).strip().splitlines()[-1]
                raise UserError(f"SLURM does not take {job.name}: {last}") from error
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

        def give_back() -> None:
            self.submitted -= 1
            shutil.rmtree(folder, ignore_errors=True)

        self.submitted += 1
        return Remote(order, submit, give_back)

    def close(self) -> None:
        pass


def keeps_accounts() -> bool:
    """Whether SLURM tells of jobs that have ended, by sacct."""
    return asking("sacct", "--noheader", "--allocations").returncode == 0


def is_queued(job_id: str) -> bool:
    """Whether a job waits or runs; it does, too, where SLURM cannot be asked at the moment."""
    found = asking("squeue", "--noheader", "--jobs", job_id)
    if found.returncode:
        return "Invalid job id" not in found.stderr
    return bool(found.stdout.strip())


def asking(*command: str) -> subprocess.CompletedProcess[str]:
    """What a command of SLURM's prints; one that gives no answer has failed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return subprocess.CompletedProcess(command, 1, "", "")


class Requeued(Worker):
    """A worker that submitit starts, once more after each time limit."""

    def __call__(self) -> int:
        signal.signal(signal.SIGTERM, self.stop)  # of scancel; submitit would let it pass
        return super().__call__()

    def stop(self, *_: Any) -> None:
        if self.process:
            self.process.stop()

    def checkpoint(self) -> DelayedSubmission:
        """What submitit calls shortly before the time limit; it then queues the job again."""
        self.end()
        begun(self.order).unlink(missing_ok=True)
        return DelayedSubmission(Requeued(self.order))


class Submitted:
    """A job that submitit was given.

    Args:
        job: The job.
        accounts: Whether SLURM remembers jobs that have ended, and is asked for them by submitit,
            which otherwise prints three warnings at each look.
    """

    def __init__(self, job: submitit.Job[int], accounts: bool) -> None:
        self.job, self.accounts = job, accounts
        self.looks, self.patience = 0, WAIT
        self.queued, self.asked = True, monotonic()

    def ended(self) -> bool:
        if self.accounts:
            return self.job.done()
        if self.queued and monotonic() - self.asked >= SELDOM:
            self.queued, self.asked = is_queued(self.job.job_id), monotonic()
        return not self.queued or self.job.paths.result_pickle.exists()

    def result(self) -> int | None:
        if not self.ended():
            return None
        if not self.job.paths.result_pickle.exists():
            self.looks += 1
            if self.looks < self.patience:
                return None
            printed = self.job.stderr() or ""
            state = self.job.state if self.accounts else "one without a result"
            raise Lost(f"{printed}\nSLURM: job {self.job.job_id} ended as {state}")
        try:
            return self.job.result()
        except (FailedJobError, UncompletedJobError) as error:
            rule = "-" * 22
            raise Lost(str(error).partition(rule)[2].rpartition(rule)[0] or str(error)) from error

    def cancel(self) -> None:
        self.patience = 0
        self.job.cancel(check=False)
