"""Tests of sweeps on one machine: launchers, run folder lock, claims, local engine, screen.

Most tests of launchers run them as processes, with a script instead of a training. The other
parts are compared with exact values.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from io import StringIO
from pathlib import Path
from threading import Barrier, Thread
from types import SimpleNamespace

import pytest
from rich.console import Console
from support import programs
from support.waiting import wait_until

from vaelab.commands import run_folder
from vaelab.commands.run_folder import RunFolder
from vaelab.errors import UserError
from vaelab.sweeps import build_engine
from vaelab.sweeps import claims as claims_module
from vaelab.sweeps.claims import Claims
from vaelab.sweeps.engines.local import Local
from vaelab.sweeps.job import Job, last_error, signal_text
from vaelab.sweeps.screen import Screen, jobs_table
from vaelab.sweeps.sweep import SweepRunner

ROOT = Path(__file__).parents[2]
SHORT_RUN = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "trainer.max_epochs=1"]

TASK_SCRIPT = '''
"""A task that logs its GPUs and its events, and fails or stops itself as TROUBLE tells."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from vaelab.commands import cli


def stop(*_):
    note("stopped")
    sys.exit(143)


def note(word):
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES") or "none"
    line = f"{word} {folder.name} {gpus} {os.getpid()}\\n"
    ledger = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, line.encode())


@cli.task("train")
def main(cfg):
    global folder
    folder = Path(HydraConfig.get().runtime.output_dir)
    trouble = dict(pair.split("=") for pair in os.environ.get("TROUBLE", "").split())
    wanted = trouble.get(folder.name)
    if wanted != "SIGTERM":
        signal.signal(signal.SIGTERM, stop)
    note("began")
    if wanted == "raise":
        raise RuntimeError(f"trouble in {folder.name}")
    if wanted:
        os.kill(os.getpid(), getattr(signal, wanted))
    time.sleep(float(os.environ.get("SECONDS_EACH", "0")))
    (folder / "results.json").write_text(json.dumps({"val/elbo": -float(cfg.seed)}))
    note("ended")


