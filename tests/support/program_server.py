"""The server of `support.programs`: forks programs of vaelab, whose imports it has made."""

import gc
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from support.programs import PROGRAMS
from vaelab.sweeps import forked

LOOK = 0.01
"""Seconds between two looks for ended forks."""


def serve(last: list[Callable[[], None]]) -> None:
    """Forks a program for each order that comes; returns in the fork, when its command has.

    Runs in the main program of the server, with the number of its socket in sys.argv.

    Args:
        last: What the last exit function of Python calls; a fork appends its end.
    """
    link = socket.socket(fileno=int(sys.argv[1]))
    for name in (*forked.IMPORTS, *(f"vaelab.commands.{name}" for name in PROGRAMS)):
        import_module(name)
    gc.collect()
    gc.freeze()
    given = forked.first_environment()
    imported = {k: v for k, v in os.environ.items() if given.get(k) != v}
    running = set[int]()
    while True:
        link.settimeout(LOOK if running else None)
        try:
            data, streams, *_ = socket.recv_fds(link, 2**20, 3)
        except TimeoutError:
            for pid in [*running]:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    running.remove(pid)
                    link.send(json.dumps([pid, os.waitstatus_to_exitcode(status)]).encode())
            continue
        if not data:  # the tests have ended
            os._exit(0)
        order = json.loads(data)
        if not (pid := os.fork()):
            break
        for stream in streams:
            os.close(stream)
        running.add(pid)
        link.send(json.dumps([pid, None]).encode())
    link.close()
    become(order, streams, given, imported)
    forked.run_command(order["words"], last)


def become(
    order: dict[str, Any], streams: list[int], given: dict[str, str], imported: dict[str, str]
) -> None:
    """Makes this fork what a fresh process of the order is before its first line.

    Args:
        order: The order of `programs`.
        streams: Its input, output and errors.
        given: The variables that this process was started with.
        imported: Variables that imports have set.
    """
    if order["is_leader"]:
        os.setsid()
    if order["ignored"]:
        signal.signal(order["ignored"], signal.SIG_IGN)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    for number in order["closed"]:
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)
    os.chdir(order["folder"])
    own = order["environment"]
    os.environ.clear()
    os.environ.update(imported | own)
    after = [path for path in own.get("PYTHONPATH", "").split(os.pathsep) if path]
    before = {*given.get("PYTHONPATH", "").split(os.pathsep), *after, sys.path[0]}
    program = order["words"][1]
    first = os.getcwd() if program == "-m" else os.path.dirname(os.path.abspath(program))
    sys.path[:] = [first, *after, *(path for path in sys.path if path not in before)]
    random.seed()
    np.random.seed()  # noqa: NPY002
