"""The worker: runs one job on a node of a cluster and stops the job if its launcher is gone.

Worker and launcher may be on different machines and communicate only by files in the claims
folder: the request file holds the signal that the launcher wants sent to the job, the start file
holds the host and the GPUs of the job, the end file its exit code if other jobs of its allocation
still run, and the heartbeat file shows that the launcher is alive.
"""

import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from vaelab.sweeps.claims import is_process_running, process_space
from vaelab.sweeps.process import Child, Order, Process, append_to_log, start_fresh
from vaelab.training.json_files import read_json_or_nothing, write_json

LOOK = 1.0
"""Seconds between two reads, by launcher or worker, of the other's files."""
SILENT = 25
"""Reads of the heartbeat file without a new beat after which the launcher counts as dead.

Reads and not seconds are counted, since a slow file system delays launcher and worker alike. At
LOOK seconds each, and with HASTE, the job ends before `claims.LOST` seconds have passed, after
which another launcher may start it.
"""
HASTE = 15.0
"""Seconds that a job may take to stop when its launcher is gone."""
NOT_BEGUN = 128 + signal.SIGTERM


class Worker:
    """Runs one job and watches its launcher.

    Args:
        order: The job.
        start: Starts its process.
    """

    def __init__(self, order: Order, start: Callable[[Order], Child] = start_fresh) -> None:
        self.order, self.start = order, start
        self.process: Process | None = None
        self.steps = self.run()
        self.code: int | None = None
        self.asked = False

    def __call__(self) -> int:
        """Runs the job to its end and returns its exit code, see `run`."""
        while (code := self.poll()) is None:
            time.sleep(0.05)
        return code

    def poll(self) -> int | None:
        """Starts the job at the first call, watches it at others; returns the exit code at the end.

        Returns None before.
        """
        if self.code is None:
            try:
                next(self.steps)
            except StopIteration as end:
                self.code = end.value
        return self.code

    def run(self) -> Generator[None, None, int]:
        """Runs the job, unless its launcher is gone, and returns its exit code; 1 on an error.

        Yields while it waits. The code is negative for a signal. The start file is written first.
        The job is stopped if the launcher asks for it or is gone; if that is so before the start,
        the job is not started and NOT_BEGUN is returned. An exception is not raised but appended to
        the job's log.
        """
        launcher = LauncherMonitor(self.order)
        gpus = (os.environ | self.order.environment).get("CUDA_VISIBLE_DEVICES")
        try:
            write_json(start_file(self.order), {"host": socket.gethostname(), "gpus": gpus})
            if launcher.requested_signal() or launcher.was_gone_before_start():
                return NOT_BEGUN
            self.process = Process(self.order, self.start)
            return (yield from self.wait_for_job(self.process, launcher))
        except Exception:
            append_to_log(self.order, traceback.format_exc())
            return 1
        finally:
            self.end_job()
            if launcher.gone:
                delete_exchange_files(self.order)

    def wait_for_job(
        self, process: Process, launcher: "LauncherMonitor"
    ) -> Generator[None, None, int]:
        """Yields until the process ends, and returns its exit code; stops it if the launcher asks.

        If the launcher is gone, it stops the process, and kills it HASTE seconds later.
        """
        done, looked, until = 0, float("-inf"), float("inf")
        while (code := process.poll()) is None:
            now = time.monotonic()
            if now > until:
                process.kill()
            elif now - looked >= LOOK and not launcher.gone:
                looked = now
                if launcher.poll_heartbeat():
                    append_to_log(self.order, "stopped, for its launcher shows no sign of life")
                    process.stop()
                    until = time.monotonic() + HASTE
                elif (asked := launcher.requested_signal()) != done:
                    done = asked
                    (process.kill if asked == signal.SIGKILL else process.stop)()
            yield
        return code

    def stop(self) -> None:
        """Asks the job, once and if it has a process, to write a checkpoint and exit."""
        if self.process and not self.asked:
            self.asked = True
            self.process.stop()

    def end_job(self) -> None:
        """Stops the process, if any, with SIGTERM, and kills it after at most HASTE seconds."""
        if self.process is None:
            return
        self.stop()
        until = time.monotonic() + HASTE
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        self.process.kill()


class LauncherMonitor:
    """Watches a job's launcher from the job's node, by the heartbeat file and the request file.

    Attributes:
        gone: True once the launcher was silent for too long or its process was found dead.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self.beats: int | None = None
        self.silent = 0
        self.gone = False

    def poll_heartbeat(self) -> bool:
        """Reads the heartbeat file once; returns, and stores in `gone`, if the launcher is gone.

        It is gone after more than SILENT successive calls without a new beat, or if it ran on this
        machine and its process has ended.
        """
        content = self.read_heartbeat()
        here = content.get("host") == process_space()
        beats = content.get("beats", self.beats)
        self.silent = self.silent + 1 if beats == self.beats else 0
        self.beats = beats
        self.gone = self.silent > SILENT or (here and not is_process_running(content["pid"]))
        return self.gone

    def was_gone_before_start(self) -> bool:
        """Returns, and stores in `gone`, if the launcher was gone when the job left its queue.

        The job may have been queued for days. The modification times of two files are compared,
        since the clocks of two machines cannot be.
        """
        self.read_heartbeat()  # a read makes NFS refresh the file's cached time
        try:
            since = (
                start_file(self.order).stat().st_mtime - self.order.heartbeat_file.stat().st_mtime
            )
        except FileNotFoundError:
            since = float("inf")
        self.gone = since > SILENT * LOOK or self.poll_heartbeat()
        return self.gone

    def read_heartbeat(self) -> dict[str, Any]:
        """Returns the heartbeat file's content; empty if it is missing or unreadable."""
        return read_json_or_nothing(self.order.heartbeat_file)

    def requested_signal(self) -> int:
        """Returns the signal requested for the job: 0 for none, SIGTERM without a request file.

        Without the file the launcher no longer waits for the job. 0, too, if the file cannot be
        read.
        """
        try:
            return json.loads(request_file(self.order).read_text())["signal"]
        except FileNotFoundError:  # the launcher no longer waits for this job
            return signal.SIGTERM
        except (OSError, ValueError):  # the file is being replaced on a network file system
            return 0


def request_file(order: Order) -> Path:
    """Returns the path of the file in which the launcher requests a signal for a job."""
    return exchange_path(order, "asked.json")


def start_file(order: Order) -> Path:
    """Returns the path of the file in which a started job writes its host and GPUs."""
    return exchange_path(order, "begun.json")


def end_file(order: Order) -> Path:
    """Returns the path of the file with the exit code of a job whose allocation runs others."""
    return exchange_path(order, "ended.json")


def exchange_path(order: Order, name: str) -> Path:
    """Returns the path of a file in the claims folder that belongs to one launcher and one job."""
    return order.heartbeat_file.with_name(
        f"{order.heartbeat_file.stem}.{order.log.parent.name}.{name}"
    )


def delete_exchange_files(order: Order) -> None:
    """Deletes the request file, the start file and the end file of a job, if they exist."""
    for path in (request_file(order), start_file(order), end_file(order)):
        path.unlink(missing_ok=True)
