"""Jobs in a Ray cluster: one that runs already, or one that is started for the sweep."""

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
from vaelab.sweeps.engines.remote import Lost, Remote
from vaelab.sweeps.job import Job
from vaelab.sweeps.process import Order
from vaelab.sweeps.worker import Worker

OF_A_NODE = re.compile(
    r"(CUDA|NVIDIA|HIP|ROCR)_VISIBLE_DEVICES|OMP_NUM_THREADS|RAY_.*|SLURM.*|HOSTNAME|TMPDIR|XDG_.*"
)
"""Variables that a job has of its node, and not of the launcher."""
REFRESH = 10.0
"""Seconds between two looks at the nodes of the cluster, which come and go."""


class Share(NamedTuple):
    """Of a node."""

    cpus: float
    gpus: float

    def room(self, other: "Share") -> int:
        """How many of the other this holds; a fraction of a GPU is of one GPU."""
        counts = []
        if other.cpus:
            counts.append(floor(self.cpus / other.cpus + 1e-6))
        if other.gpus:
            each = floor(1 / other.gpus + 1e-6)
            counts.append(floor(self.gpus) * each if each else floor(self.gpus / other.gpus))
        return min(counts, default=0)


class Ray:
    """Starts jobs in a Ray cluster, whose nodes see the same folders and the same Python.

    Args:
        address: `HOST:PORT` of a cluster, or `local` to start one, or `auto` to start one if
            there is none. Numbers of its processors or GPUs start one too.
        num_cpus: Of a cluster that is started; by itself those that are there.
        num_gpus: The same.
        n_jobs: Jobs at once; by itself as many as the nodes have room for. A number leaves it to
            Ray to queue jobs, and so to a cluster that grows.
        cpus_per_job: By itself what goes with its GPUs, or as many as `trainer.devices`.
        gpus_per_job: By itself as many as `trainer.devices`; a fraction shares a GPU.
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
    ) -> None:
        if gpus_per_job != "auto" and gpus_per_job > 1 and gpus_per_job % 1:
            raise UserError(
                f"hydra.launcher.gpus_per_job={gpus_per_job}: more than one is a whole number"
            )
        self.own: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        declared = any(number is not None for number in self.own.values())
        self.address = "local" if declared and address == "auto" else address
        self.n_jobs, self.cpus_per_job, self.gpus_per_job = n_jobs, cpus_per_job, gpus_per_job
        self.running: Counter[Share] = Counter()
        self.latest: Share | None = None
        self.looked = float("-inf")

    def expect(self, jobs: int) -> None:
        pass

    @property
    def nodes(self) -> list[Share]:
        """What each node has."""
        if not ray.is_initialized():
            self.connect()
        if time.monotonic() - self.looked > REFRESH:
            self.looked = time.monotonic()
            all_ = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self.known = [Share(has.get("CPU", 0.0), has.get("GPU", 0.0)) for has in all_]
        return self.known

    def connect(self) -> None:
        """Finds the cluster or starts one; not before there is a job for it.

        Raises:
            UserError: If it cannot be reached.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        address = None if self.address == "auto" else self.address
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address, include_dashboard=False, **self.own, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"hydra.launcher.address={self.address}"
            raise UserError(f"{where}: {first_line(error)}") from error
        finally:
            signal.signal(signal.SIGTERM, before)  # Ray would end everything at once

    def share(self, job: Job) -> Share:
        """What a job takes."""
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

    def check(self, job: Job) -> None:
        if job.state != "waiting":
            return
        share = self.latest = self.share(job)
        if self.n_jobs == "auto" and not any(node.room(share) for node in self.nodes):
            cpus, gpus = (max(numbers) for numbers in zip(*self.nodes, strict=True))
            raise UserError(
                f"{job.name}: asks for {share.gpus:g} GPUs and {share.cpus:g} processors; nodes of "
                f"the cluster have at most {gpus:g} and {cpus:g}"
            )

    def free(self, job: Job | None = None) -> int:
        share = self.share(job) if job else self.latest
        if self.n_jobs != "auto":
            return self.n_jobs - self.running.total()
        if share is None:  # nothing has been asked of Ray so far
            return 1
        fit = sum(node.room(share) for node in self.nodes)
        taken = [(other, count) for other, count in self.running.items() if other != share]
        left = Share(
            sum(node.cpus for node in self.nodes) - sum(n * other.cpus for other, n in taken),
            sum(node.gpus for node in self.nodes) - sum(n * other.gpus for other, n in taken),
        )
        return min(fit, left.room(share)) - self.running[share]

    def start(self, job: Job, order: Order) -> Remote:
        share = self.share(job)
        order = replace(order, environment=environment(job, share) | order.environment)

        def submit() -> Task:
            resources = {"num_cpus": share.cpus, "num_gpus": share.gpus}
            return Task(run.options(**resources, name=job.name).remote(order))

        def give_back() -> None:
            self.running[share] -= 1

        self.running[share] += 1
        return Remote(order, submit, give_back)

    def close(self) -> None:
        ray.shutdown()


def environment(job: Job, share: Share) -> dict[str, str]:
    """That of the launcher, but for what a job has of its node and its share of it."""
    carried = {k: v for k, v in os.environ.items() if not OF_A_NODE.fullmatch(k)}
    threads = max(1, int(share.cpus) // max(job.devices, 1))
    carried["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    if not share.gpus:
        carried["CUDA_VISIBLE_DEVICES"] = ""  # or it would take one behind Ray's back
    return carried


@ray.remote(max_retries=0)
def run(order: Order) -> int:
    return Worker(order)()


class Task:
    """A job that Ray was given."""

    def __init__(self, promise: "ray.ObjectRef[int]") -> None:
        self.promise = promise

    def result(self) -> int | None:
        ready, _ = ray.wait([self.promise], timeout=0)
        if not ready:
            return None
        try:
            return ray.get(self.promise)
        except ray.exceptions.RayTaskError as error:  # ends with what was raised on the node
            raise Lost(str(error)) from error
        except ray.exceptions.RayError as error:
            raise Lost(f"Ray: {first_line(error)}") from error

    def cancel(self) -> None:
        ray.cancel(self.promise)