main()
'''


class Workspace:
    """Working directory with the script `task.py`, from which tests start sweeps.

    Its jobs append their events (began, stopped, ended) to the file `ledger`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sweep = folder / "sweep"
        (folder / "task.py").write_text(TASK_SCRIPT)

    def start(self, *overrides: str, **environment: str) -> subprocess.Popen[str]:
        """Starts a launcher, with additional environment variables, and does not wait for it."""
        return subprocess.Popen(
            [sys.executable, "task.py", "-m", f"hydra.sweep.dir={self.sweep}", *overrides],
            cwd=self.folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *overrides: str, **environment: str) -> tuple[int, str]:
        """Runs a sweep to its end and returns the launcher's exit code and output."""
        process = self.start(*overrides, **environment)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def jobs_with(self, event: str) -> list[str]:
        """Returns the names of the jobs that logged an event, in order of time."""
        return [line.split()[1] for line in self.events() if line.startswith(event)]

    def events(self) -> list[str]:
        """Returns the lines of the ledger: event, job, GPUs and process id."""
        path = self.folder / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for_jobs(self, event: str, count: int) -> None:
        """Waits until at least `count` jobs have logged an event."""
        wait_until(lambda: len(self.jobs_with(event)) >= count)

    def running_pids(self) -> list[int]:
        """Returns the ids of all job processes that still run; a zombie does not count."""
        pids = {int(line.split()[3]) for line in self.events()}
        return [pid for pid in pids if state_of(pid) not in "Z-"]

    def wait_for_halted(self, count: int) -> None:
        """Waits until at least `count` jobs have stopped themselves by SIGSTOP."""
        wait_until(lambda: sum(state_of(pid) == "T" for pid in self.running_pids()) >= count)


def state_of(pid: int) -> str:
    """Returns the letter of a process's state, as `ps` prints it; - if there is none."""
    try:
        return re.search(r"State:\s*(\w)", Path(f"/proc/{pid}/status").read_text())[1]
    except OSError:
        return "-"


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


SIX_SEEDS = "seed=1,2,3,4,5,6"


@pytest.mark.slow
def test_sweep_lists_failures_and_reruns_only_failed_jobs(workspace):
    trouble = "seed-2=raise seed-4=SIGKILL seed-5=SIGTERM"
    code, output = workspace.run(SIX_SEEDS, TROUBLE=trouble)
    assert code == 1
    assert "3 of 6 done, 3 failed" in output
    logs = {seed: Path("sweep", f"seed-{seed}", "job.log") for seed in (2, 4, 5)}
    assert f"failed  seed=2: RuntimeError: trouble in seed-2  {logs[2]}" in output
    assert f"failed  seed=4: killed by SIGKILL  {logs[4]}" in output
    assert f"failed  seed=5: killed by SIGTERM  {logs[5]}" in output
    assert "Traceback" in (workspace.folder / logs[2]).read_text()
    assert json.loads((workspace.sweep / "seed-2" / "failure.json").read_text())["exit"] == 1
    assert Counter(workspace.jobs_with("ended")) == {"seed-1": 1, "seed-3": 1, "seed-6": 1}

    code, output = workspace.run(SIX_SEEDS)
    assert code == 0
    assert "6 of 6 done" in output
    assert sorted(workspace.jobs_with("began")[6:]) == ["seed-2", "seed-4", "seed-5"]
    assert not list(workspace.sweep.glob("*/failure.json"))
    assert not (workspace.sweep / ".claims").exists()

    code, _ = workspace.run(SIX_SEEDS)
    assert code == 0
    assert len(workspace.jobs_with("began")) == 9


@pytest.mark.slow
def test_sweep_with_more_values_runs_only_new_jobs(workspace):
    workspace.run("seed=1,2")
    workspace.run("seed=1,2,3")
    assert workspace.jobs_with("began").count("seed-1") == 1
    assert workspace.jobs_with("ended")[-1] == "seed-3"
    index = json.loads((workspace.sweep / "sweep.json").read_text())
    assert [job["overrides"] for job in index["jobs"]] == [{"seed": str(i)} for i in (1, 2, 3)]


@pytest.mark.slow
def test_rerun_true_runs_finished_jobs_again(workspace):
    workspace.run("seed=1,2")
    code, output = workspace.run("seed=1,2", "rerun=true")
    assert code == 0
    assert "2 of 2 done" in output
    assert len(workspace.jobs_with("ended")) == 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_stopped_launcher_stops_its_jobs_and_can_resume(workspace, number):
    launcher = workspace.start(SIX_SEEDS, "hydra.launcher.n_jobs=2", SECONDS_EACH="60")
    workspace.wait_for_jobs("began", 2)
    launcher.send_signal(number)
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + number
    assert sorted(workspace.jobs_with("stopped")) == ["seed-1", "seed-2"]
    assert len(workspace.jobs_with("began")) == 2
    assert "2 stopped, 4 waiting" in output
    assert not list(workspace.sweep.glob("*/failure.json"))
    assert not workspace.running_pids()
    assert workspace.run(SIX_SEEDS)[0] == 0
    assert sorted(workspace.jobs_with("ended")) == [f"seed-{i}" for i in range(1, 7)]


@pytest.mark.slow
def test_sweep_under_nohup_goes_on_after_sighup(workspace):
    script = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "task.py", "-m"]
    given = [f"hydra.sweep.dir={workspace.sweep}", "seed=1,2"]
    environment = os.environ | {"SECONDS_EACH": "1"}
    launcher = subprocess.Popen([*script, *given], cwd=workspace.folder, env=environment)
    workspace.wait_for_jobs("began", 2)
    launcher.send_signal(signal.SIGHUP)
    assert launcher.wait(60) == 0
    assert sorted(workspace.jobs_with("ended")) == ["seed-1", "seed-2"]


@pytest.mark.slow
def test_jobs_of_the_same_folder_are_refused_and_those_of_nested_ones_run(workspace):
    swept = ["seed=0,1", "model.latent_dim=2,8"]
    code, output = workspace.run(*swept, "hydra.sweep.subdir=seed-${seed}")
    assert code == 2
    said = "seed=0 model.latent_dim=2 and seed=0 model.latent_dim=8"
    assert f"gives the same folder, {workspace.sweep}/seed-0, to {said}" in output
    code, output = workspace.run(*swept, "hydra.sweep.subdir=${model.latent_dim}/${seed}")
    assert code == 0, output
    assert "4 of 4 done" in output
    assert re.search(r"best .*-?0\.000  \S*sweep/[28]/0\n", output)
    assert len({*workspace.sweep.glob("*/*/results.json")}) == 4


@pytest.mark.slow
def test_two_launchers_that_rerun_share_the_jobs(workspace):
    workspace.run("seed=1,2,3,4")
    jobs = ["seed=1,2,3,4", "hydra.launcher.n_jobs=1", "rerun=true"]
    launchers = [workspace.start(*jobs, SECONDS_EACH="2") for _ in range(2)]
    outputs = [launcher.communicate(timeout=120)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], outputs
    assert Counter(workspace.jobs_with("ended")) == {f"seed-{i}": 2 for i in range(1, 5)}


def test_second_signal_kills_running_jobs(workspace):
    launcher = workspace.start(
        "seed=1,2", SECONDS_EACH="60", TROUBLE="seed-1=SIGSTOP seed-2=SIGSTOP"
    )
    workspace.wait_for_halted(2)
    launcher.terminate()
    time.sleep(0.5)
    assert launcher.poll() is None
    launcher.terminate()
    assert launcher.wait(timeout=30) == 143
    assert not workspace.running_pids()


@pytest.mark.slow
def test_jobs_are_killed_after_grace_period(workspace):
    stuck = {"SECONDS_EACH": "60", "TROUBLE": "seed-1=SIGSTOP"}
    launcher = workspace.start("seed=1,2", "hydra.launcher.grace=1", **stuck)
    workspace.wait_for_jobs("began", 2)
    workspace.wait_for_halted(1)
    launcher.terminate()
    assert launcher.wait(timeout=30) == 143
    assert workspace.jobs_with("stopped") == ["seed-2"]
    assert not workspace.running_pids()


@pytest.mark.slow
def test_killed_launcher_leaves_no_processes_and_can_resume(workspace):
    launcher = workspace.start(SIX_SEEDS, "hydra.launcher.n_jobs=2", SECONDS_EACH="1.5")
    workspace.wait_for_jobs("ended", 2)
    workspace.wait_for_jobs("began", 4)
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not workspace.running_pids(), 10)
    done = workspace.jobs_with("ended")
    code, output = workspace.run(SIX_SEEDS)
    assert code == 0
    assert output.splitlines()[1].startswith(f"{len(done)} of 6 done")
    assert Counter(workspace.jobs_with("ended")) == {f"seed-{i}": 1 for i in range(1, 7)}


@pytest.mark.slow
def test_two_launchers_share_jobs_of_one_sweep(workspace):
    jobs = ["seed=range(1,13)", "hydra.launcher.n_jobs=2"]
    launchers = [workspace.start(*jobs, SECONDS_EACH="0.5") for _ in range(2)]
    outputs = [launcher.communicate(timeout=120)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0]
    assert Counter(workspace.jobs_with("ended")) == {f"seed-{i}": 1 for i in range(1, 13)}
    assert all("12 of 12 done" in output for output in outputs)
    assert all(output.count("started") >= 2 for output in outputs)


@pytest.mark.slow
def test_launcher_takes_over_jobs_of_dead_launcher(workspace):
    first = workspace.start("seed=1,2", SECONDS_EACH="60")
    workspace.wait_for_jobs("began", 2)
    second = workspace.start("seed=1,2")
    time.sleep(1.5)
    assert len(workspace.jobs_with("began")) == 2
    first.kill()
    first.wait()
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output
    assert sorted(workspace.jobs_with("ended")) == ["seed-1", "seed-2"]


@pytest.mark.slow
def test_launcher_does_not_retry_failure_of_another_launcher(workspace):
    seconds = {"SECONDS_EACH": "3", "TROUBLE": "seed-1=raise"}
    overrides = ["seed=1,2", "hydra.launcher.n_jobs=2"]
    launchers = [workspace.start(*overrides, **seconds) for _ in range(2)]
    outputs = [launcher.communicate(timeout=120)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [1, 1]
    assert all("trouble in seed-1" in output for output in outputs)
    assert workspace.jobs_with("began").count("seed-2") == 1
    assert workspace.jobs_with("began").count("seed-1") == 1


def test_hydra_basic_sweeper_runs_jobs_and_reports_failures(workspace):
    code, output = workspace.run("hydra/sweeper=basic", "seed=1,2", TROUBLE="seed-1=raise")
    assert code != 0
    assert workspace.jobs_with("ended") == ["seed-2"]
    assert "trouble in seed-1" in output


def gpus_by_job(workspace: Workspace) -> dict[str, str]:
    """Returns CUDA_VISIBLE_DEVICES of each job by its name; `none` if empty or unset."""
    lines = (workspace.folder / "ledger").read_text().splitlines()
    return {line.split()[1]: line.split()[2] for line in lines if line.startswith("began")}


@pytest.mark.slow
def test_jobs_per_gpu_fills_every_gpu(workspace):
    four = ["seed=1,2,3,4", "hydra.launcher.gpus=[5,7]", "hydra.launcher.jobs_per_gpu=2"]
    workspace.run(*four, SECONDS_EACH="3")
    assert Counter(gpus_by_job(workspace).values()) == {"5": 2, "7": 2}


def test_number_of_gpus_of_job_equals_trainer_devices(workspace):
    workspace.run("trainer.devices=1,2,-1", "hydra.launcher.gpus=[0,1,2]", SECONDS_EACH="0.2")
    found = {name: len(given.split(",")) for name, given in gpus_by_job(workspace).items()}
    assert found == {"devices-1": 1, "devices-2": 2, "devices--1": 3}


def test_cpu_jobs_get_no_gpu(workspace):
    workspace.run("trainer=cpu", "seed=1,2", "hydra.launcher.gpus=[0]", CUDA_VISIBLE_DEVICES="")
    assert set(gpus_by_job(workspace).values()) == {"none"}


@pytest.mark.slow
def test_sweep_with_any_invalid_setting_starts_no_job(tmp_path):
    def error_message(*overrides: str) -> str:
        """Runs a sweep that must fail before any job starts; returns its error message."""
        command = [
            sys.executable,
            "train.py",
            "-m",
            f"hydra.sweep.dir={tmp_path}/sweep",
            *SHORT_RUN,
        ]
        done = programs.run(
            [*command, *overrides], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 2, done.stderr
        assert not list(tmp_path.glob("sweep/*/job.log"))
        return done.stderr.strip()

    assert error_message("model=beta_vae", "model.beta=1,2,-1") == (
        "error: model.beta=-1: should be greater than or equal to 0"
    )
    assert error_message("model=vae,betavae") == (
        "error: model=betavae: there is no such model; did you mean beta_vae?"
    )
    assert "did you mean model.latent_dim?" in error_message("model.latentdim=1,2")
    assert "hydra.launcher.n_jobs=0" in error_message("seed=1,2", "hydra.launcher.n_jobs=0")
    assert "did you mean n_jobs?" in error_message("seed=1,2", "+hydra.launcher.njobs=2")
    message = error_message("trainer.devices=1,3", "hydra.launcher.gpus=[0,1]")
    assert message == "error: devices-3: asks for 3 GPUs, and there are 2"


@pytest.mark.slow
def test_devices_sweep_sets_world_sizes_and_refuses_changed_settings(tmp_path):
    folder = tmp_path / "sweep"
    given = [
        f"hydra.sweep.dir={folder}",
        f"paths.data={tmp_path}/data",
        *SHORT_RUN,
        "trainer=ddp_cpu",
    ]
    command = [sys.executable, "train.py", "-m", *given, "trainer.devices=1,2"]
    done = programs.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    results = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/results.json")}
    assert {name: r["devices"] for name, r in results.items()} == {"devices-1": 1, "devices-2": 2}
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"devices-1", "devices-2"}
    assert not list(folder.glob("*/progress.json"))

    other = [*command, "model.latent_dim=3"]
    done = programs.run(other, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "model.latent_dim=16, not 3" in done.stderr


def test_acquire_lock_fails_while_another_process_holds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "LEAVING", 0.1)
    (tmp_path / ".hydra").mkdir()
    holder = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire()"
    holder += "; print(flush=True); input()"
    command = [sys.executable, "-c", holder, str(tmp_path / ".hydra" / "lock")]
    run = RunFolder.__new__(RunFolder)
    run.folder, run.console = tmp_path, Console()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match="another process is working in this folder"):
            run.acquire_lock()
        other.kill()
    run.acquire_lock()
    run.acquire_lock()


# Claims


@pytest.fixture
def two_claims(tmp_path):
    """The `Claims` of two launchers on one sweep folder."""
    with Claims(tmp_path) as first, Claims(tmp_path) as second:
        yield first, second


def test_claim_has_one_holder_until_released(two_claims):
    first, second = two_claims
    assert first.take("a")
    assert not second.take("a")
    assert second.holders(["a", "b"]) == {"a": first.mark}
    assert first.holders(["a"]) == {}
    assert second.take("a.1")  # another job, whose name begins like the first one's
    first.release("a")
    assert second.holders(["a"]) == {}
    assert second.take("a")


def test_look_at_jobs_of_other_launchers_lists_claims_once(two_claims, tmp_path, monkeypatch):
    """On a network file system each listing of a folder with hundreds of claims takes its time."""
    other, mine = two_claims
    jobs = [Job(overrides=[], swept={}, folder=tmp_path / f"a.{i}") for i in range(30)]
    assert all(other.take(job.name) for job in jobs)
    runner = SweepRunner(SimpleNamespace(folder=tmp_path), None, grace=1.0)
    runner.claims, runner.elsewhere = mine, list(jobs)
    listed, beats = [], []
    for name in ("listdir", "scandir"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path, f=original: listed.append(path) or f(path))
    read = claims_module.read_json_or_nothing

    def note_beats(path):
        beats.extend([path] if path.suffix == ".alive" else [])
        return read(path)

    monkeypatch.setattr(claims_module, "read_json_or_nothing", note_beats)
    runner.update_elsewhere()
    assert [job.where for job in jobs] == [socket.gethostname()] * 30
    assert (len(listed), len(beats)) == (1, 1)


def test_claims_take_succeeds_for_one_of_eight_threads(tmp_path):
    Claims(tmp_path).folder.mkdir()
    for _ in range(20):
        rivals = [Claims(tmp_path) for _ in range(8)]
        for rival in rivals:
            rival.beat()
        barrier, won = Barrier(8), []

        def try_to_take(rival, barrier=barrier, won=won):
            barrier.wait()
            if rival.take("job"):
                won.append(rival)

        threads = [Thread(target=try_to_take, args=[rival]) for rival in rivals]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(won) == 1
        won[0].held.clear()
        for rival in rivals:  # an ended process id, so that the next eight can take over
            content = json.loads(rival.heartbeat_file.read_text()) | {"pid": 2**22 + 1}
            rival.heartbeat_file.write_text(json.dumps(content))
    assert won[0].latest_claim("job")[0] == 19


def test_claims_trust_a_process_id_only_in_its_own_namespace(tmp_path, monkeypatch):
    other, mine = Claims(tmp_path), Claims(tmp_path)
    other.folder.mkdir()
    monkeypatch.setattr(claims_module.os, "readlink", lambda path: "pid:[4026532999]")
    other.beat()
    other.take("job")
    content = json.loads(other.heartbeat_file.read_text())
    other.heartbeat_file.write_text(json.dumps(content | {"pid": 2**22 + 1}))
    assert mine.take("job")  # in the same namespace there is no such process
    mine.release("job")
    other.take("job")
    monkeypatch.undo()
    assert not mine.take("job")


def test_claims_end_where_another_launcher_has_deleted_their_folder(tmp_path, monkeypatch):
    claims = Claims(tmp_path)
    with claims:
        rmdir = Path.rmdir
        monkeypatch.setattr(Path, "rmdir", lambda path: rmdir(path) or rmdir(path))
    assert not claims.folder.exists()


def test_all_jobs_that_fit_are_started_before_any_is_looked_at(tmp_path, monkeypatch):
    """As trials of a search, which come one by one and are to share an allocation of SLURM."""
    started = []
    runner = SweepRunner(SimpleNamespace(folder=tmp_path), None, grace=1.0)
    runner.engine = SimpleNamespace(count_startable=lambda job=None: 3 - len(started))
    trials = iter([Job([], {}, tmp_path / name)] for name in "abcde")
    runner.source = SimpleNamespace(next_jobs=lambda free: next(trials))
    monkeypatch.setattr(runner, "add_jobs", runner.waiting.extend)
    monkeypatch.setattr(runner, "start_job", started.append)
    runner.start_jobs()
    assert [job.name for job in started] == ["a", "b", "c"]


def test_claims_take_over_remote_launcher_without_heartbeat(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(claims_module, "monotonic", lambda: now[0])
    other, mine = Claims(tmp_path), Claims(tmp_path)
    other.folder.mkdir()
    monkeypatch.setattr(claims_module.socket, "gethostname", lambda: "elsewhere")
    other.beat()
    other.take("job")
    monkeypatch.setattr(claims_module.socket, "gethostname", lambda: "here")
    for now[0] in (0.0, 59.0):
        assert not mine.take("job")
    monkeypatch.setattr(claims_module.socket, "gethostname", lambda: "elsewhere")
    other.beat()
    monkeypatch.setattr(claims_module.socket, "gethostname", lambda: "here")
    for now[0] in (61.0, 120.0):
        assert not mine.take("job")
    now[0] = 121.5
    assert mine.take("job")
    assert mine.latest_claim("job") == (1, mine.mark)


# Local engine, screen and error texts


def build_local(**settings) -> Local:
    """Builds the local engine; by default without GPUs."""
    given = {"n_jobs": "auto", "gpus": [], "jobs_per_gpu": 1, "gpus_per_job": "auto"}
    given |= {"start": "fresh"} | settings
    return build_engine("vaelab.sweeps.engines.local.Local", given)


def build_job(**settings) -> Job:
    return Job(overrides=[], swept={}, folder=Path("x"), **settings)


def test_best_run_lines_name_best_of_each_comparable_group(tmp_path):
    mass, density = ("MNIST", "binary pixels", "mass"), ("MNIST", "grey pixels", "density")
    runs = [("a", -99.0, mass), ("b", -98.0, mass), ("c", 1500.0, density), ("d", None, density)]
    jobs = []
    for name, value, key in runs:
        (tmp_path / name).mkdir()
        results = {} if value is None else {"val/elbo": value}
        (tmp_path / name / "results.json").write_text(json.dumps(results))
        state = "failed" if value is None else "done"
        jobs.append(Job([], {}, tmp_path / name, state=state, compared=key))
    screen = Screen(tmp_path)
    assert screen.best_run_lines(jobs[:2]) == [f"best       val/elbo -98.000  {tmp_path}/b"]
    assert screen.best_run_lines(jobs) == [
        f"best       val/elbo -98.000 of MNIST, binary pixels, mass  {tmp_path}/b",
        f"best       val/elbo 1500.000 of MNIST, grey pixels, density  {tmp_path}/c",
    ]
    assert screen.best_run_lines(jobs[3:]) == []


def test_local_count_startable_by_cores_jobs_and_devices(monkeypatch):
    monkeypatch.setattr("vaelab.sweeps.engines.local.available_cores", lambda: 16)
    many = build_local()
    many.expect(100)
    assert many.count_startable(build_job()) == 8
    assert many.count_startable(build_job(devices=2)) == 4
    few = build_local()
    few.expect(3)
    assert few.count_startable(build_job()) == 3
    assert build_local(n_jobs=5).count_startable(build_job()) == 5
    # a job of more processes than slots takes all slots
    assert build_local(n_jobs=2).count_startable(build_job(devices=8)) == 1


@pytest.mark.parametrize(("devices", "said"), [(0, "asks for 0 GPUs"), (3, "asks for 3 GPUs")])
def test_local_check_job_refuses_no_gpus_and_too_many(devices, said):
    engine = build_local(gpus=["0", "1"])
    engine.check_job(build_job(devices=2))
    with pytest.raises(UserError, match=said):
        engine.check_job(build_job(devices=devices))


def test_local_start_sets_omp_num_threads_unless_given(monkeypatch, tmp_path):
    monkeypatch.setattr("vaelab.sweeps.engines.local.available_cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    given = []
    monkeypatch.setattr(
        "vaelab.sweeps.engines.local.Process", lambda order, _: given.append(order.environment)
    )
    from vaelab.sweeps.process import Order

    def threads_per_process(engine: Local, **settings) -> str:
        """Starts a job and returns its OMP_NUM_THREADS."""
        engine.start(build_job(**settings), Order([], tmp_path, tmp_path))
        return given[-1]["OMP_NUM_THREADS"]

    assert threads_per_process(build_local(n_jobs=4)) == "4"
    assert threads_per_process(build_local(n_jobs=4), devices=2) == "4"
    assert threads_per_process(build_local(n_jobs=2), devices=4) == "4"
    assert threads_per_process(build_local(gpus=[0, 1], jobs_per_gpu=2)) == "4"
    assert threads_per_process(build_local(gpus=[0, 1, 2, 3]), devices=2) == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    build_local(n_jobs=4).start(build_job(), Order([], tmp_path, tmp_path))
    assert "OMP_NUM_THREADS" not in given[-1]


def test_local_engine_expects_jobs_like_those_it_has_checked(monkeypatch):
    monkeypatch.setattr("vaelab.sweeps.engines.local.available_cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    built = []
    monkeypatch.setattr(
        "vaelab.sweeps.engines.local.build_fork_server", lambda *given: built.append(given[2])
    )
    engine = build_local(gpus=["0"], start="auto")
    engine.check_job(build_job(accelerator="cpu"))
    engine.expect(8)
    assert built == [{"OMP_NUM_THREADS": "2"}]
    assert engine.count_startable() == 8
    engine.check_job(build_job(accelerator="gpu"))
    engine.expect(8)
    assert built[1:] == [{"OMP_NUM_THREADS": "16"}]
    assert engine.count_startable() == 1
    engine.free_gpus["0"] = 0
    assert engine.count_startable() == 0


def test_visible_gpus_reads_cuda_visible_devices(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, MIG-1")
    assert build_local(gpus="auto").gpus == ["3", "MIG-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert build_local(gpus="auto").gpus == []


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "killed by SIGKILL"), (137, "killed by SIGKILL"), (143, "stopped by SIGTERM"), (1, "")],
)
def test_signal_text_of_exit_code(code, words):
    assert signal_text(code) == words


TRACEBACK = 'Traceback (most recent call last):\n  File "x", line 1\n    y()\nValueError: bad\n'


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (f"a\n{TRACEBACK}", "ValueError: bad"),
        (
            f"{TRACEBACK}\nDuring handling of it:\n\n{TRACEBACK.replace('bad', 'worse')}",
            "ValueError: worse",
        ),
        (f"{TRACEBACK}[rank 1] goodbye\n", "ValueError: bad"),
        ("a\nerror: seed=-1: no\nb\n", "seed=-1: no"),
        ("a\nb\n\n", "b"),
        ("", ""),
    ],
    ids=[
        "exception",
        "chained exceptions",
        "text after traceback",
        "error line",
        "last line",
        "empty log",
    ],
)
def test_last_error_finds_error_line_in_log(tmp_path, log, line):
    path = tmp_path / "job.log"
    path.write_text("error: an earlier start\n")
    since = path.stat().st_size
    with path.open("a") as file:
        file.write(log)
    assert last_error(path, since) == line


def test_jobs_table_shows_running_and_failed_jobs_first(tmp_path):
    def create_job(name: str, state: str, **progress) -> Job:
        """Returns a job with a new folder, progress if given, and results if it is done."""
        folder = tmp_path / name
        folder.mkdir()
        if progress:
            (folder / "progress.json").write_text(json.dumps(progress))
        if state == "done":
            (folder / "results.json").write_text('{"val/elbo": -97.5}')
        return Job([], {"model.beta": name}, folder, state=state, where="GPU 1")

    now = {"epoch": 3, "epochs": 20, "val/elbo": -101.25, "seconds_left": 75.2}
    jobs = [
        create_job("1", "waiting"),
        create_job("2", "done"),
        create_job("4", "failed"),
        create_job("8", "running", **now),
    ]
    console = Console(width=100, record=True, file=StringIO())
    console.print(jobs_table(jobs, room=3))
    lines = console.export_text().splitlines()
    text = [line for line in lines if "beta=" in line]
    assert [line.split("│")[1].strip() for line in text] == ["beta=8", "beta=4", "beta=2"]
    assert [cell.strip() for cell in text[0].split("│")[2:7]] == [
        "running", "GPU 1", "3/20", "-101.25", "0:01:15",
    ]  # fmt: skip
    assert "-97.50" in text[2]
    assert any("and 1 more" in line for line in lines)
