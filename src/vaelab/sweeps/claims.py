"""Claim files, by which several launchers that share a sweep folder divide its jobs.

Everything is a file in the shared folder, created so that only one of many launchers can succeed.
No machine's clock is compared with another's.
"""

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from vaelab.errors import WriteError
from vaelab.files.atomic import delete_partial_files, make_folder, write_error
from vaelab.training.json_files import read_json_or_nothing, write_json

FOLDER = ".claims"
BEAT = 5.0
"""Seconds between two writes of a launcher's heartbeat file."""
LOST = 60.0
"""Seconds without a new beat after which another launcher may take over the claims."""


class Claims:
    """The claims of one launcher on jobs of a sweep; a context manager that keeps its heartbeat.

    A claim is a file `JOB.N` that holds the launcher's mark, and the highest N is valid. Taking
    over from a launcher that is gone creates N + 1; only one launcher can create a file.

    Args:
        folder: The sweep folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.mark = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.held: dict[str, int] = {}
        self.beats = 0
        self.seen: dict[str, tuple[int, float]] = {}  # latest beat and when first seen
        self.over = threading.Event()

    def __enter__(self) -> "Claims":
        """Creates the folder of claims and starts a thread that writes the heartbeat file."""
        make_folder(self.folder)
        self.beat()
        self.thread = threading.Thread(target=self.beat_until_exit, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        """Ends the heartbeat, releases all claims, deletes files of this and of dead launchers.

        Deletes the folder of claims if nothing is left in it.
        """
        self.over.set()
        self.thread.join()
        for job in list(self.held):
            self.release(job)
        for path in self.folder.glob("*.alive"):
            if path == self.heartbeat_file or not self.is_alive(path.stem):
                for left in self.folder.glob(f"{path.stem}.*"):  # and files for its workers
                    if left.is_dir():
                        shutil.rmtree(left, ignore_errors=True)
                    else:
                        left.unlink(missing_ok=True)
        if not any(self.folder.glob("*.alive")):  # so that nobody else writes there
            delete_partial_files(self.folder)
        with suppress(OSError):  # it is not empty, or another launcher has just deleted it
            self.folder.rmdir()

    @property
    def heartbeat_file(self) -> Path:
        """The path of this launcher's heartbeat file."""
        return self.folder / f"{self.mark}.alive"

    def beat_until_exit(self) -> None:
        """Writes the heartbeat file every BEAT seconds until the context ends; run in a thread."""
        while not self.over.wait(BEAT):
            with suppress(WriteError):  # a network file system may fail once
                self.beat()

    def beat(self) -> None:
        """Writes this launcher's heartbeat file: host, process id and a count that grows."""
        self.beats += 1
        content = {"host": process_space(), "pid": os.getpid(), "beats": self.beats}
        write_json(self.heartbeat_file, content)

    def take(self, job: str) -> bool:
        """Claims a job by creating a file; False if a living launcher has it or is faster."""
        number, mark = self.latest_claim(job)
        if mark is not None and self.is_alive(mark):
            return False
        path = self.folder / f"{job}.{number + 1}"
        try:
            with path.open("x") as file:
                json.dump({"mark": self.mark}, file)
        except FileExistsError:
            return False
        except OSError as error:
            path.unlink(missing_ok=True)  # a claim without a mark would be nobody's
            raise write_error(path, error) from error
        self.held[job] = number + 1
        return True

    def release(self, job: str) -> None:
        """Gives up this launcher's claim of a job: deletes its files; KeyError if it has none."""
        number = self.held.pop(job)
        for older in range(number + 1):
            (self.folder / f"{job}.{older}").unlink(missing_ok=True)

    def holders(self, jobs: Iterable[str]) -> dict[str, str]:
        """Returns the marks of other living launchers that have these jobs, by job; skips others.

        The folder is listed once, and each heartbeat file is read once, however many the jobs.
        """
        claims = {job: self.read_mark(job, n) for job, n in self.latest_claims(jobs).items()}
        alive = {mark for mark in set(claims.values()) if mark != self.mark and self.is_alive(mark)}
        return {job: mark for job, mark in claims.items() if mark in alive}

    def latest_claims(self, jobs: Iterable[str]) -> dict[str, int]:
        """Lists the folder and returns the number of the valid claim of each job that has one."""
        asked, numbers = set(jobs), dict[str, int]()
        for path in self.folder.iterdir():
            job, _, number = path.name.rpartition(".")
            if job in asked and number.isdecimal():
                numbers[job] = max(int(number), numbers.get(job, -1))
        return numbers

    def latest_claim(self, job: str) -> tuple[int, str | None]:
        """Returns the number and the mark of the valid claim; -1 and None if there is none."""
        number = self.latest_claims([job]).get(job)
        return (-1, None) if number is None else (number, self.read_mark(job, number))

    def read_mark(self, job: str, number: int) -> str:
        """Returns the mark in a claim; empty if the file is being written or was just deleted."""
        mark: str = read_json_or_nothing(self.folder / f"{job}.{number}").get("mark", "")
        return mark

    def is_alive(self, mark: str) -> bool:
        """False if this object saw no beat for LOST seconds, or a local launcher's process ended.

        The seconds count from when this object first saw the latest beat, which it stores; so a
        launcher of another machine is alive when its mark is first seen.
        """
        content = read_json_or_nothing(self.folder / f"{mark}.alive")
        if content.get("host") == process_space() and not is_process_running(content["pid"]):
            return False
        beats = content.get("beats", 0)
        if mark not in self.seen or self.seen[mark][0] != beats:
            self.seen[mark] = (beats, monotonic())
        return monotonic() - self.seen[mark][1] < LOST


def process_space() -> str:
    """Returns the host's name and, on Linux, the name of the process ids' namespace.

    Containers of one host may share its name, but a process id means a process only in its own.
    """
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def is_process_running(pid: int) -> bool:
    """True if this machine has a process with this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
