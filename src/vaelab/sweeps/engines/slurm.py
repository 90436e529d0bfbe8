"""The SLURM engine: jobs submitted to SLURM by submitit."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal

import submitit
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError
from submitit.helpers import DelayedSubmission

from vaelab.errors import UserError, WriteError, first_line
from vaelab.sweeps.engines.local import visible_gpus
from vaelab.sweeps.engines.remote import Lost, RemoteHandle
from vaelab.sweeps.fork_server import Start, build_fork_server
from vaelab.sweeps.job import Job
from vaelab.sweeps.process import Order, start_fresh
from vaelab.sweeps.worker import (
    NOT_BEGUN,
    Worker,
    end_file,
    exchange_path,
    request_file,
    start_file,
)
from vaelab.training.json_files import read_json_or_nothing, write_json

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


class RequeuingWorker:
    """Runs the jobs of an allocation; submitit starts it, again after a time limit or preemption.

    A picklable callable. Several jobs are forks of one server.

    Args:
        orders: The jobs.
        gpus: GPUs of each job.
        start: How several jobs start, see `Slurm`.
    """

    stopped = False  # by SIGTERM from SLURM, or at the time limit

    def __init__(self, orders: Sequence[Order], gpus: int, start: Start) -> None:
        self.orders, self.gpus, self.process_start = orders, gpus, start
        self.running: list[tuple[Worker, dict[str, str]]] = []

    def __call__(self) -> dict[Path, int]:
        """Runs the jobs and returns the exit code of each, by its log; handles SIGTERM.

        After SIGTERM no job is started, and those that run are stopped. If SLURM has queued the
        allocation again, it raises SystemExit: submitit then writes no result, and the launcher
        waits on. Also deletes the start files.
        """
        signal.signal(signal.SIGTERM, self.note_stop)  # from scancel; submitit ignores it
        codes = self.run_jobs()
        if self.stopped and requeue_if_preempted():
            self.delete_start_files()
            raise SystemExit(NOT_BEGUN)
        return {order.log: codes.get(order.log, NOT_BEGUN) for order in self.orders}

    def run_jobs(self) -> dict[Path, int]:
        """Runs the jobs that the launcher waits for and that have not ended; returns exit codes.

        Writes the end file of each but the last, whose end is that of the allocation, and of those
        that were stopped, which may be queued again.
        """
        waiting = deque(order for order in self.orders if is_wanted(order))
        codes, free, server = {}, self.places(), None
        if len(waiting) > 1:
            first = waiting[0]
            server = build_fork_server(
                self.process_start, first.command, first.environment, first.folder
            )
        try:
            while self.running or (waiting and not self.stopped):
                while waiting and free and not self.stopped:
                    place, order = free.pop(), waiting.popleft()
                    order = replace(order, environment=order.environment | place)
                    worker = Worker(order, server.start if server else start_fresh)
                    self.running.append((worker, place))
                for worker, place in list(self.running):
                    if (code := worker.poll()) is not None:
                        self.running.remove((worker, place))
                        free.append(place)
                        codes[worker.order.log] = code
                        others = self.running or waiting
                        if others and not self.stopped and is_wanted(worker.order):
                            with suppress(WriteError):  # the code is also returned
                                write_json(end_file(worker.order), {"exit": code})
                    elif self.stopped:
                        worker.stop()
                sleep(0.05)
        finally:
            if server:
                server.close()
        return codes

    def places(self) -> list[dict[str, str]]:
        """Returns the variables of each place for a job: its GPUs, if there are for several.

        Reads the GPUs of this process, which are the allocation's.
        """
        gpus = visible_gpus() if self.gpus and len(self.orders) > 1 else []
        count = len(gpus) // self.gpus if gpus else 0
        if count < 2:
            return [{}]
        parts = (gpus[i * self.gpus : (i + 1) * self.gpus] for i in range(count))
        return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]

    def note_stop(self, *_: Any) -> None:
        """Called on SIGTERM, as by scancel: has `run_jobs` stop the jobs and start no other."""
        self.stopped = True

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit before the time limit: ends the jobs and returns the resubmission.

        Deletes the start files of the jobs that submitit queues again.
        """
        self.stopped = True
        for worker, _ in self.running:
            worker.stop()
        for worker, _ in self.running:
            worker.end_job()
        self.delete_start_files()
        return DelayedSubmission(RequeuingWorker(self.orders, self.gpus, self.process_start))

    def delete_start_files(self) -> None:
        """Deletes the start files of the jobs that have not ended."""
        for order in self.orders:
            if not end_file(order).exists():
                start_file(order).unlink(missing_ok=True)


def is_wanted(order: Order) -> bool:
    """True if the launcher waits for a job, and has not been told of its end."""
    return request_file(order).exists() and not end_file(order).exists()


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
