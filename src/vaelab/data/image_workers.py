"""Worker processes that read image files; a file that crashes its decoder is named, not fatal.

They are programs of their own, not forks of this process, which may have threads of torch, nor
spawned by multiprocessing, which would run the user's script again.
"""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Lock, local
from typing import Any, Self

from vaelab.files.image_decoding import FUNCTIONS, attempt

FILES_PER_WORKER = 100  # below it a worker's start takes longer than it saves
FILES_PER_REQUEST = 16
AHEAD = 4  # requests per worker that are under way or wait to be taken, to bound memory
PROGRAM = "from vaelab.files.image_decoding import serve; serve()"

Attempt = tuple[Any, str, bool]
"""Result, fault in words, and whether the file is broken; see `image_decoding.attempt`."""


class ImageWorkers:
    """Context manager: processes that read image files; ends them when it is left.

    With few files, or a single core, this process reads them itself.

    Args:
        num_files: Number of the files that they will read.
    """

    def __init__(self, num_files: int) -> None:
        count = min(num_cores(), num_files // FILES_PER_WORKER)
        self.count = count if count > 1 else 0
        self.threads = ThreadPoolExecutor(max(1, self.count))  # each waits for one process
        self.own, self.lock = local(), Lock()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.over = True
            for process in self.processes:
                process.kill()
        self.threads.shutdown(cancel_futures=True)
        for process in self.processes:
            close(process)

    def run(self, function: str, paths: Sequence[str], *others: Any) -> Iterator[Attempt]:
        """Yields the result of a function of `image_decoding` for each path, in their order.

        Args:
            function: Its name.
            paths: The files.
            others: Further arguments of the function.
        """
        if not self.count:
            yield from (attempt(FUNCTIONS[function], path, *others) for path in paths)
            return
        waiting: deque[Future[list[Attempt]]] = deque()
        for start in range(0, len(paths), FILES_PER_REQUEST):
            some = list(paths[start : start + FILES_PER_REQUEST])
            waiting.append(self.threads.submit(self.ask, function, some, others))
            if len(waiting) >= AHEAD * self.count:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    def ask(self, function: str, paths: list[str], others: tuple[Any, ...]) -> list[Attempt]:
        """Sends a request to this thread's process, which it may start; returns the results.

        If the process dies of it, each file is sent alone, to find the one that kills it.
        """
        try:
            process = self.process()
            assert process.stdin
            assert process.stdout
            pickle.dump((function, paths, others), process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            self.own.process = None
            if self.over:
                return []
            if len(paths) == 1:
                return [(None, "it crashes the decoder", True)]
            return [found for path in paths for found in self.ask(function, [path], others)]

    def process(self) -> "subprocess.Popen[bytes]":
        """Returns this thread's process; starts it on first use. OSError once all are ended."""
        if getattr(self.own, "process", None) is None:
            places = [os.path.abspath(place) for place in sys.path]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with self.lock:  # so that none starts after the others were ended
                if self.over:
                    raise OSError("ended")
                command = [sys.executable, "-P", "-c", PROGRAM]
                self.own.process = subprocess.Popen(command, env=environment, **pipes)
                self.processes.append(self.own.process)
        return self.own.process


def close(process: "subprocess.Popen[bytes]") -> None:
    """Closes the pipes of a process that was killed, and waits for its end."""
    for pipe in (process.stdin, process.stdout):
        assert pipe
        with suppress(OSError):  # what was not sent yet
            pipe.close()
    process.wait()


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
