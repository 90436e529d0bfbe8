"""Jobs on other nodes: what a worker and its launcher see of each other, Ray, and SLURM."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from vaelab.errors import UserError
from vaelab.sweeps import build_engine, worker
from vaelab.sweeps.engines import remote
from vaelab.sweeps.engines.remote import Lost, RemoteHandle
from vaelab.sweeps.job import Job, last_error
from vaelab.sweeps.process import Order, Process
from vaelab.sweeps.worker import NOT_BEGUN, Worker, request_file, start_file
from vaelab.training.json_files import read_json, write_json

ROOT = Path(__file__).parents[2]
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
CHECKPOINT = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"
FOREVER = "signal.alarm(60)\nprint('sitting', flush=True)\nwhile True: signal.pause()"


@pytest.fixture
def order(tmp_path, monkeypatch) -> Callable[..., Order]:
    """(*lines of Python) -> that as a job, of a launcher elsewhere, which has shown life once."""
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


class Running:
    """A worker at work, in a thread."""

    def __init__(self, given: Order) -> None:
        self.order, self.code = given, None
        self.thread = Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        self.code = Worker(self.order)()

    def printed(self, text: str) -> None:
        until(lambda: self.order.log.exists() and text in self.order.log.read_text())

    def ends(self, within: float = 20.0) -> int:
        self.thread.join(within)
        assert not self.thread.is_alive()
        return self.code


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("print('hello')", 0),
        ("import sys; print('hello'); sys.exit(3)", 3),
        ("import os; print('hello', flush=True); os.kill(os.getpid(), 9)", -9),
    ],
)
def test_the_exit_code_of_a_job(order, line, code):
    given = order(line)
    assert Worker(given)() == code
    assert given.log.read_text() == "hello\n"


def test_it_says_where_it_is(order, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    given = order()
    Worker(given)()
    assert read_json(start_file(given)) == {"host": socket.gethostname(), "gpus": "2,3"}


def test_a_job_stops_when_it_is_asked_to(order):
    running = Running(order(CHECKPOINT, FOREVER))
    running.printed("sitting")
    write_json(request_file(running.order), {"signal": signal.SIGTERM})
    assert running.ends() == 143


def test_a_job_that_does_not_stop_is_killed_when_that_is_asked(order):
    running = Running(order(STUBBORN, FOREVER))
    running.printed("sitting")
    write_json(request_file(running.order), {"signal": signal.SIGTERM})
    time.sleep(0.3)
    assert running.code is None
    write_json(request_file(running.order), {"signal": signal.SIGKILL})
    assert running.ends() == -9


def test_a_launcher_that_waits_no_more_has_its_job_stopped(order):
    running = Running(order(CHECKPOINT, FOREVER))
    running.printed("sitting")
    request_file(running.order).unlink()
    assert running.ends() == 143


def long_ago(given: Order) -> None:
    then = time.time() - worker.SILENT * worker.LOOK - 60
    os.utime(given.heartbeat_file, (then, then))


UNWANTED = {
    "asked to stop": lambda given: write_json(request_file(given), {"signal": signal.SIGTERM}),
    "no longer waited for": lambda given: request_file(given).unlink(),
    "launcher ended": lambda given: given.heartbeat_file.unlink(),
    "launcher died long ago": long_ago,
    "launcher died on this machine": lambda given: write_json(
        given.heartbeat_file, {"host": socket.gethostname(), "pid": dead(), "beats": 1}
    ),
}


def dead() -> int:
    """A process that is no more."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


@pytest.mark.parametrize("why", UNWANTED)
def test_what_nobody_waits_for_does_not_begin(order, why):
    given = order("print('hello')")
    UNWANTED[why](given)
    assert Worker(given)() == NOT_BEGUN
    assert not given.log.exists()


def test_a_job_stops_when_its_launcher_falls_silent(order, monkeypatch):
    monkeypatch.setattr(worker, "SILENT", 25)
    running = Running(order(CHECKPOINT, FOREVER))
    assert running.ends() == 143
    assert "no sign of life" in running.order.log.read_text()
    assert not request_file(running.order).exists()
    assert not start_file(running.order).exists()


