"""Jobs that start at once: a server process imports what a training needs, and forks each job.

A fresh process imports torch, Lightning and vaelab anew, which takes longer than a short training.
A launcher therefore starts one server, sends it orders, and is told process ids and exit codes over
a socket; `vaelab.sweeps.forked` is the server's and the job's side. The rules:

1. A job is as good as a fresh process: own session, log, working folder, environment, sys.argv,
   `__main__`, threads, and the exit of Python itself. It trains to the same bits.
2. The server does nothing but import and fork. A fork copies one thread only, and no state of CUDA,
   so a server that has threads or has opened a GPU refuses. OpenBLAS, which would start
   threads when it is imported, has one in the server, and in each job what it would have read.
3. What cannot be made good after a fork starts fresh: another program than vaelab's own training,
   which could set variables before it imports torch, and a job whose environment variables differ
   from the server's, as OMP_NUM_THREADS may, for many are read when Python starts or a library is
   imported; only those of LATE are known to be read later. So does everything if
   `hydra.launcher.start=fresh`, or without Linux: macOS has libraries that do not survive a fork,
   and Windows has no fork.
4. A server that fails is no failure of the sweep: jobs start fresh, with a line in their logs.
5. The server is no job: it blocks the signals that ask to stop, which a container or SLURM sends
   to all processes at once, and lives until the launcher ends it.
6. Nobody outlives the launcher. The kernel closes the socket of one that was killed; the server
   ends at once, and its jobs, whose parent it is, write a checkpoint and end as
   `vaelab.commands.cli` has it. If the server alone was killed, they do the same, and the launcher
   reports them as failed, so that the same command goes on with them.

The standard library's forkserver has no log, session, environment or exit by signal of its own for
a child, would import the launcher's `__main__` into it, and is one for a whole process, which Ray
may share. What would be left of it is shorter than what would have to be undone.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from vaelab.commands.config_folders import CONF
from vaelab.commands.stopping import signal_name
from vaelab.errors import UserError
from vaelab.sweeps.process import (
    Child,
    Order,
    append_to_log,
    full_environment,
    start_fresh,
)

Start = Literal["auto", "fork", "fresh"]
"""Type of the setting `hydra.launcher.start`."""
PROGRAM = (
    "import atexit, sys; last = []; atexit.register(lambda: [end() for end in last]); "
    "sys.path[:] = [p or sys.argv[1] for p in sys.path]; "
    "from vaelab.sweeps.forked import serve; serve(last)"
)
"""The server's Python program; replaces `''` in sys.path by what a job has there.

Python calls the exit function that is registered first, before any import, after all others.
"""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""Keeps OpenBLAS, in numpy and scipy, from starting threads when it is imported."""
LATE = re.compile(r"[A-Z]+_VISIBLE_DEVICES|VAELAB_.*")
"""Variables that are read when they are needed, so that a fork may have values of its own."""
ANSWER = 60.0
"""Seconds after which a server that does not answer counts as gone."""
LOST = 1
"""Exit code of a job that ended after its server, so that nobody knows its own."""


