"""Tests of jobs on other nodes: worker, remote handle, and the Ray and SLURM engines.

Worker and handle each face files written by the test instead of the other side. The engines are
compared with exact numbers, and run whole sweeps on a Ray cluster and a SLURM of this machine.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from support.waiting import wait_until

from vaelab.errors import UserError
from vaelab.sweeps import build_engine, worker
from vaelab.sweeps.claims import process_space
from vaelab.sweeps.engines import remote
from vaelab.sweeps.engines.remote import Lost, RemoteHandle
from vaelab.sweeps.job import Job, last_error
from vaelab.sweeps.process import Order, Process
from vaelab.sweeps.worker import NOT_BEGUN, Worker, end_file, request_file, start_file
from vaelab.training.json_files import read_json, write_json

ROOT = Path(__file__).parents[2]
IGNORE_SIGTERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
EXIT_ON_SIGTERM = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"
WAIT_FOR_SIGNAL = "signal.alarm(60)\nprint('sitting', flush=True)\nwhile True: signal.pause()"


@pytest.fixture
def make_order(tmp_path, monkeypatch) -> Callable[..., Order]:
    """(*lines of Python, **heartbeat) -> a job that runs these lines, and its exchange files.

    By default the launcher is on another machine. Its heartbeat file has one beat and does not
    count as too old.
    """
    monkeypatch.setattr(worker, "LOOK", 0.02)
    monkeypatch.setattr(worker, "HASTE", 1.0)
    monkeypatch.setattr(worker, "SILENT", 10**6)
    life = tmp_path / "launcher.alive"

    def make(*lines: str, **content) -> Order:
        write_json(life, {"host": "elsewhere", "pid": 1, "beats": 1} | content)
        made = Order([sys.executable, "-c", "\n".join(lines)], tmp_path / "job" / "job.log", life)
        write_json(request_file(made), {"signal": 0})
        return made

    return make


class WorkerThread:
    """A `Worker` that runs a job in a thread."""

    def __init__(self, given: Order) -> None:
        self.order, self.code = given, None
        self.thread = Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        self.code = Worker(self.order)()

    def wait_for_output(self, text: str) -> None:
        """Waits until the log of the job contains a text."""
        wait_until(lambda: self.order.log.exists() and text in self.order.log.read_text())

    def wait_for_exit(self, within: float = 20.0) -> int:
        """Returns the worker's exit code; fails the test unless it ends within so many seconds."""
        self.thread.join(within)
        assert not self.thread.is_alive()
        return self.code


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("print('hello')", 0),
        ("import sys; print('hello'); sys.exit(3)", 3),
        ("import os; print('hello', flush=True); os.kill(os.getpid(), 9)", -9),
    ],
    ids=["success", "exit code 3", "SIGKILL"],
)
def test_worker_returns_exit_code_and_logs_output_of_job(make_order, line, code):
    given = make_order(line)
    assert Worker(given)() == code
    assert given.log.read_text() == "hello\n"