def test_a_job_that_does_not_stop_is_killed_when_its_launcher_is_dead(order):
    given = order(STUBBORN, FOREVER, host=socket.gethostname(), pid=os.getpid())
    running = Running(given)
    running.printed("sitting")
    write_json(given.heartbeat_file, {"host": socket.gethostname(), "pid": dead(), "beats": 1})
    assert running.ends(within=3) == -9


def test_a_launcher_that_beats_is_alive(order, monkeypatch):
    """However long the job takes, and though a look now and then finds nothing."""
    monkeypatch.setattr(worker, "SILENT", 25)
    given = order("import time; time.sleep(2)")
    running = Running(given)
    beats = 1
    while running.code is None:
        beats += 1
        write_json(given.heartbeat_file, {"host": "elsewhere", "pid": 1, "beats": beats})
        time.sleep(0.1)
        given.heartbeat_file.write_text("")
        time.sleep(0.05)
    assert running.ends() == 0


def test_silence_is_over_before_another_launcher_may_have_the_job():
    from vaelab.sweeps.claims import BEAT, LOST

    assert 3 * BEAT < worker.SILENT * worker.LOOK
    assert worker.SILENT * worker.LOOK + worker.HASTE < 0.75 * LOST


def test_a_worker_that_cannot_start_a_job_says_so(order):
    given = order()
    broken = Order(["/nowhere/python"], given.log, given.heartbeat_file)
    assert Worker(broken)() == 1
    assert "/nowhere/python" in last_error(given.log, 0)