class ForkServer:
    """The launcher's side of a fork server; starts the process, which takes seconds to be ready.

    Args:
        command: First words of the command line of the jobs, see `can_fork`.
        environment: Variables of the jobs beside those of this process.
        folder: Working directory of the jobs.

    Attributes:
        is_ready: True once the server can fork.
        failure: Why it cannot, or no longer, be used; empty while it can.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], folder: str) -> None:
        self.environment = environment
        self.base = full_environment({})
        self.is_ready = False
        self.failure = ""
        self.forks: dict[int, Fork] = {}
        self.connection, theirs = Pipe()
        self.opened = ExitStack()
        self.opened.callback(self.connection.close)
        try:
            self.launch(command, folder, theirs.fileno())
        except OSError as error:  # as on a full disk, or from a limit of processes
            self.failure = f"the server of forks did not start: {error}"
        finally:
            theirs.close()

    def launch(self, command: Sequence[str], folder: str, socket: int) -> None:
        """Starts the server's process, whose output goes into a temporary file."""
        first = folder if command[1] == "-m" else os.path.dirname(command[1])
        self.output = self.opened.enter_context(TemporaryFile())  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, first, str(socket)],
            cwd=folder,
            env=full_environment(self.environment) | ONE_THREAD,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[socket],
        )
        self.opened.callback(self.process.wait)
        self.opened.callback(self.process.kill)

    def is_starting(self) -> bool:
        """True until the server is ready or has failed; reads what it has sent."""
        self.read()
        return not self.is_ready and not self.failure

    def start(self, order: Order) -> Child:
        """Starts the process of an order, by a fork if the server is ready, otherwise fresh.

        Waits for a server that is starting. A job of vaelab's own that cannot be forked gets a line
        in its log.
        """
        if not can_fork(order.command):
            return start_fresh(order)
        while not self.is_ready and not self.failure:
            self.read(None)
        reason = self.failure
        if not reason:
            order.log.open("ab").close()  # raises here what would be an error of the job there
            try:
                self.connection.send(replace(order, environment=self.variables(order)))
                pid, reason = self.receive("started")
            except OSError:  # as from a server that has just been killed
                self.fail()
                reason = self.failure
            else:
                if not reason:
                    self.forks[pid] = Fork(self, order, pid)
                    return self.forks[pid]
        append_to_log(order, f"started as a fresh process, not as a fork: {reason}")
        return start_fresh(order)

    def variables(self, order: Order) -> dict[str, str]:
        """Returns all variables of a forked job.

        Those of this process are as they were when the server started, but for LATE: imports set
        some later, which a job does not need.
        """
        late = {k: v for k, v in full_environment({}).items() if LATE.fullmatch(k)}
        early = {k: v for k, v in self.base.items() if not LATE.fullmatch(k)}
        return early | late | order.environment

    def read(self, timeout: float | None = 0.0) -> None:
        """Reads all messages that have come, after waiting for the first one; notes a failure."""
        while not self.failure:
            try:
                if not self.connection.poll(timeout):
                    return
                self.note(*self.connection.recv())
            except (EOFError, OSError):
                self.fail()
            timeout = 0.0

    def receive(self, wanted: str) -> Sequence[Any]:
        """Waits for a message of some kind, returns its content; raises OSError without an answer.

        Notes other messages that come before it.
        """
        while self.connection.poll(ANSWER):
            try:
                kind, *content = self.connection.recv()
            except EOFError as error:
                raise ConnectionError from error
            if kind == wanted:
                return content
            self.note(kind, *content)
        raise TimeoutError

    def note(self, kind: str, *content: Any) -> None:
        """Notes a message: that the server is ready, or cannot fork, or the exit code of a fork."""
        if kind == "ended":
            pid, code = content
            self.forks.pop(pid).code = code
        elif content[0]:  # of `ready`: why the server cannot fork
            self.fail(content[0])
        else:
            self.is_ready = True

    def fail(self, reason: str = "") -> None:
        """Ends the server and notes why it failed: for this reason, or else by how it ended."""
        if not reason:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)  # it has closed its end of the socket
            code = self.process.poll()
            self.output.seek(0)
            said = self.output.read().decode(errors="replace").strip().splitlines()
            how = f"by {signal_name(-code)}" if code is not None and code < 0 else ""
            last = f": {said[-1]}" if said and not how else ""
            reason = f"the server of forks ended {how or f'with exit code {code}'}{last}"
            reason = reason if code is not None else "the server of forks does not answer"
        self.close()
        self.failure = reason

    def close(self) -> None:
        """Ends the server, and so its jobs; again is no error."""
        self.failure = self.failure or "the server of forks was closed"
        self.opened.close()


class Fork:
    """A job's process that a fork server has started; its exit code comes from the server."""

    def __init__(self, server: ForkServer, order: Order, pid: int) -> None:
        self.server, self.order, self.pid = server, order, pid
        self.code: int | None = None

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal, None while it runs.

        That of a job whose server is gone is LOST, with a line in its log.
        """
        self.server.read()
        if self.code is None and self.server.failure and has_ended(self.pid):
            self.code = LOST
            said = f"error: {self.server.failure}; the same command goes on with this job"
            with suppress(OSError):  # of a full disk
                append_to_log(self.order, said)
        return self.code

    def send_signal(self, sig: int) -> None:
        """Sends a signal to the process; one that has ended is no error."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)


def build_fork_server(
    start: Start, command: Sequence[str], environment: dict[str, str], folder: str
) -> ForkServer | None:
    """Starts a server for a command if the setting `hydra.launcher.start` allows; or returns None.

    None is returned for `fresh` and for a command that cannot be forked, see `can_fork`.

    Args:
        start: The setting.
        command: First words of the command line of the jobs.
        environment: Variables of the jobs beside those of this process.
        folder: Working directory of the jobs.

    Raises:
        UserError: For `fork` without Linux.
    """
    if start == "fork" and sys.platform != "linux":
        raise UserError("hydra.launcher.start=fork: needs Linux; give hydra.launcher.start=fresh")
    if start == "fresh" or not can_fork(command):
        return None
    return ForkServer(command, environment, folder)


def kept_server(start: Start, order: Order) -> ForkServer | None:
    """Returns a server for an order, which is kept for later orders; closes one for others.

    For a process that gets its orders one after the other, such as a worker of Ray.
    """
    words = 3 if order.command[1] == "-m" else 2
    program, environment = tuple(order.command[:words]), order.environment
    key = (start, program, order.folder, environment.get("OMP_NUM_THREADS"))
    if key not in kept:
        for server in kept.values():
            if server:
                server.close()
        kept.clear()
        kept[key] = build_fork_server(start, order.command, environment, order.folder)
    return kept[key]


kept: dict[tuple[Any, ...], ForkServer | None] = {}
"""The server of `kept_server` in this process, of which there is at most one."""


def can_fork(command: Sequence[str]) -> bool:
    """True on Linux if a command line is vaelab's own training with this process's Python."""
    program, *words = command
    script = CONF.resolve().parent / "train.py"  # of a checkout
    own = words[:3] == ["-m", "vaelab", "train"] or words[:1] == [str(script)]
    return sys.platform == "linux" and program == sys.executable and own


def has_ended(pid: int) -> bool:
    """True if there is no such process, or it is a zombie, which has ended; on Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
