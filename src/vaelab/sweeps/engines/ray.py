"""The Ray engine: jobs in a Ray cluster that is running, or is started for the sweep."""

import os
import re
import signal
import time
from collections import Counter
from dataclasses import replace
from math import floor
from typing import Any, Literal, NamedTuple

import ray
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from vaelab.errors import UserError, first_line
from vaelab.sweeps.engines.remote import Lost, RemoteHandle
from vaelab.sweeps.fork_server import Start, kept_server
from vaelab.sweeps.job import Job
from vaelab.sweeps.process import LEAKY, Order, start_fresh
from vaelab.sweeps.worker import Worker

OF_A_NODE = re.compile(
    r"(CUDA|NVIDIA|HIP|ROCR)_VISIBLE_DEVICES|OMP_NUM_THREADS|RAY_.*|SLURM.*|HOSTNAME|TMPDIR|XDG_.*"
)
"""Environment variables that a job takes from its node and not from the launcher."""
REFRESH = 10.0
"""Seconds until the nodes of the cluster, which come and go, are read again."""


class Share(NamedTuple):
    """A number of CPU cores and GPUs: of a node, or what a job takes of a node."""

    cpus: float
    gpus: float

    def capacity_for(self, other: "Share") -> int:
        """Returns how many of the other share fit into this one; 0 if the other is empty.

        A fraction of a GPU must lie on one GPU.
        """
        counts = []
        if other.cpus:
            counts.append(floor(self.cpus / other.cpus + 1e-6))
        if other.gpus:
            each = floor(1 / other.gpus + 1e-6)
            counts.append(floor(self.gpus) * each if each else floor(self.gpus / other.gpus))
        return min(counts, default=0)


class Ray:
    """Engine that starts jobs in a Ray cluster, whose nodes see the same folders and Python.

    Args:
        address: `HOST:PORT` of a cluster; `local` starts one; `auto` starts one if none is found.
            With `auto`, a value of `num_cpus` or `num_gpus` starts one too.
        num_cpus: CPU cores of a cluster that is started; default: all of this machine.
        num_gpus: GPUs of a cluster that is started; default: all of this machine.
        n_jobs: Jobs at once; auto: as many as the nodes have room for. With a number, Ray queues
            the jobs, so that a cluster that grows can take them.
        cpus_per_job: CPU cores of each job; auto: the cores that go with its GPUs, or without GPUs
            its `trainer.devices`.
        gpus_per_job: GPUs of each job; auto: its `trainer.devices`. A fraction shares a GPU.
        start: How a job's process starts: `fork` of a server that has imported torch, which Ray's
            process keeps for its next job, or `fresh`; auto: `fork` on Linux.
    """

    def __init__(
        self,
        *,
        address: str,
        num_cpus: PositiveInt | None,
        num_gpus: NonNegativeInt | None,
        n_jobs: PositiveInt | Literal["auto"],
        cpus_per_job: PositiveFloat | Literal["auto"],
        gpus_per_job: NonNegativeFloat | Literal["auto"],
        start: Start,
    ) -> None:
        if gpus_per_job != "auto" and gpus_per_job > 1 and gpus_per_job % 1:
            raise UserError(
                f"hydra.launcher.gpus_per_job={gpus_per_job}: more than one is a whole number"
            )
        self.own: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        declared = any(number is not None for number in self.own.values())
        self.address = "local" if declared and address == "auto" else address
        self.n_jobs, self.cpus_per_job, self.gpus_per_job = n_jobs, cpus_per_job, gpus_per_job
        self.process_start = start
        self.running: Counter[Share] = Counter()
        self.latest: Share | None = None
        self.looked = float("-inf")

    def prepare(self, jobs: int) -> None:
        """Does nothing: Ray connects when it is asked for nodes."""

    def expect(self, jobs: int) -> None:
        """Does nothing: Ray needs no number of jobs in advance."""

    @property
    def nodes(self) -> list[Share]:
        """The CPU cores and GPUs of each living node, cached; may connect or start the cluster.

        Read again from Ray after REFRESH seconds.
        """
        if not ray.is_initialized():
            self.connect()
        if time.monotonic() - self.looked > REFRESH:
            self.looked = time.monotonic()
            all_ = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self.known = [Share(has.get("CPU", 0.0), has.get("GPU", 0.0)) for has in all_]
        return self.known

    def connect(self) -> None:
        """Connects to the Ray cluster or starts one; sets RAY_ environment variables.

        Keeps this process's handler of SIGTERM, which Ray would replace. Not called before a job
        needs the cluster.

        Raises:
            UserError: If the cluster cannot be reached or started.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        address = None if self.address == "auto" else self.address
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address, include_dashboard=False, **self.own, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"hydra.launcher.address={self.address}"
            raise UserError(f"{where}: {first_line(error)}") from error
        finally:
            signal.signal(signal.SIGTERM, before)  # Ray's handler ends all at once

    def share(self, job: Job) -> Share:
        """Returns the CPU cores and GPUs that a job takes; connects to the cluster if need be."""
        with_gpus = [node for node in self.nodes if node.gpus]
        if job.accelerator in ("cpu", "mps"):
            gpus = 0.0
        elif self.gpus_per_job != "auto":
            gpus = float(self.gpus_per_job)
        elif with_gpus:
            gpus = float(job.devices if job.devices > 0 else max(node.gpus for node in with_gpus))
        else:
            gpus = 0.0
        if self.cpus_per_job != "auto":
            return Share(float(self.cpus_per_job), gpus)
        if gpus and with_gpus:
            each = min(node.cpus / node.gpus for node in with_gpus)
            return Share(floor(1e4 * gpus * each) / 1e4, gpus)  # to Ray's precision
        return Share(min(max(job.devices, 1), max(node.cpus for node in self.nodes)), gpus)

    def check_job(self, job: Job) -> None:
        """Raises UserError if a waiting job fits no node; stores its share for `count_startable`.

        With a number as `n_jobs` it does not raise: the cluster may grow.
        """
        if job.state != "waiting":
            return
        share = self.latest = self.share(job)
        if self.n_jobs == "auto" and not any(node.capacity_for(share) for node in self.nodes):
            cpus, gpus = (max(numbers) for numbers in zip(*self.nodes, strict=True))
            raise UserError(
                f"{job.name}: asks for {share.gpus:g} GPUs and {share.cpus:g} processors; nodes of "
                f"the cluster have at most {gpus:g} and {cpus:g}"
            )

    def count_startable(self, job: Job | None = None) -> int:
        """Returns how many more jobs, like this or the last checked one, could start; may connect.

        With a number as `n_jobs` it is what is left of that number, else 1 before any check of a
        job.
        """
        share = self.share(job) if job else self.latest
        if self.n_jobs != "auto":
            return self.n_jobs - self.running.total()
        if share is None:  # no job has been checked, so do not connect to Ray
            return 1
        fit = sum(node.capacity_for(share) for node in self.nodes)
        taken = [(other, count) for other, count in self.running.items() if other != share]
        left = Share(
            sum(node.cpus for node in self.nodes) - sum(n * other.cpus for other, n in taken),
            sum(node.gpus for node in self.nodes) - sum(n * other.gpus for other, n in taken),
        )
        return min(fit, left.capacity_for(share)) - self.running[share]

    def start(self, job: Job, order: Order) -> RemoteHandle:
        """Submits a job to Ray and takes its share until the handle's `poll` sees its end."""
        share = self.share(job)
        order = replace(order, environment=job_environment(job, share) | order.environment)

        def submit() -> RayTask:
            """Submits a worker for the job to Ray and returns its task."""
            resources = {"num_cpus": share.cpus, "num_gpus": share.gpus}
            remote = run_worker.options(**resources, name=job.name)
            return RayTask(remote.remote(order, self.process_start))

        def give_back() -> None:
            """Frees the share of the job."""
            self.running[share] -= 1

        self.running[share] += 1
        return RemoteHandle(order, submit, give_back)

    def close(self) -> None:
        """Disconnects from the Ray cluster, and ends it if it was started for the sweep."""
        ray.shutdown()


