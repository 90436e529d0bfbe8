"""Signals that ask this process to stop, held back until it can: Ctrl-C, SIGTERM and SIGHUP.

While they are held, no handler is called in the midst of other work. Lightning's handler of SIGTERM
begins a broadcast, which hangs if another process waits in a barrier. Does not import torch.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name)
)  # Windows has no SIGHUP
CAN_HOLD = hasattr(signal, "pthread_sigmask")  # Windows cannot: there Ctrl-C ends the process


class StopSignals:
    """The held signals of this process; training polls them after each step.

    Attributes:
        held: The numbers of the signals that are blocked.
        deferred: True while training polls them; otherwise they may end the process at once.
        noted: The number of the signal that `poll` found, here or in another process of the
            training; 0 for none.
    """

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.deferred = False
        self.noted = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Context manager that blocks the signals that are not ignored; main thread only.

        Threads inherit the block, so it must begin before any other thread can receive a signal.
        Signals that are pending at its end get their handlers, unless the process is exiting.
        """
        self.held, self.deferred, self.noted = set(), False, 0
        if not CAN_HOLD:
            yield
            return
        self.held = set(noticed_signals())
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self.held)
        try:
            yield
        except SystemExit:
            self.poll()
            raise
        finally:
            self.held, self.deferred = set(), False
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def pending(self) -> set[int]:
        """Returns the held signals that have arrived and that `poll` has not taken."""
        if not self.held:
            return set()
        return {int(number) for number in signal.sigpending()} & self.held

    def poll(self) -> int:
        """Takes pending signals; returns the number of the one to obey, 0 if none has arrived."""
        while arrived := self.pending():
            self.noted = max(self.noted, signal.sigwait(arrived))
        return self.noted


def block_in_thread() -> None:
    """Blocks the stopping signals in the calling thread, so that the main thread gets them."""
    if CAN_HOLD:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def noticed_signals() -> list[int]:
    """Returns the stopping signals that this process does not ignore, as SIGHUP under nohup."""
    return [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]


def exit_code(number: int) -> int:
    """Returns the exit code of a process that a signal stopped: 130 for Ctrl-C, otherwise 143."""
    return 130 if number == signal.SIGINT else 143


stop_signals = StopSignals()
"""The stop signals of this process, of which there is one set."""
