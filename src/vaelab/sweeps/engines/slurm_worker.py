"""What runs in an allocation of SLURM: the jobs of a sweep, and going on after a time limit."""

import signal
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

from submitit.helpers import DelayedSubmission

from vaelab.errors import WriteError
from vaelab.sweeps.engines.local import visible_gpus
from vaelab.sweeps.engines.slurm_commands import requeue_if_preempted
from vaelab.sweeps.fork_server import Start, build_fork_server
from vaelab.sweeps.process import Order, start_fresh
from vaelab.sweeps.worker import NOT_BEGUN, Worker, end_file, request_file, start_file
from vaelab.training.json_files import write_json


class RequeuingWorker:
    """Runs the jobs of an allocation; submitit starts it, again after a time limit or preemption.

    A picklable callable. Several jobs are forks of one server.

    Args:
        orders: The jobs.
        gpus: GPUs of each job.
        start: How several jobs start, see `Slurm`.
    """

    stopped = False  # by SIGTERM from SLURM, or at the time limit

    def __init__(self, orders: Sequence[Order], gpus: int, start: Start) -> None:
        self.orders, self.gpus, self.process_start = orders, gpus, start
        self.running: list[tuple[Worker, dict[str, str]]] = []

    def __call__(self) -> dict[Path, int]:
        """Runs the jobs and returns the exit code of each, by its log; handles SIGTERM.

        After SIGTERM no job is started, and those that run are stopped. If SLURM has queued the
        allocation again, it raises SystemExit: submitit then writes no result, and the launcher
        waits on. Also deletes the start files.
        """
        signal.signal(signal.SIGTERM, self.note_stop)  # from scancel; submitit ignores it
        codes = self.run_jobs()
        if self.stopped and requeue_if_preempted():
            self.delete_start_files()
            raise SystemExit(NOT_BEGUN)
        return {order.log: codes.get(order.log, NOT_BEGUN) for order in self.orders}

    def run_jobs(self) -> dict[Path, int]:
        """Runs the jobs that the launcher waits for and that have not ended; returns exit codes.

        Writes the end file of each but the last, whose end is that of the allocation, and of those
        that were stopped, which may be queued again.
        """
        waiting = deque(order for order in self.orders if is_wanted(order))
        codes, free, server = {}, self.places(), None
        if len(waiting) > 1:
            first = waiting[0]
            server = build_fork_server(
                self.process_start, first.command, first.environment, first.folder
            )
        try:
            while self.running or (waiting and not self.stopped):
                while waiting and free and not self.stopped:
                    place, order = free.pop(), waiting.popleft()
                    order = replace(order, environment=order.environment | place)
                    worker = Worker(order, server.start if server else start_fresh)
                    self.running.append((worker, place))
                for worker, place in list(self.running):
                    if (code := worker.poll()) is not None:
                        self.running.remove((worker, place))
                        free.append(place)
                        codes[worker.order.log] = code
                        others = self.running or waiting
                        if others and not self.stopped and is_wanted(worker.order):
                            with suppress(WriteError):  # the code is also returned
                                write_json(end_file(worker.order), {"exit": code})
                    elif self.stopped:
                        worker.stop()
                sleep(0.05)
        finally:
            if server:
                server.close()
        return codes

    def places(self) -> list[dict[str, str]]:
        """Returns the variables of each place for a job: its GPUs, if there are for several.

        Reads the GPUs of this process, which are the allocation's.
        """
        gpus = visible_gpus() if self.gpus and len(self.orders) > 1 else []
        count = len(gpus) // self.gpus if gpus else 0
        if count < 2:
            return [{}]
        parts = (gpus[i * self.gpus : (i + 1) * self.gpus] for i in range(count))
        return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]

    def note_stop(self, *_: Any) -> None:
        """Called on SIGTERM, as by scancel: has `run_jobs` stop the jobs and start no other."""
        self.stopped = True

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit before the time limit: ends the jobs and returns the resubmission.

        Deletes the start files of the jobs that submitit queues again.
        """
        self.stopped = True
        for worker, _ in self.running:
            worker.stop()
        for worker, _ in self.running:
            worker.end_job()
        self.delete_start_files()
        return DelayedSubmission(RequeuingWorker(self.orders, self.gpus, self.process_start))

    def delete_start_files(self) -> None:
        """Deletes the start files of the jobs that have not ended."""
        for order in self.orders:
            if not end_file(order).exists():
                start_file(order).unlink(missing_ok=True)


def is_wanted(order: Order) -> bool:
    """True if the launcher waits for a job, and has not been told of its end."""
    return request_file(order).exists() and not end_file(order).exists()
