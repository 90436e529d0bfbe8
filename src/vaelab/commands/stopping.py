"""Ends of a command by a signal or by the loss of another process: one line and an exit code.

Outside training nothing has to be saved, since every file is written atomically. So the process
ends at once, without unwinding, which code between could prevent. Does not import torch.
"""

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread, current_thread, main_thread
from typing import Any, NoReturn

from vaelab.commands import command_lines
from vaelab.training.stop_signals import (
    STOPPING,
    block_in_thread,
    exit_code,
    noticed_signals,
    stop_signals,
)

RANK_ZERO = "VAELAB_RANK_ZERO"
"""Variable with the id of the first process, for the others of the same training."""
PERIOD = 0.1
"""Seconds between two looks of the watch."""
FAILING = 5.0
"""Seconds that this process has for its own message, after another one ended with an error."""
LEAVING = 10.0
"""Seconds that this process has to leave training, after another one left by a common stop."""


class Watch:
    """A thread that ends this process on a held signal, or when a process it started was lost.

    Attributes:
        command: Returns the command line that goes on with what this one did.
        launcher: Lightning's launcher of the other processes of a training; None without others.
        processes: The number of processes of the training on this machine.
        children: The other processes, by rank from 1.
    """

    def __init__(self) -> None:
        self.command: Callable[[], str] = command_lines.typed_command
        self.launcher: Any = None
        self.processes = 1
        self.children: list[subprocess.Popen[Any]] = []
        self.seen: dict[int, float] = {}  # when a child was first seen to have ended, by rank

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Context manager that holds stop signals and runs the thread; main thread only.

        Prints how to go on if a signal stopped a training.
        """
        self.__init__()  # type: ignore[misc]
        with stop_signals.hold():
            over = False

            def look() -> None:
                """Looks for signals and lost processes, until the context ends."""
                while not over:
                    self.look_for_signals()
                    self.look_for_lost_processes()
                    time.sleep(PERIOD)

            Thread(target=look, daemon=True).start()
            try:
                yield
            except SystemExit as error:
                if type(error).__name__ == "SIGTERMException" and is_first_process():
                    print(self.stop_line(), flush=True)
                raise
            finally:
                over = True

    def watch_processes(self, trainer: Any) -> None:
        """Watches the processes that a trainer's launcher will start; sets a variable for them."""
        self.launcher, self.processes = trainer.strategy.launcher, trainer.num_devices
        if self.processes > 1 and is_first_process():
            os.environ[RANK_ZERO] = str(os.getpid())

    def look_for_signals(self) -> None:
        """Ends the process if a signal has arrived and training does not defer it.

        While training defers a first signal, a second Ctrl-C ends the process.
        """
        arrived = stop_signals.pending()
        if stop_signals.deferred:
            arrived &= {signal.SIGINT} if stop_signals.noted else set()
        if arrived:
            self.stop(max(arrived))

    def look_for_lost_processes(self) -> None:
        """Ends this process if another one of the training was killed, failed or stopped.

        It takes the processes from the launcher, whose own observer kills this process by SIGKILL
        without a word if it finds one that has failed.
        """
        started = getattr(self.launcher, "procs", [])
        while started:
            self.children.append(started.pop(0))
        for rank, child in enumerate(self.children, 1):
            code = child.poll()
            if not code:
                continue
            since = time.monotonic() - self.seen.setdefault(rank, time.monotonic())
            number = -code if code < 0 else code - 128
            if number in STOPPING or code in map(exit_code, STOPPING):
                if not (stop_signals.deferred and stop_signals.noted) or since > LEAVING:
                    self.stop(signal.SIGINT if code in (130, -signal.SIGINT) else signal.SIGTERM)
            elif code < 0 or since > FAILING:
                how = f"killed by {signal_name(number)}" if code < 0 else f"exit code {code}"
                self.fail(f"process {rank} of {self.processes} was lost ({how})")

    def stop(self, number: int) -> NoReturn:
        """Prints how to go on, and ends this process and those it started with 130 or 143."""
        leave_screen()
        if is_first_process():
            write(1, self.stop_line())
        self.end(exit_code(number))

    def fail(self, reason: str) -> NoReturn:
        """Prints an error and how to go on, and ends all processes with exit code 1."""
        leave_screen()
        write(2, f"error: {reason}; go on with  {self.safe_command()}")
        self.end(1)

    def end(self, code: int) -> NoReturn:
        """Kills the processes that this one started, and ends it without unwinding."""
        for child in [*self.children, *getattr(self.launcher, "procs", [])]:
            child.kill()
        os._exit(code)

    def stop_line(self) -> str:
        """Returns the line that a command stopped by a signal prints."""
        return f"stopped; go on with  {self.safe_command()}"

    def safe_command(self) -> str:
        """Returns the command line that goes on; the one that was typed if that is not known."""
        try:
            return command_lines.outer_command() or self.command()
        except Exception:  # such as a run folder that was deleted
            return command_lines.typed_command()


watch = Watch()
"""The watch of this process, which has one command at a time."""


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Context manager whose signal handlers end the process with one line; main thread only.

    Ignored signals stay ignored. Signals that come after it, while Python exits, are ignored.
    """
    if current_thread() is not main_thread():  # other threads cannot set handlers
        yield
        return
    handlers = {n: signal.signal(n, lambda n, _: watch.stop(n)) for n in noticed_signals()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
            atexit.register(signal.signal, number, signal.SIG_IGN)


def await_loss() -> None:
    """Waits until the watch ends this process for a lost one; returns if it does not.

    Called on a broken connection to another process, which is found before the process is. Does
    nothing in a training of one process.
    """
    if "LOCAL_RANK" not in os.environ:
        return
    time.sleep(FAILING + 3 if is_first_process() else FAILING)


def end_with_first_process() -> None:
    """Starts a thread that ends this process when the first one of its training has ended.

    Only the first process has anything to save. Does nothing in the first one.
    """
    if is_first_process():
        return
    first = int(os.environ.get(RANK_ZERO, os.getppid()))

    def look() -> None:
        """Looks at the parent's id, ten times a second."""
        block_in_thread()
        while os.getppid() == first:
            time.sleep(PERIOD)
        os._exit(exit_code(signal.SIGTERM))

    Thread(target=look, daemon=True).start()


def is_first_process() -> bool:
    """Returns whether this is the first, or only, process of a training, of all its machines."""
    return process_rank() == 0


def process_rank() -> int:
    """Returns this process's number in its training, from 0; that on its machine if set alone.

    As torchrun (RANK), Lightning's launcher (LOCAL_RANK, on several machines NODE_RANK) or `srun`
    (SLURM_PROCID, but in an interactive shell) say it.
    """
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    names = ("RANK", "LOCAL_RANK", *(() if interactive else ("SLURM_PROCID",)))
    found = next((int(os.environ[name]) for name in names if name in os.environ), 0)
    return found or int(os.environ.get("NODE_RANK", "0"))


def signal_name(number: int) -> str:
    """Returns the name of a signal, such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def leave_screen() -> None:
    """Flushes stdout, and shows a terminal's cursor, which a progress bar may have hidden."""
    with suppress(Exception):  # what is printed just now may be in the way
        sys.stdout.flush()
        if sys.stdout.isatty():
            write(1, "\x1b[?25h")


def write(descriptor: int, line: str) -> None:
    """Writes a line past Python's buffers, which the interrupted code may be using."""
    with suppress(OSError):
        os.write(descriptor, f"{line}\n".encode())
