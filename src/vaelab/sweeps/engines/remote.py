"""The launcher's end of a job that a `vaelab.sweeps.worker.Worker` runs on some node."""

import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from vaelab.sweeps import worker
from vaelab.sweeps.process import Order
from vaelab.training.json_files import read_json, write_json

PATIENCE = 15.0
"""Seconds that a worker may take to kill its job, before the launcher gives both up."""


class Lost(Exception):  # noqa: N818
    """No exit code of a job will come any more. The message says why, on its last line."""


class Task(Protocol):
    """What Ray or SLURM was given to run a job."""

    def result(self) -> int | None:
        """What the worker has returned, None until then; raises `Lost`."""

    def cancel(self) -> None:
        """Takes it from the queue, or from its node."""


class Remote:
    """A job on some node.

    Args:
        order: The job.
        submit: Gives a worker for it to Ray or SLURM.
        give_back: Frees what it takes.
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
        write_json(worker.asked(order), {"signal": 0})
        self.task = submit()

    def poll(self) -> int | None:
        now = time.monotonic()
        if self.code is not None or now - self.looked < worker.LOOK:
            return self.code
        self.looked = now
        if not self.where:
            self.where = place(read_json(worker.begun(self.order)))
        try:
            self.code = self.task.result()
        except Lost as error:
            self.code = self.without_code(error)
        if self.code is None and now > self.given_up:
            self.task.cancel()
            self.code = -signal.SIGKILL
        if self.code is not None:
            worker.forget(self.order)
            self.give_back()
        return self.code

    def without_code(self, error: Lost) -> int:
        """The exit code of a job that was taken from its queue, or whose node is gone."""
        if self.asked:
            return -self.asked
        *before, last = str(error).strip().splitlines() or [type(error).__name__]
        worker.note(self.order, "\n".join([*before, f"error: {last}"]))
        return 1

    def stop(self) -> None:
        self.ask(signal.SIGTERM)

    def kill(self) -> None:
        self.ask(signal.SIGKILL)
        self.given_up = min(self.given_up, time.monotonic() + PATIENCE)

    def ask(self, number: int) -> None:
        if self.asked == number or self.code is not None:
            return
        self.asked = number
        write_json(worker.asked(self.order), {"signal": number})
        if not worker.begun(self.order).exists():
            self.task.cancel()


def place(content: Mapping[str, Any]) -> str:
    """Where a job runs, for the screen."""
    if not content:
        return ""
    device = f"GPU {content['gpus']}" if content["gpus"] else "CPU"
    return device if content["host"] == socket.gethostname() else f"{content['host']} {device}"
