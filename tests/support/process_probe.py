"""What a job's process is like, for the comparison of one that was forked with a fresh one."""

import json
import logging
import multiprocessing.util
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import threadpoolctl
import torch

OF_ONE_PROCESS = ("VAELAB_PARENT", "PYTEST_CURRENT_TEST")
"""Variables that differ between two processes alike."""


def process_state() -> dict:
    """Returns what a training may depend on, of this process; without ids of processes."""
    main = sys.modules["__main__"]
    thread_counts = []
    thread = threading.Thread(target=lambda: thread_counts.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return {
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "path": sys.path,
        "main": [main.__name__, main.__file__, getattr(main.__spec__, "name", None)],
        "folder": os.getcwd(),
        "name": Path("/proc/self/comm").read_text().strip(),
        "environment": {k: v for k, v in os.environ.items() if k not in OF_ONE_PROCESS},
        "is_parent": os.environ.get("VAELAB_PARENT") == str(os.getppid()),
        "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
        "files": {
            fd: os.readlink(f"/proc/self/fd/{fd}")
            for fd in range(3, 64)
            if os.path.exists(f"/proc/self/fd/{fd}")
        },
        "streams": [
            [file.name, file.encoding, file.errors, file.line_buffering, file.write_through]
            for file in (sys.stdin, sys.stdout, sys.stderr)
        ],
        "output": [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)],
        "signals": {n.name: repr(signal.getsignal(n)).split(" at ")[0] for n in signal.Signals},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "flags": str(sys.flags),
        "umask": os.umask(os.umask(0o22)),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "warnings": sorted({str(entry[:3]) for entry in warnings.filters}),
        "loggers": [str(handler) for handler in logging.getLogger().handlers],
        "threads": torch.__config__.parallel_info(),
        "thread_counts": [torch.get_num_threads(), torch.get_num_interop_threads(), *thread_counts],
        "libraries": sorted(
            [pool["user_api"], Path(pool["filepath"]).name, pool["num_threads"]]
            for pool in threadpoolctl.threadpool_info()
        ),
        "random": [torch.rand(1).item(), float(np.random.rand()), random.random()],  # noqa: NPY002
        "method": multiprocessing.get_start_method(),
    }


class Probe(lightning.Callback):
    """Writes the state of its process into a file before training, and may end the process.

    Args:
        file: The JSON file; empty for none.
        then: What the process does then: `raise`, `exit`, a signal to itself, or nothing.
    """

    def __init__(self, file: str = "", then: str = "") -> None:
        self.file, self.then = file, then

    def setup(self, *_: Any, stage: str) -> None:
        """Called by Lightning before training and before the test."""
        if self.file:
            Path(self.file).write_text(json.dumps(process_state()))
            self.left_open = Path(f"{self.file}.open").open("w")  # noqa: SIM115
            self.left_open.write("flushed by the end of Python")
            at_exit = Path(f"{self.file}.finalized").touch
            multiprocessing.util.Finalize(None, at_exit, exitpriority=0)
        print("probed")
        if self.then == "raise":
            raise RuntimeError("trouble")
        if self.then == "exit":
            sys.exit(3)
        if self.then:
            os.kill(os.getpid(), getattr(signal, self.then))
