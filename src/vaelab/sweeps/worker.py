"""What runs on a node for a launcher that may be on another: a job, and an eye on its launcher.

They know of each other by files beside the launcher's claims, and by nothing else: `asked` is
what the launcher wants of the job, `begun` is where the job runs, and the beats of its sign of
life are watched for as long as the job runs.
"""

import json
import os
import signal
import socket
import time
import traceback
from pathlib import Path
from typing import Any

from vaelab.sweeps.claims import exists
from vaelab.sweeps.process import Order, Process
from vaelab.training.json_files import read_json, write_json

LOOK = 1.0
"""Seconds between two looks of launcher and job at each other."""
SILENT = 25
"""Looks without a sign of life after which the launcher is taken for dead.

Looks, so that a file system which keeps everyone waiting is not held against it. With HASTE it
is over before `claims.LOST`, when another launcher may start the job.
"""
HASTE = 15.0
"""Seconds that a job may take to stop when nobody waits for it."""
NOT_BEGUN = 128 + signal.SIGTERM


class Worker:
    """Runs one job.

    Args:
        order: The job.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self.process: Process | None = None

    def __call__(self) -> int:
        """The exit code of the job, negative for a signal, once it has ended.

        It stops early if the launcher asks for it or is gone, and does not begin if that is so
        already.
        """
        launcher = Launcher(self.order)
        gpus = (os.environ | self.order.environment).get("CUDA_VISIBLE_DEVICES")
        try:
            write_json(begun(self.order), {"host": socket.gethostname(), "gpus": gpus})
            if launcher.asks() or launcher.long_gone():
                return NOT_BEGUN
            self.process = Process(self.order)
            return self.watch(self.process, launcher)
        except Exception:
            note(self.order, traceback.format_exc())
            return 1
        finally:
            self.end()
            if launcher.gone:
                forget(self.order)

    def watch(self, process: Process, launcher: "Launcher") -> int:
        done, looked = 0, float("-inf")
        while (code := process.poll()) is None:
            if time.monotonic() - looked >= LOOK:
                looked = time.monotonic()
                if launcher.look():
                    note(self.order, "stopped, for its launcher shows no sign of life")
                    self.end()
                elif (asked := launcher.asks()) != done:
                    done = asked
                    (process.kill if asked == signal.SIGKILL else process.stop)()
            time.sleep(0.05)
        return code

    def end(self) -> None:
        """Has the job write a checkpoint and stop, in some haste."""
        if self.process is None:
            return
        self.process.stop()
        until = time.monotonic() + HASTE
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        self.process.kill()


class Launcher:
    """The launcher of a job, as far as can be seen from its node.

    Attributes:
        gone: Whether it is, for all that can be seen.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self.beats: int | None = None
        self.silent = 0
        self.gone = False

    def look(self) -> bool:
        """Whether it has been silent for too long, or is known to be dead."""
        content = self.sign()
        here = content.get("host") == socket.gethostname()
        beats = content.get("beats", self.beats)
        self.silent = self.silent + 1 if beats == self.beats else 0
        self.beats = beats
        self.gone = self.silent > SILENT or (here and not exists(content["pid"]))
        return self.gone

    def long_gone(self) -> bool:
        """Whether it was when the job came to its turn, which may have been days later.

        By the times of two files, since clocks of two machines are not to be compared.
        """
        self.sign()  # which has the network's file system look again
        try:
            since = begun(self.order).stat().st_mtime - self.order.life.stat().st_mtime
        except FileNotFoundError:
            since = float("inf")
        self.gone = since > SILENT * LOOK or self.look()
        return self.gone

    def sign(self) -> dict[str, Any]:
        try:
            return read_json(self.order.life)
        except (OSError, ValueError):
            return {}

    def asks(self) -> int:
        """The signal that the job is to end by; 0 if it may go on."""
        try:
            return json.loads(asked(self.order).read_text())["signal"]
        except FileNotFoundError:  # it waits no more for this job
            return signal.SIGTERM
        except (OSError, ValueError):  # as when the file is replaced on a network's file system
            return 0


def asked(order: Order) -> Path:
    """The file in which the launcher asks a job to end."""
    return beside(order, "asked.json")


def begun(order: Order) -> Path:
    """The file in which a job says where it runs."""
    return beside(order, "begun.json")


def beside(order: Order, name: str) -> Path:
    """What this launcher and this job have between them, until one of them is gone."""
    return order.life.with_name(f"{order.life.stem}.{order.log.parent.name}.{name}")


def forget(order: Order) -> None:
    """Takes away what launcher and job had to say to each other."""
    for path in (asked(order), begun(order)):
        path.unlink(missing_ok=True)


def note(order: Order, text: str) -> None:
    """Adds something to the log of a job, after what it has printed itself."""
    order.log.parent.mkdir(parents=True, exist_ok=True)
    with order.log.open("a") as log:
        log.write(f"{text.rstrip()}\n")
