"""Allocations of SLURM, each a job of SLURM for one or several jobs of a sweep, by submitit."""

import os
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError
from submitit.helpers import DelayedSubmission

from vaelab.errors import UserError, WriteError
from vaelab.sweeps.engines.local import visible_gpus
from vaelab.sweeps.engines.remote import Lost
from vaelab.sweeps.fork_server import Start, build_fork_server
from vaelab.sweeps.process import Order, start_fresh
from vaelab.sweeps.worker import NOT_BEGUN, Worker, end_file, request_file, start_file
from vaelab.training.json_files import read_json_or_nothing, write_json

SELDOM = 20.0
"""Seconds between two calls of squeue for a job."""
WAIT = 15
"""Calls that look for the result file of an ended job, which a slow file system may show late."""


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
