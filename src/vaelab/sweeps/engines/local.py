"""The local engine: jobs on this machine, in slots of its GPUs or of its CPU cores."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import PositiveInt

from vaelab.commands import command_lines
from vaelab.errors import UserError
from vaelab.sweeps.fork_server import ForkServer, Start, build_fork_server
from vaelab.sweeps.job import Job
from vaelab.sweeps.process import Order, Process, start_fresh


class Local:
    """Engine that starts jobs on this machine.

    Args:
        n_jobs: Jobs at once on the CPU, which share its threads; auto: by the number of cores.
        gpus: Numbers of the GPUs; auto: those in CUDA_VISIBLE_DEVICES if it is set, else all.
        jobs_per_gpu: Jobs at once on each GPU.
        gpus_per_job: GPUs of each job; auto: its `trainer.devices`.
        start: How a job's process starts: `fork` of a server that has imported torch, or `fresh`;
            auto: `fork` on Linux.
    """

    def __init__(
        self,
        *,
        n_jobs: PositiveInt | Literal["auto"],
        gpus: Sequence[int | str] | Literal["auto"],
        jobs_per_gpu: PositiveInt,
        gpus_per_job: PositiveInt | Literal["auto"],
        start: Start,
    ) -> None:
        self.gpus = visible_gpus() if gpus == "auto" else [str(gpu) for gpu in gpus]
        self.gpus_per_job = gpus_per_job
        self.cores = available_cores()
        self.n_jobs = n_jobs
        self.free_gpus = Counter(dict.fromkeys(self.gpus, jobs_per_gpu))
        self.gpu_slots = max(1, len(self.gpus) * jobs_per_gpu)
        self.free_slots = self.slots = self.cores if n_jobs == "auto" else n_jobs
        self.threads_given = "OMP_NUM_THREADS" in os.environ
        self.process_start = start
        self.fork_server: ForkServer | None = None
        self.latest: Job | None = None  # of those checked, for the jobs of a sweep are alike

    def prepare(self, jobs: int) -> None:
        """Expects so many jobs: the fork server imports torch while they are composed."""
        self.expect(jobs)

    def expect(self, jobs: int) -> None:
        """Sets the number of CPU slots by the number of jobs and cores, if `n_jobs` is auto.

        Starts the fork server, if there are jobs and there is to be one, again if its jobs get
        other numbers of threads.
        """
        if self.n_jobs == "auto":
            most = self.cores if self.cores <= 4 else self.cores // 2  # logical cores come in pairs
            self.free_slots = self.slots = max(1, min(most, jobs))
        variables = self.thread_variables(1, 1, bool(self.gpus))
        if job := self.latest:
            size = self.job_size(job)
            variables = self.thread_variables(size, job.devices, self.is_on_gpu(job))
        if jobs and (self.fork_server is None or self.fork_server.environment != variables):
            self.close()
            command = command_lines.process_argv()
            self.fork_server = build_fork_server(
                self.process_start, command, variables, os.getcwd()
            )

    def is_on_gpu(self, job: Job) -> bool:
        """True if there are GPUs and the job's `trainer.accelerator` is neither cpu nor mps."""
        return bool(self.gpus) and job.accelerator not in ("cpu", "mps")

    def job_size(self, job: Job) -> int:
        """Returns how many GPUs a GPU job takes, or how many CPU slots any other job takes."""
        if self.is_on_gpu(job):
            asked = job.devices if self.gpus_per_job == "auto" else self.gpus_per_job
            return len(self.gpus) if asked < 0 else asked
        return min(max(job.devices, 1), self.slots)

    def thread_variables(self, size: int, devices: int, on_gpu: bool) -> dict[str, str]:
        """Returns OMP_NUM_THREADS of a job by its share of cores; empty if this process has it."""
        if self.threads_given:
            return {}
        share = self.cores * size // self.gpu_slots if on_gpu else self.cores // self.slots * size
        return {"OMP_NUM_THREADS": str(max(1, share // max(devices, 1)))}

    def check_job(self, job: Job) -> None:
        """Notes what jobs are like; raises UserError for no GPU or more GPUs than there are."""
        self.latest = job
        if self.is_on_gpu(job) and not self.job_size(job):
            raise UserError(f"{job.name}: asks for 0 GPUs; trainer.accelerator=cpu uses none")
        if self.is_on_gpu(job) and self.job_size(job) > len(self.gpus):
            raise UserError(
                f"{job.name}: asks for {self.job_size(job)} GPUs, and there are {len(self.gpus)}"
            )

    def count_startable(self, job: Job | None = None) -> int:
        """Returns how many jobs like this, or like the one checked last, fit now.

        None fits while the fork server is starting.
        """
        if self.fork_server and self.fork_server.is_starting():
            return 0
        job = job or self.latest
        if job is None:
            return sum(self.free_gpus.values()) or self.free_slots
        if self.is_on_gpu(job):
            return sum(count > 0 for count in self.free_gpus.values()) // self.job_size(job)
        return self.free_slots // self.job_size(job)

    def start(self, job: Job, order: Order) -> "LocalHandle":
        """Starts a job, takes GPUs or CPU slots until `poll` sees its end; sets its environment.

        Sets CUDA_VISIBLE_DEVICES of a GPU job and, unless this process or the job has it,
        OMP_NUM_THREADS in `order.environment`.
        """
        size, gpus, on_gpu = self.job_size(job), [], self.is_on_gpu(job)
        if on_gpu:
            gpus = [gpu for gpu, _ in self.free_gpus.most_common(size)]
            self.free_gpus.subtract(gpus)
            order.environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        else:
            self.free_slots -= size
        for name, value in self.thread_variables(size, job.devices, on_gpu).items():
            order.environment.setdefault(name, value)

        def give_back() -> None:
            """Frees the GPUs or CPU slots of the job."""
            self.free_gpus.update(gpus)
            self.free_slots += 0 if gpus else size

        try:
            process = Process(order, self.fork_server.start if self.fork_server else start_fresh)
        except Exception:  # such as a log that cannot be written
            give_back()
            raise
        return LocalHandle(process, f"GPU {','.join(gpus)}" if gpus else "CPU", give_back)

    def close(self) -> None:
        """Ends the fork server, if there is one."""
        if self.fork_server:
            self.fork_server.close()


class LocalHandle:
    """Handle of a job's process on this machine; frees its slots when `poll` first sees its end."""

    def __init__(self, process: Process, where: str, give_back: Callable[[], None]) -> None:
        self.process, self.where, self.give_back = process, where, give_back
        self.code: int | None = None

    def poll(self) -> int | None:
        """Returns the exit code, None until the process has ended; frees its slots then, once."""
        if self.code is None:
            self.code = self.process.poll()
            if self.code is not None:
                self.give_back()
        return self.code

    def stop(self) -> None:
        """Asks the process, by SIGTERM, to write a checkpoint and exit; does not wait."""
        self.process.stop()

    def kill(self) -> None:
        """Kills the process and all that it started, by SIGKILL."""
        self.process.kill()


def available_cores() -> int:
    """Returns how many logical CPU cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Returns the GPUs in CUDA_VISIBLE_DEVICES, or the numbers of all by running nvidia-smi.

    Empty without GPUs or without nvidia-smi.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu.strip() for gpu in given.split(",") if gpu.strip() not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]
