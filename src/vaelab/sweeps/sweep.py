"""The loop of a sweep: claims jobs, starts them, watches them, and says what came of it."""

import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from uuid import uuid4

from vaelab.commands import cli
from vaelab.runs.folder import PROGRESS
from vaelab.sweeps.claims import Claims, alone
from vaelab.sweeps.engines import Engine, Handle
from vaelab.sweeps.job import FAILURE, LOG, Job, ending, last_error
from vaelab.sweeps.planning import Planner
from vaelab.sweeps.process import Order
from vaelab.sweeps.screen import Screen
from vaelab.sweeps.sources import Source
from vaelab.training.json_files import read_json, write_json

INDEX = "sweep.json"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK = 0.05
"""Seconds between two looks at the running jobs."""
PATIENCE = 1.0
"""Seconds between two looks at what other launchers do, and at files of progress."""


class Sweep:
    """Runs the jobs of a source, in the folder of a sweep.

    Args:
        planner: Makes jobs of overrides.
        engine: Runs them.
        grace: Seconds that a job may take to stop.
    """

    def __init__(self, planner: Planner, engine: Engine, grace: float) -> None:
        self.planner = planner
        self.engine = engine
        self.grace = grace
        self.folder = planner.folder
        self.jobs: list[Job] = []
        self.waiting: deque[Job] = deque()
        self.running: dict[str, tuple[Job, Handle, int]] = {}  # and where its log began
        self.elsewhere: list[Job] = []
        self.signal: int | None = None
        self.urgent = False
        self.asked: float | None = None  # when the jobs were asked to stop

    def run(self, source: Source) -> int:
        """Runs all jobs; 0 if all are done, 1 if some failed, 128 + signal if it was stopped."""
        jobs = source.first(self.plan)
        self.engine.expect(sum(job.state == "waiting" for job in jobs) + source.to_come())
        self.add(jobs)
        screen = Screen(self.folder, source.to_come)
        with Claims(self.folder) as claims, screen, self.signals():
            self.claims, self.screen, self.source = claims, screen, source
            screen.begin(self.jobs)
            try:
                self.loop()
            except BaseException:
                self.signal = self.signal or signal.SIGTERM
                self.loop()  # leaves nothing running
                raise
            finally:
                self.engine.close()
        screen.summary(self.jobs, self.signal, source.summary())
        if self.signal is not None:
            return 128 + self.signal
        return int(any(job.state == "failed" for job in self.jobs))

    def plan(self, *args: Any, **kwargs: Any) -> Job:
        """A job, which this engine could run."""
        job = self.planner(*args, **kwargs)
        self.engine.check(job)
        return job

    def add(self, jobs: list[Job]) -> None:
        """Takes jobs in, and keeps what they are in the folder, for reports."""
        self.jobs += jobs
        self.waiting += [job for job in jobs if job.state == "waiting"]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / INDEX
        with alone(self.folder):  # or of two launchers' jobs only one's would be kept
            known = {job["folder"]: job for job in read_json(path).get("jobs", [])}
            known |= {
                str(job.folder.relative_to(self.folder)): {
                    "folder": str(job.folder.relative_to(self.folder)),
                    "overrides": job.swept,
                }
                for job in jobs
            }
            write_json(path, {"command": cli.command(), "jobs": list(known.values())})

    def loop(self) -> None:
        looked = float("-inf")
        while True:
            self.collect()
            if self.signal is None:
                self.begin_some()
            else:
                self.wind_down()
            if not self.running and (self.signal is not None or not self.left()):
                return
            if time.monotonic() - looked >= PATIENCE:
                looked = time.monotonic()
                self.look_elsewhere()
                self.screen.show(self.jobs)
            time.sleep(LOOK)

    def left(self) -> bool:
        return bool(self.waiting or self.elsewhere)

    def begin_some(self) -> None:
        """Starts jobs in their order for as long as the next one has room."""
        if (
            not self.waiting
            and (free := self.engine.free()) > 0
            and (more := self.source.more(free))
        ):
            self.add(more)
        while self.waiting and self.engine.free(self.waiting[0]) > 0 and self.signal is None:
            self.begin(self.waiting.popleft())

    def begin(self, job: Job) -> None:
        if not self.claims.take(job.name):
            job.state, job.where = "elsewhere", ""
            self.elsewhere.append(job)
            return
        if self.settled(job):
            self.claims.release(job.name)
            return
        for name in (FAILURE, PROGRESS):
            (job.folder / name).unlink(missing_ok=True)
        log = job.folder / LOG
        order = Order(
            self.planner.command(job),
            log.resolve(),
            self.claims.life.resolve(),
            job.environment | {"VAELAB_SWEPT": " ".join(job.swept)},
        )
        job.state, job.where = "running", ""
        size = log.stat().st_size if log.exists() else 0
        handle = self.engine.start(job, order)
        self.running[job.name] = (job, handle, size)
        self.locate(job, handle)

    def locate(self, job: Job, handle: Handle) -> None:
        """Says that a job has begun, as soon as it is known where."""
        before, job.where = job.where, handle.where
        if job.where and not before:
            self.screen.started(job)

    def settled(self, job: Job) -> bool:
        """Whether another launcher came to an end with the job since this one began."""
        failure = job.failure
        if job.finished and not job.again:
            self.end(job, "done")
        elif failure and failure["mark"] != job.seen_failure:
            self.end(job, "failed", failure["error"])
        else:
            return False
        return True

    def collect(self) -> None:
        """Takes in the jobs that have ended."""
        for job, handle, size in list(self.running.values()):
            code = handle.poll()
            self.locate(job, handle)
            if code is None:
                continue
            del self.running[job.name]
            if code == 0:
                self.end(job, "done")
            elif self.signal is not None:
                self.end(job, "stopped")
            else:
                how, said = ending(code), last_error(job.folder / LOG, size)
                error = how if not said or how else said
                mark = uuid4().hex
                failure = {"error": error, "exit": code, "log": LOG, "mark": mark}
                write_json(job.folder / FAILURE, failure)
                self.end(job, "failed", error)
            self.claims.release(job.name)

    def end(self, job: Job, state: Any, error: str = "") -> None:
        job.state, job.error = state, error
        self.source.ended(job)
        self.screen.ended(job)

    def look_elsewhere(self) -> None:
        """Takes up the jobs that other launchers have left, done or not."""
        for job in list(self.elsewhere):
            if (holder := self.claims.holder(job.name)) is not None:
                job.where = holder.rsplit("-", 2)[0]
                continue
            self.elsewhere.remove(job)
            if not self.settled(job):
                job.state = "waiting"
                self.waiting.append(job)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Notes the signals that ask to stop, and a second one that asks to stop at once."""

        def note(number: int, _: FrameType | None) -> None:
            self.urgent = self.signal is not None
            self.signal = self.signal or number

        before = {number: signal.signal(number, note) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def wind_down(self) -> None:
        """Has the running jobs write a checkpoint and stop; kills those that take too long."""
        if self.asked is None:
            self.asked = time.monotonic()
            self.screen.stopping(len(self.running))
            for _, handle, _ in self.running.values():
                handle.stop()
        elif self.urgent or time.monotonic() - self.asked > self.grace:
            for _, handle, _ in self.running.values():
                handle.kill()
