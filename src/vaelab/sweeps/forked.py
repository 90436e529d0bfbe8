"""The server of `vaelab.sweeps.fork_server`, and how its fork becomes the process of a job."""

import ctypes
import gc
import io
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import numpy as np
from threadpoolctl import threadpool_limits

from vaelab.commands.cli import PARENT
from vaelab.sweeps.fork_server import LATE
from vaelab.sweeps.process import Order

IMPORTS = (
    *("vaelab.commands.train", "vaelab.commands.quiet", "vaelab.commands.training"),
    *("vaelab.models", "vaelab.training.trainer", "vaelab.training.callbacks.stopping"),
    *("vaelab.runs.validation", "vaelab.runs.comparability", "vaelab.sweeps.pruning"),
    *("torch.utils.tensorboard", "PIL.PngImagePlugin", "PIL.BmpImagePlugin"),
    *("PIL.GifImagePlugin", "PIL.JpegImagePlugin", "PIL.PpmImagePlugin"),
)
"""What a training of the default configuration imports, up to its end."""
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
"""Variables by which OpenBLAS counts its threads, the first that is set."""
GPUS = ("/dev/nvidia", "/dev/kfd", "/dev/dri")
"""Beginnings of the device files that the drivers of GPUs open when they are initialised."""
FOR_JOBS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
"""Signals that the server blocks; a fork gets those that come before it is a job when it is one."""
LOOK = 0.02
"""Seconds between two looks for ended jobs."""
SET_NAME = 15
"""Number of the request PR_SET_NAME of `prctl`."""
HIDDEN = (__file__, "<string>", runpy.__file__, "<frozen runpy>")
"""Files of the frames that the traceback of a fresh process does not have."""


def serve(last: list[Callable[[], None]]) -> None:
    """Imports what jobs need, then forks one for each order, until the launcher is gone.

    Runs in the main program of the server, with the number of its socket in sys.argv. Returns only
    in a fork, when the job's command has returned.

    Args:
        last: What the last exit function of Python calls; a job appends its end.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_JOBS)
    launcher = Connection(int(sys.argv[2]))
    given = first_environment()
    for name in IMPORTS:
        import_module(name)
    imported = {k: v for k, v in os.environ.items() if given.get(k) != v}
    printed = os.pread(1, 2**20, 0)  # warnings of imports
    gc.collect()
    gc.freeze()  # so that later collections do not write to, and so copy, the shared pages
    server, running = os.getpid(), set[int]()
    try:
        launcher.send(("ready", obstacle()))
        while True:
            while running and not launcher.poll(LOOK):
                for pid in list(running):
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    if ended:
                        running.remove(pid)
                        launcher.send(("ended", pid, os.waitstatus_to_exitcode(status)))
            order: Order = launcher.recv()
            reason = obstacle() or early_variable(order.environment, given)
            try:
                pid = -1 if reason else os.fork()
            except OSError as error:  # as from a limit of memory or of processes
                pid, reason = -1, f"{error}"
            if not pid:
                break
            if pid > 0:
                running.add(pid)
            launcher.send(("started", pid, reason))
    except (EOFError, OSError):  # the launcher is gone, and the server has nothing to unwind
        os._exit(0)
    launcher.close()
    become_job(order, server, imported, printed)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    run_command(list(order.command), last)


def obstacle() -> str:
    """Returns why this process cannot fork: it has threads, or uses a GPU; empty if it can."""
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        return f"the server of forks has {threads} threads"
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing
            if (file := os.readlink(f"/proc/self/fd/{descriptor}")).startswith(GPUS):
                return f"the server of forks has opened {file}"
    return ""


def first_environment() -> dict[str, str]:
    """Returns the variables that this process was started with, whatever imports have set since."""
    pairs = os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def early_variable(environment: dict[str, str], given: dict[str, str]) -> str:
    """Returns why a job with this environment must start fresh, empty if it need not.

    Args:
        environment: All variables of the job.
        given: Those that the server was started with.
    """
    for name in sorted(environment.keys() | given.keys()):
        value = environment.get(name)
        if value in (given.get(name), os.environ.get(name)):  # an import may have set it
            continue
        if not LATE.fullmatch(name) and name != BLAS_THREADS[0]:
            return f"{name}={value or ''} may take effect before a fork"
    return "" if blas_threads(environment) else "OMP_NUM_THREADS is not one number"


def blas_threads(environment: Mapping[str, str]) -> int:
    """Returns how many threads OpenBLAS would have with these variables, 0 if that is not plain."""
    text = next((environment[name] for name in BLAS_THREADS if name in environment), "")
    return int(text) if text.isdecimal() else 0


def become_job(order: Order, server: int, imported: dict[str, str], printed: bytes) -> None:
    """Makes this fork what a fresh process of the order is before its first line.

    Sets session, output, folder, environment, threads, the name in `ps` and numpy's random state.

    Args:
        order: The job, with all its variables.
        server: Process id of the server.
        imported: Variables that imports have set.
        printed: What imports have printed.
    """
    os.setsid()
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.write(1, printed)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(imported | order.environment | {PARENT: str(server)})
    ctypes.CDLL(None).prctl(SET_NAME, os.fsencode(order.log.parent.name)[:SET_NAME], 0, 0, 0)
    threadpool_limits(blas_threads(os.environ), user_api="blas")
    np.random.seed()  # noqa: NPY002  a fork has numpy's state of the server, but not Python's


def run_command(words: list[str], last: list[Callable[[], None]]) -> None:
    """Runs a command line, `python train.py ...` or `python -m vaelab ...`, as `__main__`.

    Appends the end of this process to `last`, see `serve`, if its exit code is known.
    """
    sys.orig_argv[:] = words
    sys.excepthook = print_exception
    try:
        if words[1] == "-m":
            sys.argv[:] = words[2:]
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        else:
            sys.argv[:] = words[1:]
            runpy.run_path(words[1], run_name="__main__")
    except SystemExit as end:
        code = 0 if end.code is None else end.code
        last.append(partial(leave, code if isinstance(code, int) else 1))
        raise
    except Exception:
        last.append(partial(leave, 1))
        raise
    last.append(partial(leave, 0))


def leave(code: int) -> None:
    """Ends a job at the end of Python's own exit, before it frees thousands of modules one by one.

    That would take two seconds. Flushes the files that the job left open, as it would do. Called
    after threads have ended and after all other exit functions.
    """
    for found in gc.get_objects():
        if issubclass(type(found), io.IOBase):
            with suppress(Exception):  # closed, or not for writing
                found.flush()
    ctypes.CDLL(None).fflush(None)
    os._exit(code & 0xFF)


def print_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Prints an uncaught exception as a fresh process does, without frames of the server."""
    while trace and trace.tb_frame.f_code.co_filename in HIDDEN:
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)