def job_environment(job: Job, share: Share) -> dict[str, str]:
    """Returns the launcher's variables for a job, without node-specific ones; maybe hides GPUs.

    Sets OMP_NUM_THREADS, unless the launcher has it. Hides all GPUs from a job without a share of
    one.
    """
    names = [name for name in os.environ if name not in LEAKY and not OF_A_NODE.fullmatch(name)]
    carried = {name: os.environ[name] for name in names}
    threads = max(1, int(share.cpus) // max(job.devices, 1))
    carried["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    if not share.gpus:
        carried["CUDA_VISIBLE_DEVICES"] = ""  # else it could use a GPU of another job
    return carried


@ray.remote(max_retries=0)
def run_worker(order: Order, start: Start) -> int:
    """Ray's remote function: runs the job of an order on a node and returns its exit code."""
    server = kept_server(start, order)
    return Worker(order, server.start if server else start_fresh)()


class RayTask:
    """A job that was submitted to Ray."""

    def __init__(self, promise: "ray.ObjectRef[int]") -> None:
        self.promise = promise

    def result(self) -> int | None:
        """Returns the job's exit code, None until it has ended; raises Lost if Ray lost it."""
        ready, _ = ray.wait([self.promise], timeout=0)
        if not ready:
            return None
        try:
            return ray.get(self.promise)
        except ray.exceptions.RayTaskError as error:  # its last line is the exception on the node
            raise Lost(str(error)) from error
        except ray.exceptions.RayError as error:
            said = first_line(error)  # its first sentence says why, and others where to look
            raise Lost(f"{said}\nRay: {said.partition('. ')[0]}") from error

    def cancel(self) -> None:
        """Cancels the job's task in Ray."""
        ray.cancel(self.promise)