def test_a_job_has_the_environment_of_its_node_but_for_process_groups(order, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("OF_THE_NODE", "yes")
    monkeypatch.setenv("GIVEN", "by the node")
    given = order("import json, os; print(json.dumps(dict(os.environ)))")
    given.environment["GIVEN"] = "by the launcher"
    assert Process(given).wait() == 0
    found = json.loads(given.log.read_text())
    assert (found["OF_THE_NODE"], found["GIVEN"]) == ("yes", "by the launcher")
    assert "LOCAL_RANK" not in found


@pytest.mark.slow
def test_lightning_starts_the_processes_of_a_job_itself_under_slurm(order, monkeypatch):
    given = order(
        "from lightning.fabric.plugins.environments import SLURMEnvironment",
        "print(SLURMEnvironment.detect())",
    )
    given.environment.update(SLURM_NTASKS="1", SLURM_JOB_NAME="vae", SLURM_JOB_ID="7")
    assert Process(given).wait() == 0
    assert given.log.read_text().splitlines()[-1] == "False"


class Given:
    """What Ray or SLURM would have of a job: a result, or an exception, once it is there."""

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
def submitted(order, monkeypatch) -> tuple[RemoteHandle, Given, list[str]]:
    """A job as its launcher has it, what stands for the cluster, and what was given back."""
    monkeypatch.setattr(worker, "LOOK", 0.0)
    monkeypatch.setattr(remote, "PATIENCE", 0.05)
    given, back = Given(), []
    return RemoteHandle(order(), lambda: given, lambda: back.append("all")), given, back


def test_the_launcher_learns_where_a_job_is_and_what_came_of_it(submitted):
    handle, given, back = submitted
    assert (handle.poll(), handle.where) == (None, "")
    write_json(start_file(handle.order), {"host": "node7", "gpus": "0,1"})
    assert (handle.poll(), handle.where) == (None, "node7 GPU 0,1")
    given.outcome = -9
    assert handle.poll() == handle.poll() == -9
    assert back == ["all"]
    assert not request_file(handle.order).exists()
    assert not start_file(handle.order).exists()


def test_places_as_the_screen_has_them():
    here = socket.gethostname()
    assert remote.device_label({"host": here, "gpus": "3"}) == "GPU 3"
    assert remote.device_label({"host": here, "gpus": ""}) == "CPU"
    assert remote.device_label({"host": "node7", "gpus": None}) == "node7 CPU"


def test_a_job_that_is_lost_has_its_reason_in_its_log(submitted):
    handle, given, _ = submitted
    given.outcome = Lost("some\ndetail\nthe node died")
    assert handle.poll() == 1
    assert last_error(handle.order.log, 0) == "the node died"


def test_a_job_in_the_queue_is_taken_from_it(submitted):
    handle, given, _ = submitted
    handle.stop()
    handle.stop()
    assert given.cancelled == 1
    given.outcome = Lost("cancelled")
    assert handle.poll() == -signal.SIGTERM
    assert not handle.order.log.exists()


def test_a_job_that_runs_is_asked_and_then_given_up(submitted):
    handle, given, _ = submitted
    write_json(start_file(handle.order), {"host": "node7", "gpus": None})
    handle.stop()
    assert read_json(request_file(handle.order)) == {"signal": signal.SIGTERM}
    handle.kill()
    assert read_json(request_file(handle.order)) == {"signal": signal.SIGKILL}
    assert (handle.poll(), given.cancelled) == (None, 0)
    time.sleep(0.1)
    handle.kill()
    assert (handle.poll(), given.cancelled) == (-9, 1)


def job(accelerator: str = "auto", devices: int = 1) -> Job:
    return Job([], {}, Path("folder"), accelerator=accelerator, devices=devices)


@pytest.fixture
def cluster(monkeypatch):
    """(nodes as (processors, GPUs), **settings) -> the engine for a Ray cluster of these nodes."""
    pytest.importorskip("ray", reason="needs ray")
    from vaelab.sweeps.engines.ray import Ray, Share

    def make(*nodes: tuple[float, float], **settings) -> Ray:
        monkeypatch.setattr(Ray, "nodes", [Share(*map(float, node)) for node in nodes])
        given = {"address": "auto", "num_cpus": None, "num_gpus": None, "n_jobs": "auto"}
        given |= {"cpus_per_job": "auto", "gpus_per_job": "auto"}
        return Ray(**(given | settings))

    return make


FIT = [
    ([(8, 4)], {}, {}, (2, 1), 4),
    ([(8, 4)], {"gpus_per_job": 0.5}, {}, (1, 0.5), 8),
    ([(8, 4)], {}, {"devices": 2}, (4, 2), 2),
    ([(8, 4)], {}, {"devices": -1}, (8, 4), 1),
    ([(8, 4)], {}, {"accelerator": "cpu"}, (1, 0), 8),
    ([(8, 4)], {"gpus_per_job": 1}, {"accelerator": "cpu"}, (1, 0), 8),
    ([(8, 4)], {"cpus_per_job": 3}, {}, (3, 1), 2),
    ([(8, 4)], {"n_jobs": 50}, {}, (2, 1), 50),
    ([(8, 4)], {"gpus_per_job": 3}, {}, (6, 3), 1),
    ([(9, 3), (9, 3)], {}, {"devices": 2}, (6, 2), 2),  # and not three, over two nodes
    ([(8, 0), (4, 4)], {}, {}, (1, 1), 4),
    ([(2, 0)], {}, {"devices": 2}, (2, 0), 1),
    ([(2, 0)], {}, {"devices": 8}, (2, 0), 1),  # more processes than processors: alone
    ([(1, 3)], {"gpus_per_job": 0.3}, {}, (0.1, 0.3), 9),
]


@pytest.mark.parametrize(("nodes", "settings", "of_job", "share", "room"), FIT)
def test_what_a_job_takes_of_a_ray_cluster(cluster, nodes, settings, of_job, share, room):
    place = cluster(*nodes, **settings)
    assert place.share(job(**of_job)) == pytest.approx(share)
    assert place.count_startable(job(**of_job)) == room
    place.check_job(job(**of_job))
    assert place.count_startable() == room
    place.running[place.share(job(**of_job))] += 1
    assert place.count_startable(job(**of_job)) == room - 1


def test_jobs_of_two_sizes_share_a_ray_cluster(cluster):
    place = cluster((8, 4))
    place.running[place.share(job(devices=2))] += 1
    assert place.count_startable(job()) == 2
    place.running[place.share(job())] += 1
    assert place.count_startable(job(devices=2)) == 0
    assert place.count_startable(job()) == 1


def test_what_no_node_could_hold_is_refused(cluster):
    with pytest.raises(UserError, match=r"asks for 5 GPUs .* at most 4 and 8"):
        cluster((8, 4)).check_job(job(devices=5))
    cluster((8, 4), n_jobs=2).check_job(job(devices=5))  # a cluster that grows may have it later
    with pytest.raises(UserError, match=r"gpus_per_job=1\.5: .* whole number"):
        cluster((8, 4), gpus_per_job=1.5)


def test_a_sweep_that_is_done_needs_no_cluster(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs ray")
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("started"))
    done = job()
    done.state = "done"
    place = build_engine("vaelab.sweeps.engines.ray.Ray", settings("ray"))
    place.check_job(done)
    assert place.count_startable() == 1


def test_a_job_of_ray_has_the_environment_of_the_launcher(cluster, monkeypatch):
    """But for what its node is to say."""
    from vaelab.sweeps.engines.ray import Share, job_environment

    of_a_node = ("CUDA_VISIBLE_DEVICES", "SLURM_NTASKS", "RAY_JOB_ID", "TMPDIR")
    for name in (*of_a_node, "PYTHONPATH", "VAELAB_DATA", "CUDA_HOME"):
        monkeypatch.setenv(name, "given")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with_gpu = job_environment(job(devices=2), Share(8, 2))
    assert not with_gpu.keys() & set(of_a_node)
    assert all(with_gpu[name] == "given" for name in ("PYTHONPATH", "VAELAB_DATA", "CUDA_HOME"))
    assert with_gpu["OMP_NUM_THREADS"] == "4"
    without = job_environment(job(), Share(0.5, 0))
    assert (without["OMP_NUM_THREADS"], without["CUDA_VISIBLE_DEVICES"]) == ("1", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert job_environment(job(), Share(8, 0))["OMP_NUM_THREADS"] == "3"


def test_a_job_of_ray_takes_its_share_until_it_has_ended(cluster, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr("vaelab.sweeps.engines.ray.RemoteHandle", lambda *all_: given.append(all_))
    monkeypatch.setenv("VAELAB_DATA", "of the launcher")
    place = cluster((8, 4))
    place.start(job(), Order([], tmp_path, tmp_path, {"VAELAB_SWEPT": "of the job"}))
    assert place.count_startable(job()) == 3
    ((order, _, give_back),) = given
    assert order.environment["VAELAB_SWEPT"] == "of the job"
    assert order.environment["VAELAB_DATA"] == "of the launcher"
    give_back()
    assert place.count_startable(job()) == 4


def test_ray_leaves_signals_to_the_launcher(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs ray")
    from vaelab.sweeps.engines.ray import Ray

    mine = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ray, "init", lambda *_, **__: signal.signal(signal.SIGTERM, print))
    Ray(**settings("ray")).connect()
    assert signal.getsignal(signal.SIGTERM) == mine


def test_a_ray_cluster_that_cannot_be_reached_is_one_line(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs ray")
    from vaelab.sweeps.engines.ray import Ray

    def fail(*_, **__):
        raise ConnectionError("Failed to connect\nfor some reason")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(UserError) as error:
        Ray(**settings("ray", address="node:6379")).connect()
    assert str(error.value) == "hydra.launcher.address=node:6379: Failed to connect"


def settings(launcher: str, **changes) -> dict:
    """Those of an engine, as its file has them."""
    import yaml

    content = yaml.safe_load((ROOT / f"conf/hydra/launcher/{launcher}.yaml").read_text())
    for name in ("_target_", "engine", "grace"):
        del content[name]
    return content | changes


@pytest.mark.parametrize(("launcher", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_that_is_not_installed_says_how_it_would_be(monkeypatch, launcher, module):
    name = f"vaelab.sweeps.engines.{launcher}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as error:
        build_engine(f"{name}.{launcher.title()}", {})
    assert (
        str(error.value)
        == f'hydra/launcher={launcher} needs {module}: pip install -e ".[{launcher}]"'
    )


def slurm(**changes):
    pytest.importorskip("submitit", reason="needs submitit")
    return build_engine("vaelab.sweeps.engines.slurm.Slurm", settings("slurm", **changes))


def test_what_is_asked_of_slurm():
    place = slurm(cluster="local", partition="p", mem_gb=4, parameters={"slurm_account": "me"})
    found = place.requested_resources(job())
    assert (found["slurm_partition"], found["slurm_account"], found["mem_gb"]) == ("p", "me", 4)
    assert (found["cpus_per_task"], found["gpus_per_node"]) == (1, None)
    two = place.requested_resources(job("gpu", devices=2))
    assert (two["cpus_per_task"], two["gpus_per_node"]) == (2, 2)
    assert slurm(cluster="local", gpus_per_job=1).requested_resources(job())["gpus_per_node"] == 1
    assert (
        slurm(cluster="local", gpus_per_job=1).requested_resources(job("cpu"))["gpus_per_node"]
        is None
    )


def test_what_slurm_cannot_do_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="no srun on this machine"):
        slurm()
    place = slurm(cluster="local", parameters={"slurm_acount": "me"})
    with pytest.raises(UserError, match=r"hydra\.launcher\.parameters: Unknown argument 'acount'"):
        place.check_job(job())
    with pytest.raises(UserError, match="how many"):
        slurm(cluster="local").check_job(job("gpu", devices=-1))


def test_a_job_goes_on_after_its_time_limit(order, tmp_path):
    pytest.importorskip("submitit", reason="needs submitit")
    from submitit.core.utils import DelayedSubmission

    from vaelab.sweeps.engines.slurm import RequeuingWorker

    given = order(CHECKPOINT, FOREVER)
    running = RequeuingWorker(given)
    running.process = Process(given)
    write_json(start_file(given), {"host": "node7", "gpus": None})
    until(lambda: "sitting" in given.log.read_text())
    running.checkpoint().dump(tmp_path / "pickle")  # as submitit does before the limit
    assert running.process.poll() == 143
    assert not start_file(given).exists()  # it is in the queue again
    again = DelayedSubmission.load(tmp_path / "pickle").function
    assert (again.order, again.process) == (given, None)


SQUEUE = """#!/bin/sh
echo asked >> {folder}/squeue.asked
cat {folder}/squeue.says
test ! -e {folder}/squeue.error || {{ cat {folder}/squeue.error >&2; exit 1; }}
"""


@pytest.fixture
def queue(tmp_path, monkeypatch) -> Callable[..., None]:
    """(what squeue prints, its error) -> that it does."""
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "squeue", SQUEUE.format(folder=tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def says(text: str, error: str = "") -> None:
        (tmp_path / "squeue.says").write_text(text)
        (tmp_path / "squeue.error").unlink(missing_ok=True)
        if error:
            (tmp_path / "squeue.error").write_text(error)

    return says


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_a_job_that_left_no_result_is_lost_once_it_is_out_of_the_queue(
    tmp_path, queue, monkeypatch
):
    pytest.importorskip("submitit", reason="needs submitit")
    from vaelab.sweeps.engines import slurm

    class Submission:
        """A job as submitit has it, whose state nobody may ask for."""

        job_id = "7"

        paths = SimpleNamespace(result_pickle=tmp_path / "result")

        def stderr(self) -> str:
            return "slurmstepd: error: killed"

    job = slurm.SlurmTask(Submission(), accounts=False)
    queue("7 main vae R 0:17 node7")
    assert [job.result() for _ in range(100)] == [None] * 100
    assert not (tmp_path / "squeue.asked").exists()  # not before 20 seconds have gone by
    monkeypatch.setattr(slurm, "SELDOM", 0.0)
    assert job.result() is None
    queue("", "slurm_load_jobs error: Unable to contact slurm controller")
    assert [job.result() for _ in range(20)] == [None] * 20
    queue("", "slurm_load_jobs error: Invalid job id specified")
    assert [job.result() for _ in range(slurm.WAIT - 1)] == [None] * (slurm.WAIT - 1)
    with pytest.raises(Lost, match="killed\nSLURM: job 7 ended as one without a result"):
        job.result()
    assert (tmp_path / "squeue.asked").read_text().count("asked") == 1 + 20 + 1


TASK = """
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
    (folder / "begun").write_text(str(os.getpid()))
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
def sweep(request, tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """(*overrides, trouble={seed: what}) -> a sweep of a quick task, just started."""
    pytest.importorskip({"slurm": "submitit"}.get(request.param, request.param))
    (tmp_path / "task.py").write_text(TASK)
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
def test_a_sweep_with_failures_and_once_more(sweep, tmp_path):
    folder = tmp_path / "sweep"
    first = sweep("seed=range(1,6)", trouble={2: "raise", 3: "kill"})
    said = all_of(first, tmp_path)
    assert first.returncode == 1, said
    assert "failed  seed=2: RuntimeError: as asked  sweep/seed-2/job.log" in said
    assert "failed  seed=3: killed by SIGKILL  sweep/seed-3/job.log" in said
    assert "3 of 5 done, 2 failed" in said
    beginnings = sorted(line.split()[1] for line in said.splitlines() if line.startswith("started"))
    assert beginnings == [f"seed={seed}" for seed in range(1, 6)]  # each once
    failures = {path.parent.name: read_json(path) for path in folder.glob("*/failure.json")}
    assert {name: failure["exit"] for name, failure in failures.items()} == {
        "seed-2": 1,
        "seed-3": -9,
    }
    assert "Traceback" in (folder / "seed-2" / "job.log").read_text()
    assert no_more_than("started|done|failed|sweep|report|curves|best|go on", said)
    left = {path.name for path in folder.iterdir()}
    assert left - {".lock"} == {"sweep.json", *(f"seed-{seed}" for seed in range(1, 6))}

    second = sweep("seed=range(1,6)")
    said = all_of(second, tmp_path)
    assert second.returncode == 0, said
    assert "5 of 5 done" in said
    assert {line.split()[1] for line in said.splitlines() if line.startswith("done")} == {
        "seed=2",
        "seed=3",
    }
    assert not [*folder.glob("*/failure.json")]
    runs = [read_json(folder / f"seed-{seed}" / "results.json") for seed in range(1, 6)]
    if sweep.engine == "ray":  # each has had a GPU for itself
        assert {run["gpu"] for run in runs} == {"0", "1"}
        at_once = [[o["gpu"] for o in runs if o["begun"] <= r["begun"] < o["ended"]] for r in runs]
        assert all(len(gpus) == len(set(gpus)) for gpus in at_once)


def all_of(launcher: subprocess.Popen, folder: Path) -> str:
    """What it has said in the end."""
    launcher.wait(120)
    return (folder / "said").read_text()


def deaf_to_ctrl_c(pid: int) -> bool:
    """Whether SIGINT is blocked there, which in a terminal goes to all."""
    blocked = re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(blocked) and bool(int(blocked[1], 16) >> (signal.SIGINT - 1) & 1)


def no_more_than(beginnings: str, said: str) -> bool:
    """Whether all lines are the launcher's, and no one else has had something to say."""
    lines = [line for line in said.splitlines() if line]
    return all(re.match(rf"({beginnings}|\d+ of \d+ done)\b", line) for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_nothing_is_left_running_of_a_launcher_that_ends(sweep, tmp_path, number, code):
    launcher = sweep("seed=range(1,4)", trouble={1: "sit", 2: "sit"})
    folders = [tmp_path / "sweep" / f"seed-{seed}" for seed in (1, 2)]
    until(lambda: all((folder / "begun").exists() for folder in folders), 60)
    pids = [int((folder / "begun").read_text()) for folder in folders]
    assert all(deaf_to_ctrl_c(pid) for pid in pids)
    launcher.send_signal(number)
    said = all_of(launcher, tmp_path)
    assert launcher.returncode == code, said
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 45)
    if number == signal.SIGTERM:
        assert "2 stopped, 1 waiting" in said
        assert all((folder / "checkpoint").exists() for folder in folders)
        assert not (tmp_path / "sweep" / ".claims").exists()


WITHOUT_ACCOUNTS = {
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
"""A SLURM without a database, that runs everything at once and here."""


@pytest.mark.slow
def test_a_slurm_without_accounts_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="needs submitit")
    (tmp_path / "bin").mkdir()
    for name, lines in WITHOUT_ACCOUNTS.items():
        script(tmp_path / "bin" / name, f"#!/bin/sh\nHERE={tmp_path}\n{lines}")
    (tmp_path / "task.py").write_text(TASK)
    fixed = ["hydra/launcher=slurm", "hydra.sweep.dir=sweep"]
    done = subprocess.run(
        [sys.executable, "task.py", "-m", *fixed, "seed=1,2"],
        cwd=tmp_path,
        env=os.environ | {"TROUBLE": "{}", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    said = done.stdout.splitlines()
    assert said[0].startswith("SLURM keeps no accounts here")
    assert sum("accounts" in line for line in said) == 1
    assert "2 of 2 done" in done.stdout
    assert (tmp_path / "sacct.asked").read_text().splitlines() == ["asked"]