def test_worker_writes_host_and_gpus_to_start_file(make_order, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    given = make_order()
    Worker(given)()
    assert read_json(start_file(given)) == {"host": socket.gethostname(), "gpus": "2,3"}


def test_worker_stops_job_on_requested_sigterm(make_order):
    running = WorkerThread(make_order(EXIT_ON_SIGTERM, WAIT_FOR_SIGNAL))
    running.wait_for_output("sitting")
    write_json(request_file(running.order), {"signal": signal.SIGTERM})
    assert running.wait_for_exit() == 143


def test_worker_kills_job_on_requested_sigkill(make_order):
    running = WorkerThread(make_order(IGNORE_SIGTERM, WAIT_FOR_SIGNAL))
    running.wait_for_output("sitting")
    write_json(request_file(running.order), {"signal": signal.SIGTERM})
    time.sleep(0.3)
    assert running.code is None
    write_json(request_file(running.order), {"signal": signal.SIGKILL})
    assert running.wait_for_exit() == -9


def test_worker_stops_job_when_request_file_is_deleted(make_order):
    running = WorkerThread(make_order(EXIT_ON_SIGTERM, WAIT_FOR_SIGNAL))
    running.wait_for_output("sitting")
    request_file(running.order).unlink()
    assert running.wait_for_exit() == 143


def age_heartbeat_file(given: Order) -> None:
    """Makes the heartbeat file a minute older than the worker's limit of silence."""
    then = time.time() - worker.SILENT * worker.LOOK - 60
    os.utime(given.heartbeat_file, (then, then))


REASONS_NOT_TO_START = {
    "SIGTERM requested": lambda given: write_json(request_file(given), {"signal": signal.SIGTERM}),
    "request file deleted": lambda given: request_file(given).unlink(),
    "heartbeat file deleted": lambda given: given.heartbeat_file.unlink(),
    "heartbeat too old": age_heartbeat_file,
    "launcher process dead": lambda given: write_json(
        given.heartbeat_file, {"host": process_space(), "pid": dead_pid(), "beats": 1}
    ),
}


def dead_pid() -> int:
    """Starts a process, waits for its end and returns its id."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


@pytest.mark.parametrize("reason", REASONS_NOT_TO_START)
def test_worker_does_not_start_cancelled_or_abandoned_job(make_order, reason):
    given = make_order("print('hello')")
    REASONS_NOT_TO_START[reason](given)
    assert Worker(given)() == NOT_BEGUN
    assert not given.log.exists()


def test_worker_stops_job_without_new_heartbeat(make_order, monkeypatch):
    monkeypatch.setattr(worker, "SILENT", 25)
    running = WorkerThread(make_order(EXIT_ON_SIGTERM, WAIT_FOR_SIGNAL))
    assert running.wait_for_exit() == 143
    assert "no sign of life" in running.order.log.read_text()
    assert not request_file(running.order).exists()
    assert not start_file(running.order).exists()


def test_worker_kills_unresponsive_job_of_dead_launcher(make_order):
    given = make_order(IGNORE_SIGTERM, WAIT_FOR_SIGNAL, host=process_space(), pid=os.getpid())
    running = WorkerThread(given)
    running.wait_for_output("sitting")
    write_json(given.heartbeat_file, {"host": process_space(), "pid": dead_pid(), "beats": 1})
    assert running.wait_for_exit(within=3) == -9


def test_worker_continues_job_while_heartbeat_changes(make_order, monkeypatch):
    """The job outlasts the limit of silence, and the heartbeat file is empty at times."""
    monkeypatch.setattr(worker, "SILENT", 25)
    given = make_order("import time; time.sleep(2)")
    running = WorkerThread(given)
    beats = 1
    while running.code is None:
        beats += 1
        write_json(given.heartbeat_file, {"host": "elsewhere", "pid": 1, "beats": beats})
        time.sleep(0.1)
        given.heartbeat_file.write_text("")
        time.sleep(0.05)
    assert running.wait_for_exit() == 0


def test_worker_time_limits_end_before_claims_are_lost():
    from vaelab.sweeps.claims import BEAT, LOST

    assert 3 * BEAT < worker.SILENT * worker.LOOK
    assert worker.SILENT * worker.LOOK + worker.HASTE < 0.75 * LOST


def test_worker_logs_error_if_job_cannot_start(make_order):
    given = make_order()
    broken = Order(["/nowhere/python"], given.log, given.heartbeat_file)
    assert Worker(broken)() == 1
    assert "/nowhere/python" in last_error(given.log, 0)


def test_process_inherits_environment_except_process_group_variables(make_order, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("OF_THE_NODE", "yes")
    monkeypatch.setenv("GIVEN", "by the node")
    given = make_order("import json, os; print(json.dumps(dict(os.environ)))")
    given.environment["GIVEN"] = "by the launcher"
    assert Process(given).wait() == 0
    found = json.loads(given.log.read_text())
    assert (found["OF_THE_NODE"], found["GIVEN"]) == ("yes", "by the launcher")
    assert "LOCAL_RANK" not in found


@pytest.mark.slow
def test_process_hides_slurm_from_lightning(make_order, monkeypatch):
    given = make_order(
        "from lightning.fabric.plugins.environments import SLURMEnvironment",
        "print(SLURMEnvironment.detect())",
    )
    given.environment.update(SLURM_NTASKS="1", SLURM_JOB_NAME="vae", SLURM_JOB_ID="7")
    assert Process(given).wait() == 0
    assert given.log.read_text().splitlines()[-1] == "False"


class FakeTask:
    """A `remote.Task` whose outcome, an exit code or an exception, is set by the test."""

    def __init__(self) -> None:
        self.outcome: int | Exception | None = None
        self.cancelled = 0

    def result(self) -> int | None:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture
def submitted_job(make_order, monkeypatch) -> tuple[RemoteHandle, FakeTask, list[str]]:
    """The handle of a job, its task, and a list that grows when the handle frees resources."""
    monkeypatch.setattr(worker, "LOOK", 0.0)
    monkeypatch.setattr(remote, "PATIENCE", 0.05)
    task, freed = FakeTask(), []
    return RemoteHandle(make_order(), lambda: task, lambda: freed.append("all")), task, freed


def test_remote_handle_poll_returns_device_and_exit_code(submitted_job):
    handle, task, freed = submitted_job
    assert (handle.poll(), handle.where) == (None, "")
    write_json(start_file(handle.order), {"host": "node7", "gpus": "0,1"})
    assert (handle.poll(), handle.where) == (None, "node7 GPU 0,1")
    task.outcome = -9
    assert handle.poll() == handle.poll() == -9
    assert freed == ["all"]
    assert not request_file(handle.order).exists()
    assert not start_file(handle.order).exists()


def test_device_label_names_host_only_if_remote():
    here = socket.gethostname()
    assert remote.device_label({"host": here, "gpus": "3"}) == "GPU 3"
    assert remote.device_label({"host": here, "gpus": ""}) == "CPU"
    assert remote.device_label({"host": "node7", "gpus": None}) == "node7 CPU"


def test_remote_handle_logs_reason_of_lost_job(submitted_job):
    handle, task, _ = submitted_job
    task.outcome = Lost("some\ndetail\nthe node died")
    assert handle.poll() == 1
    assert last_error(handle.order.log, 0) == "the node died"


def test_remote_handle_stop_cancels_queued_job_once(submitted_job):
    handle, task, _ = submitted_job
    handle.stop()
    handle.stop()
    assert task.cancelled == 1
    task.outcome = Lost("cancelled")
    assert handle.poll() == -signal.SIGTERM
    assert not handle.order.log.exists()


def test_remote_handle_requests_signals_then_cancels_running_job(submitted_job):
    handle, task, _ = submitted_job
    write_json(start_file(handle.order), {"host": "node7", "gpus": None})
    handle.stop()
    assert read_json(request_file(handle.order)) == {"signal": signal.SIGTERM}
    handle.kill()
    assert read_json(request_file(handle.order)) == {"signal": signal.SIGKILL}
    assert (handle.poll(), task.cancelled) == (None, 0)
    time.sleep(0.1)
    handle.kill()
    assert (handle.poll(), task.cancelled) == (-9, 1)


def build_job(accelerator: str = "auto", devices: int = 1) -> Job:
    return Job([], {}, Path("folder"), accelerator=accelerator, devices=devices)


@pytest.fixture
def build_ray(monkeypatch):
    """(nodes as (CPU cores, GPUs), **settings) -> the engine for a Ray cluster of these nodes."""
    pytest.importorskip("ray", reason="needs ray")
    from vaelab.sweeps.engines.ray import Ray, Share

    def make(*nodes: tuple[float, float], **settings) -> Ray:
        monkeypatch.setattr(Ray, "nodes", [Share(*map(float, node)) for node in nodes])
        given = {"address": "auto", "num_cpus": None, "num_gpus": None, "n_jobs": "auto"}
        given |= {"cpus_per_job": "auto", "gpus_per_job": "auto", "start": "auto"}
        return Ray(**(given | settings))

    return make


# nodes as (CPU cores, GPUs), settings, job settings, share of a job, startable jobs
RAY_SHARES = [
    pytest.param([(8, 4)], {}, {}, (2, 1), 4, id="defaults"),
    pytest.param([(8, 4)], {"gpus_per_job": 0.5}, {}, (1, 0.5), 8, id="half a GPU"),
    pytest.param([(8, 4)], {}, {"devices": 2}, (4, 2), 2, id="2 devices"),
    pytest.param([(8, 4)], {}, {"devices": -1}, (8, 4), 1, id="all devices"),
    pytest.param([(8, 4)], {}, {"accelerator": "cpu"}, (1, 0), 8, id="cpu"),
    pytest.param(
        [(8, 4)], {"gpus_per_job": 1}, {"accelerator": "cpu"}, (1, 0), 8, id="cpu and gpus_per_job"
    ),
    pytest.param([(8, 4)], {"cpus_per_job": 3}, {}, (3, 1), 2, id="3 cpus_per_job"),
    pytest.param([(8, 4)], {"n_jobs": 50}, {}, (2, 1), 50, id="50 n_jobs"),
    pytest.param([(8, 4)], {"gpus_per_job": 3}, {}, (6, 3), 1, id="3 gpus_per_job"),
    # 2 jobs and not 3: a job needs its GPUs on one node
    pytest.param([(9, 3), (9, 3)], {}, {"devices": 2}, (6, 2), 2, id="2 nodes of 3 GPUs"),
    pytest.param([(8, 0), (4, 4)], {}, {}, (1, 1), 4, id="one node without GPUs"),
    pytest.param([(2, 0)], {}, {"devices": 2}, (2, 0), 1, id="no GPUs"),
    pytest.param([(2, 0)], {}, {"devices": 8}, (2, 0), 1, id="more devices than CPU cores"),
    pytest.param([(1, 3)], {"gpus_per_job": 0.3}, {}, (0.1, 0.3), 9, id="three tenths of a GPU"),
]


@pytest.mark.parametrize(("nodes", "settings", "job_settings", "share", "startable"), RAY_SHARES)
def test_ray_share_and_count_startable_of_job(
    build_ray, nodes, settings, job_settings, share, startable
):
    engine = build_ray(*nodes, **settings)
    assert engine.share(build_job(**job_settings)) == pytest.approx(share)
    assert engine.count_startable(build_job(**job_settings)) == startable
    engine.check_job(build_job(**job_settings))
    assert engine.count_startable() == startable
    engine.running[engine.share(build_job(**job_settings))] += 1
    assert engine.count_startable(build_job(**job_settings)) == startable - 1


def test_ray_count_startable_with_jobs_of_two_sizes(build_ray):
    engine = build_ray((8, 4))
    engine.running[engine.share(build_job(devices=2))] += 1
    assert engine.count_startable(build_job()) == 2
    engine.running[engine.share(build_job())] += 1
    assert engine.count_startable(build_job(devices=2)) == 0
    assert engine.count_startable(build_job()) == 1


def test_ray_refuses_oversized_jobs_and_fractional_gpus_above_one(build_ray):
    with pytest.raises(UserError, match=r"asks for 5 GPUs .* at most 4 and 8"):
        build_ray((8, 4)).check_job(build_job(devices=5))
    # with n_jobs the job waits for a larger node
    build_ray((8, 4), n_jobs=2).check_job(build_job(devices=5))
    with pytest.raises(UserError, match=r"gpus_per_job=1\.5: .* whole number"):
        build_ray((8, 4), gpus_per_job=1.5)


def test_ray_does_not_connect_for_finished_jobs(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs ray")
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("started"))
    done = build_job()
    done.state = "done"
    engine = build_engine("vaelab.sweeps.engines.ray.Ray", launcher_settings("ray"))
    engine.check_job(done)
    assert engine.count_startable() == 1


def test_ray_job_environment_omits_node_variables_of_launcher(build_ray, monkeypatch):
    from vaelab.sweeps.engines.ray import Share, job_environment

    node_variables = ("CUDA_VISIBLE_DEVICES", "SLURM_NTASKS", "RAY_JOB_ID", "TMPDIR")
    for name in (*node_variables, "PYTHONPATH", "VAELAB_DATA", "CUDA_HOME"):
        monkeypatch.setenv(name, "given")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with_gpu = job_environment(build_job(devices=2), Share(8, 2))
    assert not with_gpu.keys() & set(node_variables)
    assert all(with_gpu[name] == "given" for name in ("PYTHONPATH", "VAELAB_DATA", "CUDA_HOME"))
    assert with_gpu["OMP_NUM_THREADS"] == "4"
    without = job_environment(build_job(), Share(0.5, 0))
    assert (without["OMP_NUM_THREADS"], without["CUDA_VISIBLE_DEVICES"]) == ("1", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert job_environment(build_job(), Share(8, 0))["OMP_NUM_THREADS"] == "3"


def test_ray_start_takes_share_until_job_ends(build_ray, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr("vaelab.sweeps.engines.ray.RemoteHandle", lambda *all_: given.append(all_))
    monkeypatch.setenv("VAELAB_DATA", "of the launcher")
    engine = build_ray((8, 4))
    engine.start(build_job(), Order([], tmp_path, tmp_path, {"VAELAB_SWEPT": "of the job"}))
    assert engine.count_startable(build_job()) == 3
    ((order, _, give_back),) = given
    assert order.environment["VAELAB_SWEPT"] == "of the job"
    assert order.environment["VAELAB_DATA"] == "of the launcher"
    give_back()
    assert engine.count_startable(build_job()) == 4


def test_ray_task_of_dead_node_names_reason_in_one_sentence(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs ray")
    from vaelab.sweeps.engines.ray import RayTask

    def fail(_):
        raise ray.exceptions.NodeDiedError("The node is dead. Node IP: 10.0.0.7. See `ray logs`.")

    monkeypatch.setattr(ray, "wait", lambda *_, **__: ([1], []))
    monkeypatch.setattr(ray, "get", fail)
    with pytest.raises(Lost) as error:
        RayTask("promise").result()
    assert str(error.value).splitlines()[-1] == "Ray: The node is dead"
    assert "10.0.0.7" in str(error.value)  # for the job's log


def test_ray_connect_keeps_sigterm_handler(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs ray")
    from vaelab.sweeps.engines.ray import Ray

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "init", lambda *_, **__: signal.signal(signal.SIGTERM, print))
    Ray(**launcher_settings("ray")).connect()
    assert signal.getsignal(signal.SIGTERM) == before


def test_ray_connect_failure_is_one_line_error(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs ray")
    from vaelab.sweeps.engines.ray import Ray

    def fail(*_, **__):
        raise ConnectionError("Failed to connect\nfor some reason")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(UserError) as error:
        Ray(**launcher_settings("ray", address="node:6379")).connect()
    assert str(error.value) == "hydra.launcher.address=node:6379: Failed to connect"


def launcher_settings(launcher: str, **changes) -> dict:
    """Reads an engine's default settings from its file in `conf`, and changes some."""
    import yaml

    content = yaml.safe_load((ROOT / f"conf/hydra/launcher/{launcher}.yaml").read_text())
    for name in ("_target_", "engine", "grace"):
        del content[name]
    return content | changes


@pytest.mark.parametrize(("launcher", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_build_engine_names_install_command_of_missing_package(monkeypatch, launcher, module):
    name = f"vaelab.sweeps.engines.{launcher}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as error:
        build_engine(f"{name}.{launcher.title()}", {})
    assert (
        str(error.value)
        == f'hydra/launcher={launcher} needs {module}: pip install -e ".[{launcher}]"'
    )


def build_slurm(**changes):
    """Builds the SLURM engine; skips the test without submitit."""
    pytest.importorskip("submitit", reason="needs submitit")
    return build_engine("vaelab.sweeps.engines.slurm.Slurm", launcher_settings("slurm", **changes))


def test_slurm_requested_resources():
    engine = build_slurm(
        cluster="local", partition="p", mem_gb=4, parameters={"slurm_account": "me"}
    )
    found = engine.requested_resources(build_job())
    assert (found["slurm_partition"], found["slurm_account"], found["mem_gb"]) == ("p", "me", 4)
    assert (found["cpus_per_task"], found["gpus_per_node"]) == (1, None)
    two = engine.requested_resources(build_job("gpu", devices=2))
    assert (two["cpus_per_task"], two["gpus_per_node"]) == (2, 2)
    assert (
        build_slurm(cluster="local", gpus_per_job=1).requested_resources(build_job())[
            "gpus_per_node"
        ]
        == 1
    )
    assert (
        build_slurm(cluster="local", gpus_per_job=1).requested_resources(build_job("cpu"))[
            "gpus_per_node"
        ]
        is None
    )


def test_slurm_refuses_missing_srun_unknown_parameter_and_all_devices(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="no srun on this machine"):
        build_slurm()
    engine = build_slurm(cluster="local", parameters={"slurm_acount": "me"})
    with pytest.raises(UserError, match=r"hydra\.launcher\.parameters: Unknown argument 'acount'"):
        engine.check_job(build_job())
    with pytest.raises(UserError, match="how many"):
        build_slurm(cluster="local").check_job(build_job("gpu", devices=-1))


@pytest.mark.parametrize(
    ("limit", "parameters", "refused"),
    [(1, {}, True), (2, {}, False), (2, {"slurm_signal_delay_s": 120}, True)],
    ids=["default signal", "long enough", "early signal"],
)
def test_slurm_refuses_time_limit_before_signal(tmp_path, monkeypatch, limit, parameters, refused):
    for name in ("srun", "sacct"):
        write_script(tmp_path / name, "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = build_slurm(timeout_min=limit, parameters=parameters)
    if refused:
        with pytest.raises(UserError, match=rf"timeout_min={limit}: .* would stop at once"):
            engine.check_job(build_job())
    else:
        engine.check_job(build_job())


def test_requeuing_worker_checkpoint_stops_and_requeues_job(make_order, tmp_path):
    pytest.importorskip("submitit", reason="needs submitit")
    from submitit.core.utils import DelayedSubmission

    from vaelab.sweeps.engines.slurm_worker import RequeuingWorker

    given = make_order(EXIT_ON_SIGTERM, WAIT_FOR_SIGNAL)
    running, job = RequeuingWorker([given], 0, "fresh"), Worker(given)
    running.running.append((job, {}))
    assert job.poll() is None
    assert start_file(given).exists()
    wait_until(lambda: "sitting" in given.log.read_text())
    running.checkpoint().dump(tmp_path / "pickle")  # as submitit does before the time limit
    assert job.poll() == 143
    assert not start_file(given).exists()  # since the job is in the queue again
    again = DelayedSubmission.load(tmp_path / "pickle").function
    assert (again.orders, again.running) == ([given], [])


SCONTROL_SCRIPT = """#!/bin/sh
test "$*" = "requeue 7" && exit 0
test "$*" = "show job 7" && echo "JobId=7 Reboot=0 {shown}"
"""


@pytest.mark.parametrize(
    ("shown", "before", "requeued"),
    [
        ("JobState=COMPLETING Restarts=1", None, True),
        ("JobState=COMPLETING Restarts=2 PreemptTime=2026-11-29T07:00:00", "1", True),
        ("JobState=RUNNING Restarts=0 PreemptTime=2026-11-29T07:00:00", None, True),
        ("JobState=COMPLETING Restarts=0 PreemptTime=None", None, False),
        ("JobState=COMPLETING Restarts=1 PreemptTime=2026-11-29T07:00:00", "1", False),
        ("JobState=RUNNING Restarts=0 PreemptTime=None", None, False),
        ("", None, False),
    ],
    ids=[
        *("queued again", "preempted again", "in time of grace", "cancelled"),
        *("cancelled later", "signal alone", "SLURM not reached"),
    ],
)
def test_requeuing_worker_gives_no_result_if_slurm_queues_its_job_again(
    make_order, tmp_path, monkeypatch, shown, before, requeued
):
    """SLURM sends SIGTERM to the worker, as for scancel and as for preemption."""
    pytest.importorskip("submitit", reason="needs submitit")
    from vaelab.sweeps.engines.slurm_worker import RequeuingWorker

    (tmp_path / "bin").mkdir()
    write_script(tmp_path / "bin" / "scontrol", SCONTROL_SCRIPT.format(shown=shown))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    if before:
        monkeypatch.setenv("SLURM_RESTART_COUNT", before)
    given = make_order(EXIT_ON_SIGTERM, WAIT_FOR_SIGNAL)
    handler = signal.getsignal(signal.SIGTERM)

    def preempt() -> None:
        """Sends SIGTERM to this process, where the worker is, once the job runs."""
        wait_until(lambda: given.log.exists() and "sitting" in given.log.read_text())
        os.kill(os.getpid(), signal.SIGTERM)

    slurm = Thread(target=preempt)
    slurm.start()
    try:
        code = RequeuingWorker([given], 0, "fresh")()[given.log]
    except SystemExit:  # with which submitit writes no result
        assert requeued
        assert not start_file(given).exists()
    else:
        assert (code, requeued) == (143, False)
    finally:
        slurm.join()
        signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def make_orders(make_order) -> Callable[..., list[Order]]:
    """(*lines of Python) -> a job for each of them, in folders of their own."""

    def make(*scripts: str) -> list[Order]:
        made = []
        for i, script in enumerate(scripts):
            given = make_order(script)
            given = replace(given, log=given.log.parents[1] / f"job-{i}" / "job.log")
            write_json(request_file(given), {"signal": 0})
            made.append(given)
        return made

    return make


@pytest.fixture
def sigterm_handler() -> Iterator[None]:
    """Restores this process's handler of SIGTERM, which a worker for SLURM replaces."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_allocation_runs_its_jobs_one_after_the_other(make_orders, sigterm_handler):
    pytest.importorskip("submitit", reason="needs submitit")
    from vaelab.sweeps.engines.slurm_worker import RequeuingWorker

    alone = "import os, time; os.mkdir('running'); time.sleep(0.3); os.rmdir('running')"
    scripts = [alone, f"{alone}; os._exit(3)", f"{alone}; os.kill(os.getpid(), 9)", alone]
    orders = [replace(o, folder=str(o.log.parents[1])) for o in make_orders(*scripts)]
    codes = RequeuingWorker(orders, 0, "fresh")()
    assert [codes[order.log] for order in orders] == [0, 3, -9, 0], codes
    ended = [worker.read_json_or_nothing(end_file(order)).get("exit") for order in orders]
    assert ended == [0, 3, -9, None]  # the last ends with the allocation
    assert not (orders[0].log.parents[1] / "running").exists()


def test_allocation_runs_jobs_side_by_side_on_gpus_of_their_own(
    make_orders, sigterm_handler, monkeypatch
):
    pytest.importorskip("submitit", reason="needs submitit")
    from vaelab.sweeps.engines.slurm_worker import RequeuingWorker

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3,5,7")
    both = """
import os, time
gpus = os.environ["CUDA_VISIBLE_DEVICES"]
open(f"gpus-{gpus}", "a").close()
while not all(os.path.exists(f"gpus-{name}") for name in ("0,2", "3,5")): time.sleep(0.05)
print(gpus)
"""
    orders = [replace(o, folder=str(o.log.parents[1])) for o in make_orders(both, both, both)]
    codes = RequeuingWorker(orders, 2, "fresh")()
    assert set(codes.values()) == {0}
    seen = [order.log.read_text().strip() for order in orders]
    assert {"0,2", "3,5"} == set(seen[:2])
    assert seen[2] in seen[:2]
    assert {read_json(start_file(order))["gpus"] for order in orders} == {"0,2", "3,5"}


def test_stopped_allocation_starts_no_other_job(make_orders, sigterm_handler, monkeypatch):
    pytest.importorskip("submitit", reason="needs submitit")
    from vaelab.sweeps.engines.slurm_worker import RequeuingWorker

    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    stop = f"import os, signal; os.kill({os.getpid()}, signal.SIGTERM)"  # as scancel does
    waiting = "\n".join([EXIT_ON_SIGTERM, stop, WAIT_FOR_SIGNAL])
    orders = make_orders("", waiting, "")
    codes = RequeuingWorker(orders, 0, "fresh")()
    assert [codes[order.log] for order in orders] == [0, 143, NOT_BEGUN]
    assert [start_file(order).exists() for order in orders] == [True, True, False]
    assert not orders[2].log.exists()


def test_requeued_allocation_goes_on_with_jobs_that_have_not_ended(make_orders, sigterm_handler):
    pytest.importorskip("submitit", reason="needs submitit")
    from vaelab.sweeps.engines.slurm_worker import RequeuingWorker

    done, unread, waiting = make_orders(
        "print('ran')", "print('ran')", "\n".join([EXIT_ON_SIGTERM, WAIT_FOR_SIGNAL])
    )
    orders = [done, unread, waiting]
    allocation = RequeuingWorker(orders, 0, "fresh")
    again = []

    def reach_limit(*_) -> None:
        again.append(allocation.checkpoint().function)
        raise SystemExit(-1)  # as submitit does

    def signal_at_limit() -> None:
        """Sends the signal once the last job runs; the launcher has seen the end of the first."""
        wait_until(lambda: waiting.log.exists() and "sitting" in waiting.log.read_text())
        worker.delete_exchange_files(done)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, reach_limit)
    slurm = Thread(target=signal_at_limit)
    slurm.start()
    try:
        with pytest.raises(SystemExit):
            allocation()
    finally:
        slurm.join()
        signal.signal(signal.SIGUSR2, before)
    assert not start_file(waiting).exists()  # since it is in the queue again
    again[0].orders = [done, unread, replace(waiting, command=[sys.executable, "-c", ""])]
    assert again[0]()[waiting.log] == 0
    assert [order.log.read_text() for order in (done, unread)] == ["ran\n", "ran\n"]


@pytest.mark.slow
def test_jobs_of_an_allocation_are_forks_of_one_server(make_order, sigterm_handler, monkeypatch):
    pytest.importorskip("submitit", reason="needs submitit")
    from vaelab.sweeps import fork_server
    from vaelab.sweeps.engines.slurm_worker import RequeuingWorker

    program = fork_server.PROGRAM.replace("import serve;", "import serve; forked.IMPORTS = ();")
    program = program.replace("from vaelab", "import vaelab.sweeps.forked as forked; from vaelab")
    monkeypatch.setattr(fork_server, "PROGRAM", program)
    parents, begin = [], fork_server.Fork.__init__

    def note(fork, server, *given) -> None:
        parents.append(server.process.pid)
        begin(fork, server, *given)

    monkeypatch.setattr(fork_server.Fork, "__init__", note)
    orders = []
    for i in range(3):
        given = make_order()
        log = given.log.parents[1] / f"job-{i}" / "job.log"
        words = [sys.executable, "-m", "vaelab", "train", "--help"]
        given = replace(given, command=words, log=log, environment={"OMP_NUM_THREADS": "1"})
        write_json(request_file(given), {"signal": 0})
        orders.append(given)
    assert set(RequeuingWorker(orders, 0, "auto")().values()) == {0}
    assert len(parents) == 3
    assert len(set(parents)) == 1
    assert set(RequeuingWorker(orders[2:], 0, "auto")().values()) == {0}
    assert len(parents) == 3  # a job alone would gain nothing


def test_slurm_fills_allocations_and_cancels_them_with_their_last_job(tmp_path, monkeypatch):
    engine = build_slurm(cluster="local", n_jobs=7, jobs_per_allocation=3)

    submitted, cancelled = [], []

    class Executor:
        """Stands for submitit's, and for its job."""

        def __init__(self, folder: Path) -> None:
            self.folder, self.job_id = folder, str(len(submitted))
            self.paths = SimpleNamespace(result_pickle=folder / "result")

        def update_parameters(self, **given) -> None:
            self.name = given["name"]

        def submit(self, function) -> "Executor":
            submitted.append([self.name, *(o.log.parent.name for o in function.orders)])
            return self

        def done(self) -> bool:
            return False

        def cancel(self, check: bool) -> None:
            cancelled.append(self.name)

    monkeypatch.setattr(engine, "build_executor", Executor)

    def start(name: str, accelerator: str = "auto") -> RemoteHandle:
        job = Job([], {}, Path(name), accelerator=accelerator)
        engine.check_job(job)
        return engine.start(job, Order([], tmp_path / name / "job.log", tmp_path / "alive"))

    assert engine.count_startable() == 6
    handles = [start("a"), start("b")]
    assert (engine.count_startable(), submitted) == (1, [])
    handles.append(start("c"))
    assert (engine.count_startable(), submitted) == (3, [["a_and_2", "a", "b", "c"]])
    other, last = start("d"), start("e", "gpu")  # a job with a GPU needs another allocation
    assert [other.poll(), last.poll()] == [None, None]
    assert submitted[1:] == [["d", "d"], ["e", "e"]]
    assert engine.count_startable() == 0  # there is room for two, but not for an allocation
    write_json(worker.end_file(handles[0].order), {"exit": 3})
    monkeypatch.setattr(worker, "LOOK", 0.0)
    assert [handle.poll() for handle in handles] == [3, None, None]
    assert not worker.end_file(handles[0].order).exists()
    write_json(start_file(handles[1].order), {"host": "node7", "gpus": None})
    handles[2].stop()  # which has not begun
    assert cancelled == []
    handles[1].kill()
    assert cancelled == []
    handles[1].given_up = 0.0
    assert handles[1].poll() == -signal.SIGKILL
    assert cancelled == ["a_and_2"]


SQUEUE_SCRIPT = """#!/bin/sh
echo asked >> {folder}/squeue.asked
cat {folder}/squeue.says
test ! -e {folder}/squeue.error || {{ cat {folder}/squeue.error >&2; exit 1; }}
"""


@pytest.fixture
def fake_squeue(tmp_path, monkeypatch) -> Callable[..., None]:
    """Puts a fake `squeue` on PATH; returns a function that sets its output and its error."""
    (tmp_path / "bin").mkdir()
    write_script(tmp_path / "bin" / "squeue", SQUEUE_SCRIPT.format(folder=tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def set_output(text: str, error: str = "") -> None:
        (tmp_path / "squeue.says").write_text(text)
        (tmp_path / "squeue.error").unlink(missing_ok=True)
        if error:
            (tmp_path / "squeue.error").write_text(error)

    return set_output


def write_script(path: Path, text: str) -> None:
    """Writes an executable script."""
    path.write_text(text)
    path.chmod(0o755)


def test_slurm_task_without_result_is_lost_after_leaving_queue(tmp_path, fake_squeue, monkeypatch):
    pytest.importorskip("submitit", reason="needs submitit")
    from vaelab.sweeps.engines import allocations

    class Submission:
        """Stands for submitit's job; it has no `state`, which needs SLURM's accounts."""

        job_id = "7"

        paths = SimpleNamespace(result_pickle=tmp_path / "result")

        def stderr(self) -> str:
            return "slurmstepd: error: killed"

    given = Order([], tmp_path / "job" / "job.log", tmp_path / "alive")
    allocation = allocations.Allocation(None, {}, 0, "fresh")
    allocation.job = Submission()
    task = allocations.SlurmTask(allocation, given, accounts=False)
    fake_squeue("7 main vae R 0:17 node7")
    assert [task.result() for _ in range(100)] == [None] * 100
    assert not (tmp_path / "squeue.asked").exists()  # within 20 seconds squeue is not run
    monkeypatch.setattr(allocations, "SELDOM", 0.0)
    assert task.result() is None
    fake_squeue("", "slurm_load_jobs error: Unable to contact slurm controller")
    assert [task.result() for _ in range(20)] == [None] * 20
    fake_squeue("", "slurm_load_jobs error: Invalid job id specified")
    assert [task.result() for _ in range(allocations.WAIT - 1)] == [None] * (allocations.WAIT - 1)
    with pytest.raises(Lost, match="killed\nSLURM: job 7 ended as one without a result"):
        task.result()
    assert (tmp_path / "squeue.asked").read_text().count("asked") == 1 + 20 + 1


TASK_SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from vaelab.commands import cli


@cli.task("train")
def main(cfg):
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / ".hydra").mkdir(exist_ok=True)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")

    def stop(*_):
        (folder / "checkpoint").touch()
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    begun, again = time.time(), (folder / "begun").exists()
    (folder / "begun.new").write_text(str(os.getpid()))
    os.replace(folder / "begun.new", folder / "begun")  # whole once it is there
    trouble = json.loads(os.environ["TROUBLE"]).get(str(cfg.seed))
    time.sleep(0 if again or trouble != "sit" else 600)
    if trouble == "raise" and not again:
        raise RuntimeError("as asked")
    if trouble == "kill" and not again:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1)
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = {"val/elbo": cfg.seed, "gpu": gpu, "begun": begun, "ended": time.time()}
    (folder / "results.json").write_text(json.dumps(found))


main()
"""
ENGINES = {
    "ray": ["hydra.launcher.num_gpus=2", "hydra.launcher.num_cpus=2"],
    "slurm": ["hydra.launcher.cluster=local", "hydra.launcher.n_jobs=2"],
}


@pytest.fixture(params=ENGINES)
def start_sweep(request, tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """(*overrides, trouble={seed: raise, kill or sit}) -> the process of a new launcher.

    The test runs with each engine, named by the attribute `engine`; skips without its package.
    Launchers are killed at the end of the test.
    """
    pytest.importorskip({"slurm": "submitit"}.get(request.param, request.param))
    (tmp_path / "task.py").write_text(TASK_SCRIPT)
    fixed = [f"hydra/launcher={request.param}", *ENGINES[request.param], "hydra.sweep.dir=sweep"]
    started = []

    def start(*overrides: str, trouble: dict[int, str] | None = None) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "task.py", "-m", *fixed, *overrides],
            cwd=tmp_path,
            env=os.environ | {"TROUBLE": json.dumps(trouble or {})},
            stdout=(tmp_path / "said").open("w"),
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        return process

    start.engine = request.param
    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_cluster_sweep_lists_failures_and_reruns_only_failed_jobs(start_sweep, tmp_path):
    folder = tmp_path / "sweep"
    first = start_sweep("seed=range(1,6)", trouble={2: "raise", 3: "kill"})
    output = output_after_exit(first, tmp_path)
    assert first.returncode == 1, output
    assert "failed  seed=2: RuntimeError: as asked  sweep/seed-2/job.log" in output
    assert "failed  seed=3: killed by SIGKILL  sweep/seed-3/job.log" in output
    assert "3 of 5 done, 2 failed" in output
    started = sorted(line.split()[1] for line in output.splitlines() if line.startswith("started"))
    assert started == [f"seed={seed}" for seed in range(1, 6)]  # each job once
    failures = {path.parent.name: read_json(path) for path in folder.glob("*/failure.json")}
    assert {name: failure["exit"] for name, failure in failures.items()} == {
        "seed-2": 1,
        "seed-3": -9,
    }
    assert "Traceback" in (folder / "seed-2" / "job.log").read_text()
    assert has_only_lines("started|done|failed|sweep|report|curves|best|go on", output)
    left = {path.name for path in folder.iterdir()}
    assert left - {".lock"} == {"sweep.json", *(f"seed-{seed}" for seed in range(1, 6))}

    second = start_sweep("seed=range(1,6)")
    output = output_after_exit(second, tmp_path)
    assert second.returncode == 0, output
    assert "5 of 5 done" in output
    assert {line.split()[1] for line in output.splitlines() if line.startswith("done")} == {
        "seed=2",
        "seed=3",
    }
    assert not [*folder.glob("*/failure.json")]
    runs = [read_json(folder / f"seed-{seed}" / "results.json") for seed in range(1, 6)]
    if start_sweep.engine == "ray":  # jobs at the same time have different GPUs
        assert {run["gpu"] for run in runs} == {"0", "1"}
        at_once = [[o["gpu"] for o in runs if o["begun"] <= r["begun"] < o["ended"]] for r in runs]
        assert all(len(gpus) == len(set(gpus)) for gpus in at_once)


def output_after_exit(launcher: subprocess.Popen, folder: Path) -> str:
    """Waits for a launcher to end, two minutes at most, and returns its output."""
    launcher.wait(120)
    return (folder / "said").read_text()


def is_sigint_blocked(pid: int) -> bool:
    """True if a process blocks SIGINT, which Ctrl-C sends to all processes of a terminal."""
    blocked = re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(blocked) and bool(int(blocked[1], 16) >> (signal.SIGINT - 1) & 1)


def has_only_lines(beginnings: str, output: str) -> bool:
    """True if every line is a count of jobs or starts with one of `beginnings`, a regex."""
    lines = [line for line in output.splitlines() if line]
    return all(re.match(rf"({beginnings}|\d+ of \d+ done)\b", line) for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=["SIGTERM", "SIGKILL"]
)
def test_ended_launcher_leaves_no_job_running_on_cluster(start_sweep, tmp_path, number, code):
    launcher = start_sweep("seed=range(1,4)", trouble={1: "sit", 2: "sit"})
    folders = [tmp_path / "sweep" / f"seed-{seed}" for seed in (1, 2)]
    wait_until(lambda: all((folder / "begun").exists() for folder in folders), 60)
    pids = [int((folder / "begun").read_text()) for folder in folders]
    assert all(is_sigint_blocked(pid) for pid in pids)
    launcher.send_signal(number)
    output = output_after_exit(launcher, tmp_path)
    assert launcher.returncode == code, output
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 45)
    if number == signal.SIGTERM:
        assert "2 stopped, 1 waiting" in output
        assert all((folder / "checkpoint").exists() for folder in folders)
        assert not (tmp_path / "sweep" / ".claims").exists()


SLURM_WITHOUT_ACCOUNTING = {
    "sacct": """
        echo asked >> $HERE/sacct.asked
        echo Slurm accounting storage is disabled >&2
        exit 1
    """,
    "sbatch": """
        for batch; do :; done
        echo one >> $HERE/jobs
        number=$(wc -l < $HERE/jobs)
        export SLURM_JOB_ID=$number SLURM_JOB_NODELIST=here SLURM_NTASKS=1
        setsid sh $batch > $HERE/$number.log 2>&1 &
        echo Submitted batch job $number
    """,
    "srun": """
        until test -x "$1"; do shift; done
        SLURM_LOCALID=0 SLURM_PROCID=0 SLURM_NODEID=0 SLURM_NNODES=1 exec "$@"
    """,
    "scontrol": "echo here",
}
"""Commands of a SLURM without accounting, which run each job at once on this machine."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "shared", ["", "hydra.launcher.jobs_per_allocation=2"], ids=["one by one", "in allocations"]
)
def test_slurm_without_accounting_runs_jobs_with_one_notice(tmp_path, monkeypatch, shared):
    pytest.importorskip("submitit", reason="needs submitit")
    (tmp_path / "bin").mkdir()
    for name, lines in SLURM_WITHOUT_ACCOUNTING.items():
        write_script(tmp_path / "bin" / name, f"#!/bin/sh\nHERE={tmp_path}\n{lines}")
    (tmp_path / "task.py").write_text(TASK_SCRIPT)
    fixed = ["hydra/launcher=slurm", "hydra.sweep.dir=sweep", *shared.split()]
    done = subprocess.run(
        [sys.executable, "task.py", "-m", *fixed, "seed=1,2,3"],
        cwd=tmp_path,
        env=os.environ | {"TROUBLE": "{}", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    output = done.stdout.splitlines()
    assert output[0].startswith("SLURM keeps no accounts here")
    assert sum("accounts" in line for line in output) == 1
    assert "3 of 3 done" in done.stdout
    assert (tmp_path / "jobs").read_text().count("one") == (2 if shared else 3)
    assert {path.name for path in (tmp_path / "sweep").iterdir()} - {".lock"} == {
        *("sweep.json", "seed-1", "seed-2", "seed-3"),
    }
    assert (tmp_path / "sacct.asked").read_text().splitlines() == ["asked"]
