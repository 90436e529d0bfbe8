"""The process of a job: started, stopped and killed, on whatever machine it runs."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vaelab.commands.cli import PARENT
from vaelab.files.atomic import make_folder

LEAKY = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED"),
)
"""Environment variables of the launcher's own process group, which a job must not inherit."""
BESIDE_SLURM = {"SLURM_JOB_NAME": "bash"}
"""Makes Lightning start the processes of a job itself, although it runs in a SLURM job."""


@dataclass(frozen=True)
class Order:
    """Everything that a machine needs to run a job's process.

    Attributes:
        command: Arguments, the program first.
        log: File to whose end the output is appended.
        heartbeat_file: File by which the launcher shows that it is alive.
        environment: Variables beside those of the process that starts the job.
        folder: Working directory.
    """

    command: Sequence[str]
    log: Path
    heartbeat_file: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = field(default_factory=os.getcwd)


class Child(Protocol):
    """Interface of a started process: `subprocess.Popen`, or a fork of a fork server."""

    pid: int

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal; None while it runs."""

    def send_signal(self, sig: int) -> None:
        """Sends a signal to the process; one that has ended is no error."""


def full_environment(environment: dict[str, str]) -> dict[str, str]:
    """Returns all variables of a job: this process's, without those of process groups, and its own.

    Args:
        environment: Variables beside those of this process.
    """
    kept = {k: v for k, v in os.environ.items() if k not in LEAKY}
    own = {PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1", **BESIDE_SLURM}
    return kept | environment | own


def start_fresh(order: Order) -> Child:
    """Starts the command of an order as a new process, in a session of its own."""
    with order.log.open("ab") as log:
        return subprocess.Popen(
            list(order.command),
            cwd=order.folder,
            env=full_environment(order.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def append_to_log(order: Order, text: str) -> None:
    """Appends text to the log of a job, whose folder is created if it is missing."""
    order.log.parent.mkdir(parents=True, exist_ok=True)
    with order.log.open("a") as log:
        log.write(f"{text.rstrip()}\n")


class Process:
    """The process of a job, started in a session of its own, so that Ctrl-C does not reach it.

    It exits when its parent dies, see `vaelab.commands.cli`.
    """

    def __init__(self, order: Order, start: Callable[[Order], Child] = start_fresh) -> None:
        """Starts the process, without variables of process groups; appends output to the log.

        Creates the folder of the log if it is missing.
        """
        make_folder(order.log.parent)
        self.child = start(order)

    def poll(self) -> int | None:
        """Returns the exit code, None while it runs; at the end kills what it left running."""
        code = self.child.poll()
        if code is not None:
            self.kill()  # what it may have left running
        return code

    def stop(self) -> None:
        """Asks the process, by SIGTERM, to write a checkpoint and exit; does not wait."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kills the process and all others of its process group by SIGKILL; none is no error."""
        with suppress(ProcessLookupError, PermissionError):
            self.child.send_signal(signal.SIGKILL)  # a new fork leads no process group yet
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Waits for the end, returns the exit code, negative for a signal; kills what is left."""
        while (code := self.poll()) is None:
            time.sleep(0.05)
        return code
