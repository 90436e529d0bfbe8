"""Programs of vaelab as processes that start at once: `run` and `start`.

A fresh process imports torch and Lightning for seconds, and most tests are of what follows. These
two have the arguments of `subprocess.run` and `subprocess.Popen` that tests use. A program of
vaelab is forked by a server that has made the imports, of which each process of tests has one for
each number of threads. Other programs start fresh, and so does one whose environment has variables
that are read when Python or a library starts.
"""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import IO, Any

PROGRAMS = ("train", "evaluate", "generate", "encode", "export", "report")
ROOT = Path(__file__).parents[2]
LATE = re.compile(
    "VAELAB_.*|HYDRA_FULL_ERROR|PYTEST_.*|PYTHONPATH|STOP|TROUBLE|MEASURE_TROUBLE"
    "|RANK|.*_RANK|WORLD_SIZE|MASTER_.*|TORCHELASTIC_.*|SLURM_.*"
    "|PL_.*|PYTORCH_NVML_BASED_CUDA_CHECK|TORCHINDUCTOR_CACHE_DIR"
)
"""Environment variables that are read when they are needed, or that a fork is given.

Those of the last line are set by trainings in the process of the tests.
"""
THREADS = "OMP_NUM_THREADS"
PROGRAM = (
    "import atexit; last = []; atexit.register(lambda: [end() for end in last]); "
    "from support.program_server import serve; serve(last)"
)
"""The server's Python program; Python calls the function that is registered first after all others.
"""


class Server:
    """A process of `program_server`, and the exit codes of its forks.

    Args:
        threads: The value of OMP_NUM_THREADS, empty for none.
    """

    def __init__(self, threads: str) -> None:
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.environment = {k: v for k, v in os.environ.items() if k != THREADS}
        self.environment |= {THREADS: threads} if threads else {}
        paths = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(theirs.fileno())],
            env=self.environment | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.codes: dict[int, int] = {}

    def fork(self, order: dict[str, Any], streams: list[int]) -> int:
        """Starts a program, see `program_server.become`; returns its process id."""
        socket.send_fds(self.link, [json.dumps(order).encode()], streams)
        while True:
            pid, code = json.loads(self.link.recv(2**10))
            if code is None:
                return pid
            self.codes[pid] = code

    def read(self, timeout: float) -> None:
        """Notes the exit codes that have come, after waiting for the first of them."""
        while select.select([self.link], [], [], timeout)[0]:
            pid, code = json.loads(self.link.recv(2**10))
            self.codes[pid] = code
            timeout = 0.0


@cache
def server_of(threads: str) -> Server:
    """Returns the server of programs with this number of threads."""
    return Server(threads)


class Program:
    """A forked program, with what tests use of `subprocess.Popen`."""

    def __init__(self, server: Server, words: list[str], **options: Any) -> None:
        self.server, self.args = server, words
        self.returncode: int | None = None
        self.stdout, output = opened(options.get("stdout"), 1, options.get("text", False))
        if options.get("stderr") == subprocess.STDOUT:
            self.stderr, errors = None, os.dup(output)
        else:
            self.stderr, errors = opened(options.get("stderr"), 2, options.get("text", False))
        streams = [os.open(os.devnull, os.O_RDONLY), output, errors]
        order = {
            "words": [os.fspath(word) for word in words],
            "folder": os.fspath(options.get("cwd") or os.getcwd()),
            "environment": dict(options.get("env") or os.environ),
            "is_leader": options.get("start_new_session", False),
            "ignored": options.get("ignored"),
            "closed": list(options.get("closed", ())),
        }
        self.pid = server.fork(order, streams)
        for stream in streams:
            os.close(stream)

    def poll(self, timeout: float = 0.0) -> int | None:
        """Returns the exit code, negative for a signal; None while it runs."""
        if self.pid not in self.server.codes:
            self.server.read(timeout)
        self.returncode = self.server.codes.get(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end and returns the exit code."""
        until = time.monotonic() + (timeout or float("inf"))
        while (code := self.poll(0.1)) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Returns output and errors, after the end."""
        found: list[Any] = [None, None]

        def read(i: int, stream: IO[Any]) -> None:
            with stream:
                found[i] = stream.read()

        streams = [(i, each) for i, each in enumerate((self.stdout, self.stderr)) if each]
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in streams]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return found[0], found[1]

    def send_signal(self, number: int) -> None:
        """Sends a signal; to a process that has ended none."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Program":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the end."""
        self.wait()


def opened(wanted: Any, number: int, is_text: bool) -> tuple[IO[Any] | None, int]:
    """Returns the reader of a stream, if it is a pipe, and a new descriptor to write to."""
    if wanted == subprocess.PIPE:
        reading, writing = os.pipe()
        return os.fdopen(reading, "r" if is_text else "rb"), writing
    if wanted == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    if wanted is None:
        return None, os.dup(number)
    return None, os.dup(wanted if isinstance(wanted, int) else wanted.fileno())


def start(
    words: list[Any],
    *,
    ignored: int | None = None,
    closed: Collection[int] = (),
    **options: Any,
) -> Any:
    """Starts a program, as `subprocess.Popen` does.

    Args:
        words: The command line.
        ignored: A signal that it ignores from the start.
        closed: Descriptors of standard streams that are closed from the start.
        options: `cwd`, `env`, `stdout`, `stderr`, `text` and `start_new_session` of `Popen`; with
            others it starts fresh.
    """
    environment = options.get("env") or os.environ
    server = sys.platform == "linux" and is_ours([*map(os.fspath, words)])
    if server:
        found = server_of(environment.get(THREADS, ""))
        names = {*environment, *found.environment}
        early = [n for n in names if environment.get(n) != found.environment.get(n)]
        if all(LATE.fullmatch(name) for name in early):
            return Program(found, words, ignored=ignored, closed=closed, **options)

    def prepare() -> None:
        """Called in the new process before the program."""
        if ignored:
            signal.signal(ignored, signal.SIG_IGN)
        for number in closed:
            os.close(number)

    return subprocess.Popen(words, preexec_fn=prepare if ignored or closed else None, **options)


def is_ours(words: list[str]) -> bool:
    """Returns whether a command line is this Python's, of a program of vaelab."""
    program, first, *rest = words
    is_module = first == "-m" and rest[:1] == ["vaelab"] and rest[1:2] and rest[1] in PROGRAMS
    is_script = first in {f"{name}.py" for name in PROGRAMS}
    return program == sys.executable and bool(is_module or is_script)


def run(
    words: list[Any], *, timeout: float | None = None, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Runs a program, as `subprocess.run` does; see `start`."""
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(words, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    done = subprocess.CompletedProcess(words, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done
