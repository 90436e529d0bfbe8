"""The process of a job: started, stopped, and cleaned up after, on whatever machine it runs."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vaelab.commands.cli import PARENT

LEAKY = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED"),
)
"""Variables of a process group that a job must not take for its own."""
BESIDE_SLURM = {"SLURM_JOB_NAME": "bash"}
"""Tells Lightning to start the processes of a job itself, whatever SLURM has allocated."""


@dataclass(frozen=True)
class Order:
    """What is to be run.

    Attributes:
        command: Arguments, the program first.
        log: File that takes what is printed, at its end.
        life: File by which the launcher shows that it is alive.
        environment: Variables beside those of the process that starts it.
        folder: Where it is run.
    """

    command: Sequence[str]
    log: Path
    life: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = field(default_factory=os.getcwd)


class Process:
    """A job's process, in a session of its own: a Ctrl-C in the terminal is not for it.

    It stops by itself when its parent dies, see `vaelab.commands.cli`.
    """

    def __init__(self, order: Order) -> None:
        kept = {k: v for k, v in os.environ.items() if k not in LEAKY}
        own = {PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1", **BESIDE_SLURM}
        order.log.parent.mkdir(parents=True, exist_ok=True)
        with order.log.open("ab") as log:
            self.child = subprocess.Popen(
                list(order.command),
                cwd=order.folder,
                env=kept | order.environment | own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        code = self.child.poll()
        if code is not None:
            self.kill()  # what it may have left running
        return code

    def stop(self) -> None:
        """Asks it to write a checkpoint and stop; it tells the processes that it started."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.05)
        return code
