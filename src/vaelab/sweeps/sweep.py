"""The loop of a sweep: claims jobs, starts them, watches them and prints their ends."""

import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any
from uuid import uuid4

from vaelab.commands import command_lines
from vaelab.errors import WriteError, first_line
from vaelab.files.atomic import explain_write_errors, make_folder
from vaelab.files.locks import file_lock
from vaelab.runs.folder import FAILURE, PROGRESS
from vaelab.sweeps.claims import Claims
from vaelab.sweeps.engines import Engine, Handle
from vaelab.sweeps.job import INDEX, LOCK, LOG, Job, last_error, signal_text
from vaelab.sweeps.planning import Planner
from vaelab.sweeps.process import Order
from vaelab.sweeps.screen import Screen
from vaelab.sweeps.sources import Source
from vaelab.training.json_files import read_json, write_json

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK = 0.05
"""Seconds between two polls of the running jobs."""
PATIENCE = 1.0
"""Seconds between two reads of other launchers' claims and of progress files."""


class SweepRunner:
    """Runs the jobs of a source in a sweep folder, which other launchers may share.

    Args:
        planner: Composes and checks jobs.
        engine: Starts jobs.
        grace: Seconds that a job may take to stop before it is killed.
    """

    def __init__(self, planner: Planner, engine: Engine, grace: float) -> None:
        self.planner = planner
        self.engine = engine
        self.grace = grace
        self.folder = planner.folder
        self.jobs: list[Job] = []
        self.waiting: deque[Job] = deque()
        self.running: dict[str, tuple[Job, Handle, int]] = {}  # and its log's size at the start
        self.elsewhere: list[Job] = []
        self.signal: int | None = None
        self.urgent = False
        self.asked: float | None = None  # when the jobs were asked to stop

    def run(self, source: Source) -> int:
        """Runs all jobs, closes the engine, returns an exit code; catches signals, prints progress.

        Returns:
            0 if all are done, 1 if some failed, 128 + signal if the sweep was stopped by a signal.

        Raises:
            WriteError: If files of the sweep itself, and not of a job, cannot be written.
        """
        try:
            with explain_write_errors(self.folder):
                return self.run_jobs(source)
        finally:
            self.engine.close()

    def run_jobs(self, source: Source) -> int:
        """Runs all jobs as `run` does, but for OSErrors of the sweep's own files."""
        if not (self.folder / INDEX).exists():  # a sweep that goes on may have no job left
            self.engine.prepare(source.most_jobs)
        jobs = source.first_jobs(self.plan_job)
        self.engine.expect(sum(job.state == "waiting" for job in jobs) + source.jobs_to_come())
        self.add_jobs(jobs)
        screen = Screen(self.folder, source.jobs_to_come)
        with Claims(self.folder) as claims, screen, self.note_signals():
            self.claims, self.screen, self.source = claims, screen, source
            screen.print_start(self.jobs)
            try:
                self.run_loop()
            except BaseException:
                self.signal = self.signal or signal.SIGTERM
                self.run_loop()  # stops the running jobs
                raise
        screen.print_summary(self.jobs, source.summary_lines())
        if self.signal is not None:
            return 128 + self.signal
        return int(any(job.state == "failed" for job in self.jobs))

    def plan_job(self, *args: Any, **kwargs: Any) -> Job:
        """Composes and checks a job; raises UserError also if the engine could never run it."""
        job = self.planner(*args, **kwargs)
        self.engine.check_job(job)
        return job

    def add_jobs(self, jobs: list[Job]) -> None:
        """Adds jobs, queues those that wait and writes all into `sweep.json`, under a file lock."""
        self.jobs += jobs
        self.waiting += [job for job in jobs if job.state == "waiting"]
        make_folder(self.folder)
        path = self.folder / INDEX
        with file_lock(self.folder / LOCK):  # two launchers may write at the same time
            known = {job["folder"]: job for job in read_json(path).get("jobs", [])}
            known |= {
                str(job.folder.relative_to(self.folder)): {
                    "folder": str(job.folder.relative_to(self.folder)),
                    "overrides": job.swept,
                }
                for job in jobs
            }
            write_json(
                path, {"command": command_lines.typed_command(), "jobs": list(known.values())}
            )

    def run_loop(self) -> None:
        """Runs until no job is left; after a signal, until no job of this launcher runs."""
        looked = float("-inf")
        while True:
            self.collect_ended_jobs()
            if self.signal is None:
                self.start_jobs()
            else:
                self.stop_jobs()
            if not self.running and (self.signal is not None or not self.has_jobs_left()):
                return
            if time.monotonic() - looked >= PATIENCE:
                looked = time.monotonic()
                self.update_elsewhere()
                self.screen.update(self.jobs)
            time.sleep(LOOK)

    def has_jobs_left(self) -> bool:
        """True if jobs wait or are run by other launchers; ignores jobs that run here."""
        return bool(self.waiting or self.elsewhere)

    def start_jobs(self) -> None:
        """Starts waiting jobs in order, as room allows; asks the source for more if none waits.

        All that fit are started before any is looked at: an allocation of SLURM takes what comes
        until then.
        """
        while self.signal is None and self.fill_queue():
            if self.engine.count_startable(self.waiting[0]) <= 0:
                return
            job = self.waiting.popleft()
            try:
                self.start_job(job)
            except (WriteError, OSError) as error:  # of its folder, as on a full disk
                if job.name in self.claims.held:
                    with suppress(OSError):
                        self.claims.release(job.name)
                self.end_job(job, "failed", first_line(error))

    def fill_queue(self) -> bool:
        """Returns whether jobs wait; if none does and there is room, the source is asked first."""
        free = 0 if self.waiting else self.engine.count_startable()
        if free > 0 and (more := self.source.next_jobs(free)):
            self.add_jobs(more)
        return bool(self.waiting)

    def start_job(self, job: Job) -> None:
        """Claims and starts a job, deletes its old failure, progress; if taken, marks it elsewhere.

        The files are `failure.json` and `progress.json`. The end of a job that another launcher has
        ended is recorded.
        """
        if not self.claims.take(job.name):
            job.state, job.where = "elsewhere", ""
            self.elsewhere.append(job)
            return
        if self.take_over_end(job):
            self.claims.release(job.name)
            return
        for name in (FAILURE, PROGRESS):
            (job.folder / name).unlink(missing_ok=True)
        log = job.folder / LOG
        order = Order(
            self.planner.command(job),
            log.resolve(),
            self.claims.heartbeat_file.resolve(),
            job.environment | {"VAELAB_SWEPT": " ".join(job.swept)},
        )
        job.state, job.where = "running", ""
        size = log.stat().st_size if log.exists() else 0
        handle = self.engine.start(job, order)
        self.running[job.name] = (job, handle, size)
        self.update_place(job, handle)

    def update_place(self, job: Job, handle: Handle) -> None:
        """Sets where a job runs, and prints its start as soon as that is known."""
        before, job.where = job.where, handle.where
        if job.where and not before:
            self.screen.print_job_start(job)

    def take_over_end(self, job: Job) -> bool:
        """Records a job that another launcher ended meanwhile; returns False if none did."""
        failure = job.failure
        if job.is_finished and not (job.again and job.results_mark() == job.seen_results):
            self.end_job(job, "done")
        elif failure and failure.get("mark") != job.seen_failure:
            self.end_job(job, "failed", failure.get("error", ""))
        elif job.damage and not job.again:
            self.end_job(job, "failed", job.damage)
        else:
            return False
        return True

    def collect_ended_jobs(self) -> None:
        """Records this launcher's ended jobs, with `failure.json` if failed; releases claims.

        After a signal such jobs are `stopped`, without that file.
        """
        for job, handle, size in list(self.running.values()):
            code = handle.poll()
            self.update_place(job, handle)
            if code is None:
                continue
            del self.running[job.name]
            if code == 0 and job.damage:
                self.end_job(job, "failed", job.damage)
            elif code == 0:
                self.end_job(job, "done")
            elif self.signal is not None:
                self.end_job(job, "stopped")
            else:
                how, said = signal_text(code), last_error(job.folder / LOG, size)
                error = how if not said or how else said
                mark = uuid4().hex
                failure = {"error": error, "exit": code, "log": LOG, "mark": mark}
                try:
                    write_json(job.folder / FAILURE, failure)
                except WriteError as full:  # then its log, too, may have no word
                    error = error or str(full)
                self.end_job(job, "failed", error)
            self.claims.release(job.name)

    def end_job(self, job: Job, state: Any, error: str = "") -> None:
        """Sets the state and error of a job and passes it to the source and the screen."""
        job.state, job.error = state, error
        self.source.record_end(job)
        self.screen.print_job_end(job)

    def update_elsewhere(self) -> None:
        """Records jobs that other launchers ended; queues those that they left unfinished.

        Of the others it sets the host on which they run.
        """
        if not self.elsewhere:
            return
        holders = self.claims.holders(job.name for job in self.elsewhere)
        for job in list(self.elsewhere):
            if (holder := holders.get(job.name)) is not None:
                job.where = holder.rsplit("-", 2)[0]
                continue
            self.elsewhere.remove(job)
            if not self.take_over_end(job):
                job.state = "waiting"
                self.waiting.append(job)

    @contextmanager
    def note_signals(self) -> Iterator[None]:
        """Context manager that catches SIGINT, SIGTERM and SIGHUP and restores their handlers.

        Those that this process ignores stay so, as SIGHUP under nohup. The first signal asks to
        stop, a second one to stop at once.
        """

        def note(number: int, _: FrameType | None) -> None:
            """Stores the first signal; a later one makes stopping urgent."""
            self.urgent = self.signal is not None
            self.signal = self.signal or number

        noticed = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, note) for number in noticed}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop_jobs(self) -> None:
        """Asks running jobs to stop, once; later calls kill them if urgent or out of time."""
        if self.asked is None:
            self.asked = time.monotonic()
            self.screen.print_stopping(len(self.running))
            for _, handle, _ in self.running.values():
                handle.stop()
        elif self.urgent or time.monotonic() - self.asked > self.grace:
            for _, handle, _ in self.running.values():
                handle.kill()
