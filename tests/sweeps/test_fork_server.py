"""Tests of jobs that are forked from a server: they are what fresh processes are, to the bits."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from support.waiting import wait_until

from vaelab.errors import UserError
from vaelab.sweeps import fork_server, worker
from vaelab.sweeps.engines import local
from vaelab.sweeps.fork_server import ForkServer, build_fork_server, can_fork
from vaelab.sweeps.process import Order, Process, start_fresh
from vaelab.training.json_files import read_json, write_json

ROOT = Path(__file__).parents[2]
TRAIN = [sys.executable, str(ROOT / "train.py")]
MODULE = [sys.executable, "-m", "vaelab", "train"]
TINY = [
    *("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"),
    *("trainer.max_epochs=2", "+trainer.limit_train_batches=3", "logger=csv"),
]
VARIABLES = {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "2"}
WITHOUT_IMPORTS = "import vaelab.sweeps.forked as forked; forked.IMPORTS = (); forked.serve([])"
HELP = [*MODULE, "--help"]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """A server that forks trainings."""
    made = ForkServer(TRAIN, VARIABLES, os.getcwd())
    yield made
    made.close()


@pytest.fixture
def make_order(tmp_path) -> Callable[..., Order]:
    """(name, *overrides) -> a tiny training in a folder of this name."""

    def make(name: str, *overrides: str, program: Sequence[str] = TRAIN) -> Order:
        folder = tmp_path / name
        words = [*program, *TINY, *overrides, "hydra.mode=RUN", f"hydra.run.dir={folder}"]
        return Order(words, folder / "job.log", tmp_path / "alive", dict(VARIABLES))

    return make


@pytest.fixture
def make_server(monkeypatch) -> Iterator[Callable[..., ForkServer]]:
    """(program, **variables) -> a server that runs it and forks `vaelab train --help`."""
    made = []

    def make(program: str = WITHOUT_IMPORTS, **variables: str) -> ForkServer:
        monkeypatch.setattr(fork_server, "PROGRAM", program)
        made.append(ForkServer(HELP, {"OMP_NUM_THREADS": "1"} | variables, os.getcwd()))
        return made[-1]

    yield make
    for one in made:
        one.close()


def help_order(folder: Path, **environment: str) -> Order:
    """Returns an order of `vaelab train --help`."""
    variables = {"OMP_NUM_THREADS": "1"} | environment
    return Order(HELP, folder / "job" / "job.log", folder / "alive", variables)


def is_fork(process: Process) -> bool:
    """True if a process was forked by a server."""
    return isinstance(process.child, fork_server.Fork)


@pytest.mark.slow
@pytest.mark.parametrize("program", [TRAIN, MODULE], ids=["script", "module"])
def test_fork_has_state_log_and_exit_code_of_fresh_process(
    server, make_order, tmp_path, monkeypatch, program
):
    monkeypatch.chdir(ROOT)
    found = {}
    for name, start in {"fresh": start_fresh, "fork": server.start}.items():
        given = make_order(
            "job",
            "+callbacks.probe._target_=support.process_probe.Probe",
            f"+callbacks.probe.file={tmp_path}/state.json",
            "+callbacks.probe.then=raise",
            program=program,
        )
        process = Process(given, start)
        assert process.wait() == 1
        assert is_fork(process) == (name == "fork")
        assert (tmp_path / "state.json.open").read_text() == "flushed by the end of Python"
        (tmp_path / "state.json.finalized").unlink()  # by the exit function of multiprocessing
        found[name] = (read_json(tmp_path / "state.json"), given.log.read_text())
        given.log.unlink()
    (fresh, fresh_log), (fork, fork_log) = found["fresh"], found["fork"]
    assert fork["is_parent"]
    assert fork.pop("name") == "job"
    assert fresh.pop("name").startswith("python")
    assert "RuntimeError: trouble" in fork_log
    assert {k: v for k, v in fork.items() if v != fresh[k]} == {}
    if program == TRAIN:  # Python's own start of a module has other frames in a traceback
        assert fork_log == fresh_log


@pytest.mark.slow
def test_fork_trains_to_the_bits_of_fresh_process(server, make_order, tmp_path):
    for name, start in {"fresh": start_fresh, "fork": server.start}.items():
        process = Process(make_order(name, "evaluate=[latents]"), start)
        assert process.wait() == 0, (tmp_path / name / "job.log").read_text()
        assert is_fork(process) == (name == "fork")
    fresh, fork = tmp_path / "fresh", tmp_path / "fork"
    for name in ("best", "last"):
        ours, theirs = (
            torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
            for folder in (fork, fresh)
        )
        assert ours["state_dict"].keys() == theirs["state_dict"].keys()
        for key, value in ours["state_dict"].items():
            assert torch.equal(value, theirs["state_dict"][key]), key
    assert timeless_rows(fork) == timeless_rows(fresh)
    for name in ("results", "evaluation"):
        ours, theirs = (timeless_content(folder, f"{name}.json") for folder in (fork, fresh))
        assert ours == theirs


def timeless_rows(folder: Path) -> list[dict[str, str]]:
    """Returns the rows of a run's metrics.csv, without speeds and times."""
    (path,) = folder.rglob("metrics.csv")
    rows = csv.DictReader(path.read_text().splitlines())
    return [{k: v for k, v in row.items() if not re.search("sec|speed|time", k)} for row in rows]


