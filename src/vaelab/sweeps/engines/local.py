"""Jobs on this machine: a slot for each GPU, or as many as the processor has room for."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import PositiveInt

from vaelab.errors import UserError
from vaelab.sweeps.job import Job
from vaelab.sweeps.process import Order, Process


class Local:
    """Starts jobs on this machine.

    Args:
        n_jobs: Jobs at once on the processor, which share its threads out.
        gpus: Their numbers, or `auto` for all there are, in CUDA_VISIBLE_DEVICES if that is set.
        jobs_per_gpu: Jobs at once on each GPU.
        gpus_per_job: GPUs of each job; by itself as many as its `trainer.devices`.
    """

    def __init__(
        self,
        *,
        n_jobs: PositiveInt | Literal["auto"],
        gpus: Sequence[int | str] | Literal["auto"],
        jobs_per_gpu: PositiveInt,
        gpus_per_job: PositiveInt | Literal["auto"],
    ) -> None:
        self.gpus = visible() if gpus == "auto" else [str(gpu) for gpu in gpus]
        self.gpus_per_job = gpus_per_job
        self.cores = available_cores()
        self.n_jobs = n_jobs
        self.free_gpus = Counter(dict.fromkeys(self.gpus, jobs_per_gpu))
        self.gpu_slots = max(1, len(self.gpus) * jobs_per_gpu)
        self.free_slots = self.slots = self.cores if n_jobs == "auto" else n_jobs
        self.threads_given = "OMP_NUM_THREADS" in os.environ

    def expect(self, jobs: int) -> None:
        if self.n_jobs == "auto":
            most = self.cores if self.cores <= 4 else self.cores // 2  # which come in pairs
            self.free_slots = self.slots = max(1, min(most, jobs))

    def on_gpu(self, job: Job) -> bool:
        return bool(self.gpus) and job.accelerator not in ("cpu", "mps")

    def size(self, job: Job) -> int:
        """GPUs, or slots of the processor, that a job takes."""
        if self.on_gpu(job):
            asked = job.devices if self.gpus_per_job == "auto" else self.gpus_per_job
            return len(self.gpus) if asked < 0 else asked
        return min(max(job.devices, 1), self.slots)

    def check(self, job: Job) -> None:
        if self.on_gpu(job) and self.size(job) > len(self.gpus):
            raise UserError(
                f"{job.name}: asks for {self.size(job)} GPUs, and there are {len(self.gpus)}"
            )

    def free(self, job: Job | None = None) -> int:
        if job is None:
            return sum(self.free_gpus.values()) or self.free_slots
        if self.on_gpu(job):
            return sum(count > 0 for count in self.free_gpus.values()) // self.size(job)
        return self.free_slots // self.size(job)

    def start(self, job: Job, order: Order) -> "Running":
        size, gpus = self.size(job), []
        if self.on_gpu(job):
            gpus = [gpu for gpu, _ in self.free_gpus.most_common(size)]
            self.free_gpus.subtract(gpus)
            order.environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
            threads = self.cores * size // self.gpu_slots // max(job.devices, 1)
        else:
            self.free_slots -= size
            threads = self.cores // self.slots * size // max(job.devices, 1)
        if not self.threads_given:
            order.environment["OMP_NUM_THREADS"] = str(max(1, threads))

        def give_back() -> None:
            self.free_gpus.update(gpus)
            self.free_slots += 0 if gpus else size

        return Running(Process(order), f"GPU {','.join(gpus)}" if gpus else "CPU", give_back)

    def close(self) -> None:
        pass


class Running:
    """A process on this machine."""

    def __init__(self, process: Process, where: str, give_back: Callable[[], None]) -> None:
        self.process, self.where, self.give_back = process, where, give_back
        self.code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            self.code = self.process.poll()
            if self.code is not None:
                self.give_back()
        return self.code

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()


def available_cores() -> int:
    """Logical cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu.strip() for gpu in given.split(",") if gpu.strip() not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]
