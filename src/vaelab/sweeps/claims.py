"""Who runs which job, when several launchers share a folder: a claim file for each job.

Everything is a file in the shared folder, made so that only one of many can succeed, and no
machine's clock is compared with another's.
"""

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from vaelab.training.json_files import read_json, write_json

FOLDER = ".claims"
BEAT = 5.0
"""Seconds between two signs of life of a launcher."""
LOST = 60.0
"""Seconds without one after which its claims are anyone's."""


class Claims:
    """The claims of one launcher on the jobs of a sweep; used as a context, in which it is alive.

    A claim is `JOB.N` with the launcher's mark in it, and the highest N counts. Taking over from
    a launcher that is gone makes N + 1, which like the first claim only one can make.

    Args:
        folder: Of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.mark = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.held: dict[str, int] = {}
        self.beats = 0
        self.seen: dict[str, tuple[int, float]] = {}  # beats of the others, and when they changed
        self.over = threading.Event()

    def __enter__(self) -> "Claims":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.beat()
        self.thread = threading.Thread(target=self.live, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.thread.join()
        for job in list(self.held):
            self.release(job)
        for path in self.folder.glob("*.alive"):
            if path == self.life or not self.alive(path.stem):
                for left in self.folder.glob(f"{path.stem}.*"):  # and what it had to say to jobs
                    if left.is_dir():
                        shutil.rmtree(left, ignore_errors=True)
                    else:
                        left.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    @property
    def life(self) -> Path:
        """The file by which this launcher shows that it is alive."""
        return self.folder / f"{self.mark}.alive"

    def live(self) -> None:
        while not self.over.wait(BEAT):
            with suppress(OSError):  # of a network's file system; the next one may get through
                self.beat()

    def beat(self) -> None:
        """Shows that this launcher is alive."""
        self.beats += 1
        content = {"host": socket.gethostname(), "pid": os.getpid(), "beats": self.beats}
        write_json(self.life, content)

    def take(self, job: str) -> bool:
        """Claims a job; False if another launcher, that is alive, has it."""
        number, mark = self.latest(job)
        if mark is not None and self.alive(mark):
            return False
        path = self.folder / f"{job}.{number + 1}"
        try:
            with path.open("x") as file:
                json.dump({"mark": self.mark}, file)
        except FileExistsError:
            return False
        self.held[job] = number + 1
        return True

    def release(self, job: str) -> None:
        """Gives a job back; older claims go first, so that they never count again."""
        number = self.held.pop(job)
        for older in range(number + 1):
            (self.folder / f"{job}.{older}").unlink(missing_ok=True)

    def holder(self, job: str) -> str | None:
        """The launcher, other than this one, that has the job and is alive."""
        _, mark = self.latest(job)
        return mark if mark not in (None, self.mark) and self.alive(mark) else None

    def latest(self, job: str) -> tuple[int, str | None]:
        """Number and mark of the claim that counts; -1 and None if there is none."""
        numbers = [
            int(path.name.removeprefix(f"{job}."))
            for path in self.folder.glob(f"{glob_quoted(job)}.*")
            if path.name.removeprefix(f"{job}.").isdigit()
        ]
        if not numbers:
            return -1, None
        number = max(numbers)
        try:
            return number, read_json(self.folder / f"{job}.{number}").get("mark", "")
        except ValueError:  # being written
            return number, ""

    def alive(self, mark: str) -> bool:
        """Whether a launcher shows signs of life."""
        content = read_json(self.folder / f"{mark}.alive")
        if content.get("host") == socket.gethostname() and not exists(content["pid"]):
            return False
        beats = content.get("beats", 0)
        if mark not in self.seen or self.seen[mark][0] != beats:
            self.seen[mark] = (beats, monotonic())
        return monotonic() - self.seen[mark][1] < LOST


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other launchers from doing the same in this folder, for no longer than a moment.

    Where files cannot be locked, or one launcher hangs, it is done all the same.
    """
    lock = FileLock(folder / ".lock")
    with suppress(NotImplementedError, Timeout):
        lock.acquire(timeout=LOST)
    try:
        yield
    finally:
        lock.release()


def glob_quoted(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def exists(pid: int) -> bool:
    """Whether this machine has such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
