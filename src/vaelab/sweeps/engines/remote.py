"""The launcher's side of a job that a `vaelab.sweeps.worker.Worker` runs on some node."""

import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from vaelab.sweeps import worker
from vaelab.sweeps.process import Order, append_to_log
from vaelab.training.json_files import read_json_or_nothing, write_json

PATIENCE = 15.0
"""Seconds after a requested SIGKILL until the launcher cancels the worker as well."""


class Lost(Exception):  # noqa: N818
    """Raised if no exit code of a job will ever come; the last line of its message says why."""


class Task(Protocol):
    """Interface of what was submitted to Ray or SLURM to run one job."""

    def result(self) -> int | None:
        """Returns the job's exit code, None until there is one; raises Lost if none will come."""

    def cancel(self) -> None:
        """Takes the task from the queue, or ends it on its node."""


class RemoteHandle:
    """Handle of a job on some node; creating it writes the request file and submits the job.

    Args:
        order: The job.
        submit: Submits a worker for the job to Ray or SLURM.
        give_back: Frees what the job takes of the engine.
    """

    def __init__(
        self, order: Order, submit: Callable[[], Task], give_back: Callable[[], None]
    ) -> None:
        self.order, self.give_back = order, give_back
        self.where = ""
        self.code: int | None = None
        self.looked = float("-inf")
        self.asked = 0
        self.given_up = float("inf")
        try:
            write_json(worker.request_file(order), {"signal": 0})
            self.task = submit()
        except Exception:
            give_back()
            raise

    def poll(self) -> int | None:
        """Returns the exit code, None until the end; then deletes exchange files, frees resources.

        Looks at most once in `worker.LOOK` seconds. A job that outlives `kill` by PATIENCE seconds
        is cancelled and counts as killed.
        """
        now = time.monotonic()
        if self.code is not None or now - self.looked < worker.LOOK:
            return self.code
        self.looked = now
        if not self.where:
            self.where = device_label(read_json_or_nothing(worker.start_file(self.order)))
        try:
            self.code = self.task.result()
        except Lost as error:
            self.code = self.record_lost_job(error)
        if self.code is None and now > self.given_up:
            self.task.cancel()
            self.code = -signal.SIGKILL
        if self.code is not None:
            worker.delete_exchange_files(self.order)
            self.give_back()
        return self.code

    def record_lost_job(self, error: Lost) -> int:
        """Returns an exit code for a lost job; appends the error to its log unless it was stopped.

        The code is minus the requested signal, or 1 if none was requested.
        """
        if self.asked:
            return -self.asked
        *before, last = str(error).strip().splitlines() or [type(error).__name__]
        append_to_log(self.order, "\n".join([*before, f"error: {last}"]))
        return 1

    def stop(self) -> None:
        """Requests SIGTERM for the job, so that it writes a checkpoint and exits; does not wait."""
        self.request_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Requests SIGKILL for the job; `poll` gives the worker up after PATIENCE seconds."""
        self.request_signal(signal.SIGKILL)
        self.given_up = min(self.given_up, time.monotonic() + PATIENCE)

    def request_signal(self, number: int) -> None:
        """Writes a signal into the request file, once; cancels the task if the job has not started.

        Does nothing if the job has ended.
        """
        if self.asked == number or self.code is not None:
            return
        self.asked = number
        write_json(worker.request_file(self.order), {"signal": number})
        if not worker.start_file(self.order).exists():
            self.task.cancel()


def device_label(content: Mapping[str, Any]) -> str:
    """Returns a job's GPUs or `CPU` as text, after its host if remote; empty if not known."""
    if not content:
        return ""
    device = f"GPU {content['gpus']}" if content["gpus"] else "CPU"
    return device if content["host"] == socket.gethostname() else f"{content['host']} {device}"
