"""The SLURM engine: jobs submitted to SLURM by submitit."""

import os
import re
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
from vaelab.sweeps.engines.remote import Lost, RemoteHandle
from vaelab.sweeps.job import Job
from vaelab.sweeps.process import Order
from vaelab.sweeps.worker import Worker, exchange_path, start_file

LIMITS = 100
"""Number of time limits after which a job is no longer queued again."""
SIGNAL_DELAY = 90
"""Seconds before its time limit at which submitit lets SLURM signal a job, by default."""
SELDOM = 20.0
"""Seconds between two calls of squeue for a job."""
WAIT = 15
"""Calls that look for the result file of an ended job, which a slow file system may show late."""


class Slurm:
    """Engine that submits jobs to SLURM, whose nodes see the same folders and the same Python.

    A job that reaches its time limit writes a checkpoint, is queued again and continues. So does
    one that SLURM stops and queues again, as at preemption or `scontrol requeue`.

    Args:
        cluster: `slurm`, or `local` to try it out on this machine without SLURM.
        n_jobs: Jobs that are submitted at once, running or queued.
        partition: SLURM partition; default: the cluster's own.
        timeout_min: Time limit of each job, in minutes.
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
        return {
            **self.shared,
            "name": job.name,
            "cpus_per_task": self.requested_cpus(job),
            "gpus_per_node": gpus or None,
            **self.parameters,
        }

    def requested_cpus(self, job: Job) -> int:
        """Returns how many CPU cores a job requests."""
        return max(job.devices, 1) if self.cpus_per_job == "auto" else self.cpus_per_job

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
        """Returns how many more jobs may be submitted now; the job makes no difference."""
        return self.n_jobs - self.submitted

    def start(self, job: Job, order: Order) -> RemoteHandle:
        """Submits a job, counted until `poll` sees its end; may set its OMP_NUM_THREADS.

        The variable is set in `order.environment`, unless it is there.
        """
        threads = max(1, self.requested_cpus(job) // max(job.devices, 1))
        given = os.environ.get("OMP_NUM_THREADS", str(threads))
        order.environment.setdefault("OMP_NUM_THREADS", given)
        folder = exchange_path(order, "submitit")

        def submit() -> SlurmTask:
            """Submits a worker for the job, with SIGINT blocked; raises UserError if refused."""
            executor = self.build_executor(folder)
            executor.update_parameters(**self.requested_resources(job))
            # Ctrl-C reaches all processes of the terminal, and only the launcher may act on it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                return SlurmTask(executor.submit(RequeuingWorker(order)), self.accounts)
            except (FailedJobError, FailedSubmissionError, OSError) as error:
                last = str(error).strip().splitlines()[-1]
                raise UserError(f"SLURM does not take {job.name}: {last}") from error
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

        def give_back() -> None:
            """Counts the job as ended and deletes submitit's files of it."""
            self.submitted -= 1
            shutil.rmtree(folder, ignore_errors=True)

        self.submitted += 1
        return RemoteHandle(order, submit, give_back)

    def close(self) -> None:
        """Does nothing: SLURM keeps no connection."""


def has_accounting() -> bool:
    """True if SLURM keeps accounts of ended jobs; runs `sacct`."""
    return run_slurm_command("sacct", "--noheader", "--allocations").returncode == 0


def is_queued(job_id: str) -> bool:
    """True if a SLURM job waits or runs, or if SLURM cannot be asked now; runs `squeue`."""
    found = run_slurm_command("squeue", "--noheader", "--jobs", job_id)
    if found.returncode:
        return "Invalid job id" not in found.stderr
    return bool(found.stdout.strip())


def requeue_if_preempted() -> bool:
    """Returns if SLURM has queued this process's job again; requeues one that is being preempted.

    SLURM does so at once, unless the partition grants a time of grace: then it only notes the time
    of preemption, and a job that ends earlier counts as ended. Runs `scontrol`.
    """
    job_id = os.environ.get("SLURM_JOB_ID", "")
    shown = run_slurm_command("scontrol", "show", "job", job_id).stdout
    restarts = re.search(r"\bRestarts=(\d+)", shown)
    if restarts and int(restarts[1]) > int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        return True
    if "JobState=RUNNING" not in shown or not re.search(r"\bPreemptTime=\d", shown):
        return False  # as after scancel
    return run_slurm_command("scontrol", "requeue", job_id).returncode == 0


def run_slurm_command(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of SLURM, for at most a minute, and returns its outcome; never raises.

    A command that is missing or does not answer has exit code 1 and no output.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return subprocess.CompletedProcess(command, 1, "", "")


class RequeuingWorker(Worker):
    """A worker that submitit starts, and starts again after each time limit or preemption."""

    stopped = False  # by SIGTERM from SLURM

    def __call__(self) -> int:
        """Runs the job and returns its exit code; installs a SIGTERM handler that stops the job.

        If SLURM stopped the job and has queued it again, it raises SystemExit: submitit then
        writes no result, and the launcher waits on. Also deletes the start file.
        """
        signal.signal(signal.SIGTERM, self.stop_job)  # from scancel; submitit ignores it
        code = super().__call__()
        if self.stopped and requeue_if_preempted():
            start_file(self.order).unlink(missing_ok=True)
            raise SystemExit(code)
        return code

    def stop_job(self, *_: Any) -> None:
        """Called on SIGTERM, as by scancel: asks a started job to write a checkpoint and exit."""
        self.stopped = True
        if self.process:
            self.process.stop()

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit before the time limit: ends the job and returns its resubmission.

        Deletes the start file of the job, which submitit queues again.
        """
        self.end_job()
        start_file(self.order).unlink(missing_ok=True)
        return DelayedSubmission(RequeuingWorker(self.order))


class SlurmTask:
    """A job that was submitted to SLURM by submitit.

    Args:
        job: Submitit's job.
        accounts: True if SLURM keeps accounts of ended jobs, so that submitit can ask for them.
            Without accounts submitit would print three warnings at each question.
    """

    def __init__(self, job: submitit.Job[int], accounts: bool) -> None:
        self.job, self.accounts = job, accounts
        self.looks, self.patience = 0, WAIT
        self.queued, self.asked = True, monotonic()

    def has_ended(self) -> bool:
        """True if the job has ended, by SLURM's accounts, else by `squeue` or its result file.

        `squeue` is run at most once in SELDOM seconds.
        """
        if self.accounts:
            return self.job.done()
        if self.queued and monotonic() - self.asked >= SELDOM:
            self.queued, self.asked = is_queued(self.job.job_id), monotonic()
        return not self.queued or self.job.paths.result_pickle.exists()

    def result(self) -> int | None:
        """Returns the job's exit code, None until it is known; raises Lost if none will come.

        A result file may appear late on a network file system, so it is looked for in WAIT calls.
        """
        if not self.has_ended():
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
        """Cancels the job in SLURM, and no longer waits for its result file."""
        self.patience = 0
        self.job.cancel(check=False)