def timeless_content(folder: Path, name: str) -> dict:
    """Returns the content of a run's JSON file, without times and its folder's name."""
    text = json.dumps(read_json(folder / name)).replace(str(folder), "FOLDER")
    return without_times(json.loads(text))


def without_times(content: dict) -> dict:
    """Returns a dictionary without entries that tell times, at any depth."""
    return {
        key: without_times(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if not re.search("second|time|images_per", key)
    }


@pytest.mark.slow
@pytest.mark.parametrize(("then", "code"), [("exit", 3), ("SIGKILL", -9), ("SIGSEGV", -11)])
def test_fork_exit_code_and_log_of_early_end(server, make_order, then, code):
    given = make_order(
        "job",
        "+callbacks.probe._target_=support.process_probe.Probe",
        f"+callbacks.probe.then={then}",
    )
    process = Process(given, server.start)
    assert process.wait() == code
    assert is_fork(process)
    assert "probed" in given.log.read_text()


@pytest.mark.slow
def test_fork_stops_on_sigterm_after_checkpoint_and_goes_on(server, make_order):
    endless = make_order("job", "trainer.max_epochs=100000")
    process = Process(endless, server.start)
    last = endless.log.parent / "checkpoints" / "last.ckpt"
    wait_until(last.exists)
    process.stop()
    assert process.wait() == 143
    assert "stopped; go on with" in endless.log.read_text()
    steps = torch.load(last, weights_only=True)["global_step"]
    further = make_order("job", f"trainer.max_epochs={steps // 3 + 2}", "ckpt=last")
    assert Process(further, server.start).wait() == 0
    assert "Traceback" not in further.log.read_text()


@pytest.mark.slow
def test_forks_are_named_after_their_folders_and_run_at_once(server, make_order):
    orders = [make_order(f"beta-{i}", "trainer.max_epochs=100000") for i in range(2)]
    running = [Process(order, server.start) for order in orders]
    for order, process in zip(orders, running, strict=True):
        wait_until(lambda order=order: (order.log.parent / "checkpoints" / "last.ckpt").exists())
        comm = Path(f"/proc/{process.child.pid}/comm").read_text().strip()
        assert comm == order.log.parent.name
        process.kill()
        assert process.wait() == -9


@pytest.mark.slow
def test_ddp_in_a_fork_starts_its_other_process_fresh(server, make_order):
    given = make_order("job", "trainer=ddp_cpu", "trainer.devices=2", "trainer.max_epochs=1")
    assert Process(given, server.start).wait() == 0, given.log.read_text()
    assert read_json(given.log.parent / "results.json")["devices"] == 2


@pytest.mark.slow
def test_forks_of_killed_server_stop_and_are_reported(make_order):
    server = ForkServer(TRAIN, VARIABLES, os.getcwd())
    given = make_order("job", "trainer.max_epochs=100000")
    process = Process(given, server.start)
    wait_until((given.log.parent / "checkpoints" / "last.ckpt").exists)
    os.kill(server.process.pid, signal.SIGKILL)
    assert process.wait() == fork_server.LOST
    text = given.log.read_text()
    assert "stopped; go on with" in text
    assert "error: the server of forks ended by SIGKILL; the same command goes on" in text
    assert fork_server.has_ended(process.child.pid)
    later = Process(make_order("later", "trainer.max_epochs=1"), server.start)
    assert not is_fork(later)
    assert later.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_ended_launcher_leaves_no_server_and_no_fork(tmp_path, number):
    words = [
        *TRAIN,
        "-m",
        *TINY,
        "seed=1,2,3",
        "hydra.launcher.n_jobs=2",
        "hydra.launcher.start=fork",
        "trainer.max_epochs=100",
    ]
    words += [f"hydra.sweep.dir={tmp_path}/sweep"]
    with (tmp_path / "said").open("w") as said:
        launcher = subprocess.Popen(words, cwd=ROOT, stdout=said, stderr=said)
    last = [tmp_path / f"sweep/seed-{seed}/checkpoints/last.ckpt" for seed in (1, 2)]
    wait_until(lambda: all(path.exists() for path in last), 120)
    (server,) = children(launcher.pid)
    forks = children(server)
    assert len(forks) == 2
    launcher.send_signal(number)
    assert launcher.wait(60) == (-9 if number == signal.SIGKILL else 143)
    wait_until(lambda: all(fork_server.has_ended(pid) for pid in (server, *forks)), 30)
    logs = [(path.parents[1] / "job.log").read_text() for path in last]
    assert all("stopped; go on with" in log for log in logs)
    again = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout
    assert "3 of 3 done" in again.stdout


def children(pid: int) -> list[int]:
    """Returns the ids of the processes that a process has started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_server_imports_all_that_a_default_training_needs(tmp_path):
    """Otherwise each job would import it anew."""
    words = ["train.py", *TINY[:5], f"hydra.run.dir={tmp_path}/run"]
    lines = [
        "import sys",
        "from importlib import import_module",
        "from vaelab.sweeps import forked",
        "for name in forked.IMPORTS: import_module(name)",
        "before = set(sys.modules)",
        f"sys.argv = {words}",
        "from vaelab.commands.main import run",
        "run('train')",
        "print(*('new ' + name for name in set(sys.modules) - before), sep='\\n')",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    new = [line[4:] for line in done.stdout.splitlines() if line.startswith("new ")]
    slow = [name for name in new if re.match(r"(torch|torchvision|lightning|vaelab|PIL)\b", name)]
    assert len(new) < 100
    assert [name for name in slow if not name.startswith("torch.utils.serialization")] == []


SERVERS_THAT_CANNOT_FORK = {
    "has 2 threads": (
        "import threading, time; "
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start(); "
    ),
    "has opened /dev/zero": (
        "import vaelab.sweeps.forked as forked; "
        "forked.GPUS = ('/dev/zero',); file = open('/dev/zero'); "
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("reason", SERVERS_THAT_CANNOT_FORK)
def test_server_with_threads_or_a_gpu_does_not_fork(make_server, tmp_path, reason):
    server = make_server(SERVERS_THAT_CANNOT_FORK[reason] + WITHOUT_IMPORTS)
    process = Process(help_order(tmp_path), server.start)
    assert process.wait() == 0
    assert not is_fork(process)
    first, *others = (tmp_path / "job" / "job.log").read_text().splitlines()
    assert first == f"started as a fresh process, not as a fork: the server of forks {reason}"
    assert others


@pytest.mark.slow
def test_job_does_not_get_variables_of_the_job_that_its_server_was_started_for(
    make_server, tmp_path
):
    server = make_server(CUBLAS_WORKSPACE_CONFIG=":4096:8")
    order = help_order(tmp_path)
    assert "CUBLAS_WORKSPACE_CONFIG" not in server.variables(order)
    process = Process(order, server.start)
    assert process.wait() == 0
    assert not is_fork(process)
    assert "CUBLAS_WORKSPACE_CONFIG" in (tmp_path / "job" / "job.log").read_text().splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise ImportError('no torch here')", "with exit code 1: ImportError: no torch here"),
        ("import os; os.kill(os.getpid(), 9)", "by SIGKILL"),
    ],
    ids=["exception", "SIGKILL"],
)
def test_job_starts_fresh_if_server_fails(make_server, tmp_path, program, reason):
    process = Process(help_order(tmp_path), make_server(program).start)
    assert process.wait() == 0
    assert not is_fork(process)
    first, *_ = (tmp_path / "job" / "job.log").read_text().splitlines()
    assert first == f"started as a fresh process, not as a fork: the server of forks ended {reason}"


@pytest.mark.slow
def test_job_starts_fresh_if_server_cannot_start(make_server, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    server = make_server()
    assert not server.is_starting()
    process = Process(help_order(tmp_path), server.start)
    assert process.wait() == 0
    assert not is_fork(process)
    log = (tmp_path / "job" / "job.log").read_text()
    assert "the server of forks did not start: [Errno 2]" in log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "forked"),
    [
        ({}, True),
        ({"CUDA_VISIBLE_DEVICES": "3", "VAELAB_SWEPT": "seed"}, True),
        ({"OPENBLAS_NUM_THREADS": "3"}, True),
        ({"OMP_NUM_THREADS": "3"}, False),
        ({"OMP_NUM_THREADS": "many"}, False),
        ({"PYTHONPATH": "elsewhere"}, False),
        ({"MKL_NUM_THREADS": "1"}, False),
        ({"TZ": "Asia/Tokyo"}, False),
        ({"MPLBACKEND": "agg"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}, False),
    ],
    ids=lambda value: " ".join(value) or "none" if isinstance(value, dict) else "",
)
def test_variables_that_take_effect_early_are_not_forked(make_server, tmp_path, variables, forked):
    process = Process(help_order(tmp_path, **variables), make_server().start)
    assert process.wait() == 0
    assert is_fork(process) == forked
    noted = (tmp_path / "job" / "job.log").read_text().startswith("started as a fresh process")
    assert noted == (not forked)


@pytest.mark.slow
def test_variables_that_launcher_has_set_since_are_no_obstacle(make_server, tmp_path, monkeypatch):
    """As scikit-learn sets KMP_INIT_AT_FORK when the launcher imports it."""
    server = make_server()
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # as Ray sets it for each job
    given = help_order(tmp_path)
    assert server.variables(given)["CUDA_VISIBLE_DEVICES"] == "7"
    process = Process(given, server.start)
    assert process.wait() == 0
    assert is_fork(process)


@pytest.mark.slow
def test_variable_of_hydra_that_is_read_at_imports_starts_fresh(tmp_path):
    words = [*TRAIN, "-m", *TINY, "trainer.max_epochs=1", "seed=1", "hydra.launcher.start=fork"]
    words += ["+hydra.job.env_set.MKL_NUM_THREADS=1", f"hydra.sweep.dir={tmp_path}/sweep"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (log,) = tmp_path.glob("sweep/*/job.log")
    assert log.read_text().startswith(
        "started as a fresh process, not as a fork: MKL_NUM_THREADS=1 may take effect before a fork"
    )


@pytest.mark.slow
def test_server_outlives_signals_and_jobs_get_theirs_in_time(make_server, tmp_path):
    """A container or SLURM sends them to all processes; a job may get one before it is one."""
    slow = "import os, time; lead = os.setsid; os.setsid = lambda: (time.sleep(1), lead()); "
    server = make_server(slow + WITHOUT_IMPORTS)
    wait_until(lambda: not server.is_starting())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        os.kill(server.process.pid, number)
    for end, code in (("stop", -signal.SIGTERM), ("kill", -signal.SIGKILL)):
        process = Process(help_order(tmp_path), server.start)
        assert is_fork(process)
        getattr(process, end)()
        assert process.wait() == code
    assert not server.failure


@pytest.mark.parametrize(
    ("words", "possible"),
    [
        ([*TRAIN, "seed=1"], True),
        ([sys.executable, "-m", "vaelab", "train"], True),
        ([sys.executable, "-m", "vaelab", "evaluate"], False),
        ([sys.executable, "/elsewhere/train.py"], False),
        ([sys.executable, str(ROOT / "evaluate.py")], False),
        (["/usr/bin/python9", str(ROOT / "train.py")], False),
        ([sys.executable, "-c", "pass"], False),
        ([sys.executable], False),
    ],
)
def test_can_fork_only_vaelabs_own_training(words, possible):
    assert can_fork(words) == possible


def test_build_fork_server_needs_linux_if_asked(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match=r"hydra\.launcher\.start=fork: needs Linux"):
        build_fork_server("fork", TRAIN, {}, "")
    assert build_fork_server("auto", TRAIN, {}, "") is None
    assert build_fork_server("fresh", TRAIN, {}, "") is None


class StubServer:
    """A server of which the test says when it is ready."""

    starting, closed = True, False

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def is_starting(self) -> bool:
        return self.starting

    def close(self) -> None:
        self.closed = True


def test_local_engine_waits_for_its_server_and_replaces_it_by_threads(monkeypatch):
    monkeypatch.setattr(local, "available_cores", lambda: 4)
    monkeypatch.setattr(local, "build_fork_server", lambda *given: StubServer(given[2]))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    settings = {"n_jobs": "auto", "gpus": [], "jobs_per_gpu": 1, "gpus_per_job": "auto"}
    engine = local.Local(**settings, start="auto")
    engine.expect(0)
    assert engine.fork_server is None
    engine.prepare(100)
    first = engine.fork_server
    assert first.environment == {"OMP_NUM_THREADS": "1"}
    engine.expect(100)
    assert engine.fork_server is first
    engine.expect(2)
    assert first.closed
    assert engine.fork_server.environment == {"OMP_NUM_THREADS": "2"}
    assert engine.count_startable() == 0
    engine.fork_server.starting = False
    assert engine.count_startable() == 2
    engine.close()
    assert engine.fork_server.closed


def test_kept_server_serves_orders_alike_and_is_replaced_for_others(monkeypatch, tmp_path):
    """As in a process of Ray, which runs one job after the other."""
    monkeypatch.setattr(fork_server, "kept", {})
    monkeypatch.setattr(fork_server, "build_fork_server", lambda *given: StubServer(given[2]))

    def order(threads: str, *words: str) -> Order:
        return Order([*TRAIN, *words], tmp_path, tmp_path, {"OMP_NUM_THREADS": threads})

    first = fork_server.kept_server("auto", order("1", "seed=1"))
    assert fork_server.kept_server("auto", order("1", "seed=2")) is first
    assert not first.closed
    second = fork_server.kept_server("auto", order("2", "seed=2"))
    assert second.environment == {"OMP_NUM_THREADS": "2"}
    assert first.closed
    assert list(fork_server.kept.values()) == [second]


@pytest.mark.slow
def test_ray_forks_jobs_on_its_nodes(tmp_path):
    pytest.importorskip("ray", reason="needs ray")
    words = [*TRAIN, "-m", *TINY, "trainer.max_epochs=1", "seed=1,2", "hydra/launcher=ray"]
    words += ["hydra.launcher.num_cpus=1", "hydra.launcher.start=fork"]
    words += ["+callbacks.probe._target_=support.process_probe.Probe"]
    words += [f"+callbacks.probe.file={tmp_path}/${{seed}}", f"hydra.sweep.dir={tmp_path}/sweep"]
    environment = os.environ | {"PYTHONPATH": VARIABLES["PYTHONPATH"], "RAY_worker_niceness": "0"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [read_json(tmp_path / seed)["name"] for seed in ("1", "2")]
    assert names == ["seed-1", "seed-2"]


@pytest.mark.slow
def test_worker_on_a_node_forks_its_job(make_server, tmp_path):
    given = help_order(tmp_path)
    write_json(given.heartbeat_file, {"host": "elsewhere", "pid": 1, "beats": 1})
    write_json(worker.request_file(given), {"signal": 0})
    node = worker.Worker(given, make_server().start)
    assert node() == 0
    assert is_fork(node.process)
    assert "model" in given.log.read_text()
