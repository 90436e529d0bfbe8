"""Sweeps: who runs what, what is left of a failure, and how one goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from threading import Barrier, Thread

import pytest
from rich.console import Console

from vaelab.commands import run_folder
from vaelab.commands.run_folder import RunFolder
from vaelab.errors import UserError
from vaelab.sweeps import build_engine
from vaelab.sweeps import claims as claims_module
from vaelab.sweeps.claims import Claims
from vaelab.sweeps.engines.local import Local
from vaelab.sweeps.job import Job, last_error, signal_text
from vaelab.sweeps.screen import Screen, jobs_table

ROOT = Path(__file__).parents[2]
TINY = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "trainer.max_epochs=1"]

TASK = '''
"""A task that says what it was given, and does what TROUBLE says to its folder."""

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
    note("began")
    wanted = trouble.get(folder.name)
    if wanted == "raise":
        raise RuntimeError(f"trouble in {folder.name}")
    if wanted:
        os.kill(os.getpid(), getattr(signal, wanted))
    signal.signal(signal.SIGTERM, stop)
    time.sleep(float(os.environ.get("SECONDS_EACH", "0")))
    (folder / "results.json").write_text(json.dumps({"val/elbo": -float(cfg.seed)}))
    note("ended")


main()
'''


class Place:
    """A folder with the task in it, and what its jobs said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sweep = folder / "sweep"
        (folder / "task.py").write_text(TASK)

    def start(self, *overrides: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "task.py", "-m", f"hydra.sweep.dir={self.sweep}", *overrides],
            cwd=self.folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *overrides: str, **environment: str) -> tuple[int, str]:
        process = self.start(*overrides, **environment)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def notes(self, word: str) -> list[str]:
        """The folders, in order, of the jobs that noted this word."""
        path = self.folder / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[1] for line in lines if line.startswith(word)]

    def wait(self, word: str, count: int) -> None:
        until(lambda: len(self.notes(word)) >= count)

    def running(self) -> list[int]:
        """Processes of jobs that are still there."""
        pids = {int(line.split()[3]) for line in (self.folder / "ledger").read_text().splitlines()}
        return [pid for pid in pids if Path(f"/proc/{pid}").exists() and not is_zombie(pid)]


def is_zombie(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


SIX = "seed=1,2,3,4,5,6"


@pytest.mark.slow
def test_failures_are_listed_and_alone_run_again(place):
    trouble = "seed-2=raise seed-4=SIGKILL seed-5=SIGTERM"
    code, said = place.run(SIX, TROUBLE=trouble)
    assert code == 1
    assert "3 of 6 done, 3 failed" in said
    logs = {seed: Path("sweep", f"seed-{seed}", "job.log") for seed in (2, 4, 5)}
    assert f"failed  seed=2: RuntimeError: trouble in seed-2  {logs[2]}" in said
    assert f"failed  seed=4: killed by SIGKILL  {logs[4]}" in said
    assert f"failed  seed=5: killed by SIGTERM  {logs[5]}" in said
    assert "Traceback" in (place.folder / logs[2]).read_text()
    assert json.loads((place.sweep / "seed-2" / "failure.json").read_text())["exit"] == 1
    assert Counter(place.notes("ended")) == {"seed-1": 1, "seed-3": 1, "seed-6": 1}

    code, said = place.run(SIX)
    assert code == 0
    assert "6 of 6 done" in said
    assert sorted(place.notes("began")[6:]) == ["seed-2", "seed-4", "seed-5"]
    assert not list(place.sweep.glob("*/failure.json"))
    assert not (place.sweep / ".claims").exists()

    code, _ = place.run(SIX)
    assert code == 0
    assert len(place.notes("began")) == 9


@pytest.mark.slow
def test_more_values_in_the_same_folder_add_to_the_sweep(place):
    place.run("seed=1,2")
    place.run("seed=1,2,3")
    assert place.notes("began").count("seed-1") == 1
    assert place.notes("ended")[-1] == "seed-3"
    index = json.loads((place.sweep / "sweep.json").read_text())
    assert [job["overrides"] for job in index["jobs"]] == [{"seed": str(i)} for i in (1, 2, 3)]


@pytest.mark.slow
def test_rerun_runs_all_of_them_again(place):
    place.run("seed=1,2")
    code, said = place.run("seed=1,2", "rerun=true")
    assert code == 0
    assert "2 of 2 done" in said
    assert len(place.notes("ended")) == 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_launcher_stops_its_jobs_and_goes_on_later(place, number):
    launcher = place.start(SIX, "hydra.launcher.n_jobs=2", SECONDS_EACH="60")
    place.wait("began", 2)
    time.sleep(0.3)  # until they can be stopped
    launcher.send_signal(number)
    said, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + number
    assert sorted(place.notes("stopped")) == ["seed-1", "seed-2"]
    assert len(place.notes("began")) == 2
    assert "2 stopped, 4 waiting" in said
    assert not list(place.sweep.glob("*/failure.json"))
    assert not place.running()
    assert place.run(SIX)[0] == 0
    assert sorted(place.notes("ended")) == [f"seed-{i}" for i in range(1, 7)]


def test_a_second_signal_kills(place):
    launcher = place.start("seed=1,2", SECONDS_EACH="60", TROUBLE="seed-1=SIGSTOP seed-2=SIGSTOP")
    place.wait("began", 2)
    time.sleep(0.3)
    launcher.terminate()
    time.sleep(0.5)
    assert launcher.poll() is None
    launcher.terminate()
    assert launcher.wait(timeout=30) == 143
    assert not place.running()


@pytest.mark.slow
def test_jobs_that_do_not_stop_are_killed_after_a_grace(place):
    stuck = {"SECONDS_EACH": "60", "TROUBLE": "seed-1=SIGSTOP"}
    launcher = place.start("seed=1,2", "hydra.launcher.grace=1", **stuck)
    place.wait("began", 2)
    time.sleep(0.3)
    launcher.terminate()
    assert launcher.wait(timeout=30) == 143
    assert place.notes("stopped") == ["seed-2"]
    assert not place.running()


@pytest.mark.slow
def test_a_killed_launcher_leaves_nothing_and_loses_nothing(place):
    launcher = place.start(SIX, "hydra.launcher.n_jobs=2", SECONDS_EACH="1.5")
    place.wait("ended", 2)
    place.wait("began", 4)
    time.sleep(0.3)
    launcher.kill()
    launcher.wait()
    until(lambda: not place.running(), 10)
    done = place.notes("ended")
    code, said = place.run(SIX)
    assert code == 0
    assert said.splitlines()[1].startswith(f"{len(done)} of 6 done")
    assert Counter(place.notes("ended")) == {f"seed-{i}": 1 for i in range(1, 7)}


@pytest.mark.slow
def test_two_launchers_share_the_work(place):
    jobs = ["seed=range(1,13)", "hydra.launcher.n_jobs=2"]
    launchers = [place.start(*jobs, SECONDS_EACH="0.5") for _ in range(2)]
    said = [launcher.communicate(timeout=120)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0]
    assert Counter(place.notes("ended")) == {f"seed-{i}": 1 for i in range(1, 13)}
    assert all("12 of 12 done" in words for words in said)
    assert all(words.count("started") >= 2 for words in said)


@pytest.mark.slow
def test_what_a_dead_launcher_had_is_taken_over_by_another(place):
    first = place.start("seed=1,2", SECONDS_EACH="60")
    place.wait("began", 2)
    second = place.start("seed=1,2")
    time.sleep(1.5)
    assert len(place.notes("began")) == 2
    first.kill()
    first.wait()
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert sorted(place.notes("ended")) == ["seed-1", "seed-2"]


@pytest.mark.slow
def test_a_failure_elsewhere_is_not_tried_again_here(place):
    seconds = {"SECONDS_EACH": "3", "TROUBLE": "seed-1=raise"}
    overrides = ["seed=1,2", "hydra.launcher.n_jobs=2"]
    launchers = [place.start(*overrides, **seconds) for _ in range(2)]
    said = [launcher.communicate(timeout=120)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [1, 1]
    assert all("trouble in seed-1" in words for words in said)
    assert place.notes("began").count("seed-2") == 1
    assert place.notes("began").count("seed-1") == 1


def test_hydras_own_sweeper_gets_the_values_and_the_failures(place):
    code, said = place.run("hydra/sweeper=basic", "seed=1,2", TROUBLE="seed-1=raise")
    assert code != 0
    assert place.notes("ended") == ["seed-2"]
    assert "trouble in seed-1" in said


def gpus(place: Place) -> dict[str, str]:
    lines = (place.folder / "ledger").read_text().splitlines()
    return {line.split()[1]: line.split()[2] for line in lines if line.startswith("began")}


@pytest.mark.slow
def test_every_gpu_has_its_jobs(place):
    four = ["seed=1,2,3,4", "hydra.launcher.gpus=[5,7]", "hydra.launcher.jobs_per_gpu=2"]
    place.run(*four, SECONDS_EACH="3")
    assert Counter(gpus(place).values()) == {"5": 2, "7": 2}


def test_a_job_gets_as_many_gpus_as_it_has_devices(place):
    place.run("trainer.devices=1,2,-1", "hydra.launcher.gpus=[0,1,2]", SECONDS_EACH="0.2")
    found = {name: len(given.split(",")) for name, given in gpus(place).items()}
    assert found == {"devices-1": 1, "devices-2": 2, "devices--1": 3}


def test_a_job_for_the_processor_gets_no_gpu(place):
    place.run("trainer=cpu", "seed=1,2", "hydra.launcher.gpus=[0]", CUDA_VISIBLE_DEVICES="")
    assert set(gpus(place).values()) == {"none"}


@pytest.mark.slow
def test_nothing_starts_unless_every_configuration_is_right(tmp_path):
    def refused(*overrides: str) -> str:
        command = [sys.executable, "train.py", "-m", f"hydra.sweep.dir={tmp_path}/sweep", *TINY]
        done = subprocess.run(
            [*command, *overrides], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 2, done.stderr
        assert not list(tmp_path.glob("sweep/*/job.log"))
        return done.stderr.strip()

    assert refused("model=beta_vae", "model.beta=1,2,-1") == (
        "error: model.beta=-1: should be greater than or equal to 0"
    )
    assert "did you mean model.latent_dim?" in refused("model.latentdim=1,2")
    assert "hydra.launcher.n_jobs=0" in refused("seed=1,2", "hydra.launcher.n_jobs=0")
    assert "did you mean n_jobs?" in refused("seed=1,2", "+hydra.launcher.njobs=2")
    asked = refused("trainer.devices=1,3", "hydra.launcher.gpus=[0,1]")
    assert asked == "error: devices-3: asks for 3 GPUs, and there are 2"


@pytest.mark.slow
def test_real_jobs_have_their_world_sizes_and_can_be_changed_by_none(tmp_path):
    folder = tmp_path / "sweep"
    given = [f"hydra.sweep.dir={folder}", f"paths.data={tmp_path}/data", *TINY, "trainer=ddp_cpu"]
    command = [sys.executable, "train.py", "-m", *given, "trainer.devices=1,2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    results = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/results.json")}
    assert {name: r["devices"] for name, r in results.items()} == {"devices-1": 1, "devices-2": 2}
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"devices-1", "devices-2"}
    assert not list(folder.glob("*/progress.json"))

    other = [*command, "model.latent_dim=3"]
    done = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "model.latent_dim=16, not 3" in done.stderr


def test_only_one_process_works_in_a_run_folder(tmp_path, monkeypatch):
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
def rivals(tmp_path):
    with Claims(tmp_path) as first, Claims(tmp_path) as second:
        yield first, second


def test_a_claim_has_one_holder(rivals):
    first, second = rivals
    assert first.take("a")
    assert not second.take("a")
    assert second.holder("a") == first.mark
    assert first.holder("a") is None
    assert second.take("a.1")  # another job
    first.release("a")
    assert second.holder("a") is None
    assert second.take("a")


def test_of_many_only_one_succeeds(tmp_path):
    Claims(tmp_path).folder.mkdir()
    for _ in range(20):
        rivals = [Claims(tmp_path) for _ in range(8)]
        for rival in rivals:
            rival.beat()
        barrier, won = Barrier(8), []

        def race(rival, barrier=barrier, won=won):
            barrier.wait()
            if rival.take("job"):
                won.append(rival)

        threads = [Thread(target=race, args=[rival]) for rival in rivals]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(won) == 1
        won[0].held.clear()
        for rival in rivals:  # all die, and the next ones take over
            content = json.loads(rival.heartbeat_file.read_text()) | {"pid": 2**22 + 1}
            rival.heartbeat_file.write_text(json.dumps(content))
    assert won[0].latest_claim("job")[0] == 19


def test_a_silent_launcher_on_another_machine_is_given_up(tmp_path, monkeypatch):
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


# Engines and words


def local(**settings) -> Local:
    given = {"n_jobs": "auto", "gpus": [], "jobs_per_gpu": 1, "gpus_per_job": "auto"} | settings
    return build_engine("vaelab.sweeps.engines.local.Local", given)


def job(**settings) -> Job:
    return Job(overrides=[], swept={}, folder=Path("x"), **settings)


def test_the_best_is_one_of_those_that_can_be_compared(tmp_path):
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


def test_slots_of_the_processor(monkeypatch):
    monkeypatch.setattr("vaelab.sweeps.engines.local.available_cores", lambda: 16)
    many = local()
    many.expect(100)
    assert many.count_startable(job()) == 8
    assert many.count_startable(job(devices=2)) == 4
    few = local()
    few.expect(3)
    assert few.count_startable(job()) == 3
    assert local(n_jobs=5).count_startable(job()) == 5
    assert local(n_jobs=2).count_startable(job(devices=8)) == 1  # more processes than slots: alone


def test_threads_are_shared_out(monkeypatch, tmp_path):
    monkeypatch.setattr("vaelab.sweeps.engines.local.available_cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    given = []
    monkeypatch.setattr(
        "vaelab.sweeps.engines.local.Process", lambda order: given.append(order.environment)
    )
    from vaelab.sweeps.process import Order

    def threads(place: Local, **settings) -> str:
        place.start(job(**settings), Order([], tmp_path, tmp_path))
        return given[-1]["OMP_NUM_THREADS"]

    assert threads(local(n_jobs=4)) == "4"
    assert threads(local(n_jobs=4), devices=2) == "4"
    assert threads(local(n_jobs=2), devices=4) == "4"
    assert threads(local(gpus=[0, 1], jobs_per_gpu=2)) == "4"
    assert threads(local(gpus=[0, 1, 2, 3]), devices=2) == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    local(n_jobs=4).start(job(), Order([], tmp_path, tmp_path))
    assert "OMP_NUM_THREADS" not in given[-1]


def test_visible_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, MIG-1")
    assert local(gpus="auto").gpus == ["3", "MIG-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert local(gpus="auto").gpus == []


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "killed by SIGKILL"), (137, "killed by SIGKILL"), (143, "stopped by SIGTERM"), (1, "")],
)
def test_how_a_process_ended(code, words):
    assert signal_text(code) == words


TRACE = 'Traceback (most recent call last):\n  File "x", line 1\n    y()\nValueError: bad\n'


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (f"a\n{TRACE}", "ValueError: bad"),
        (
            f"{TRACE}\nDuring handling of it:\n\n{TRACE.replace('bad', 'worse')}",
            "ValueError: worse",
        ),
        (f"{TRACE}[rank 1] goodbye\n", "ValueError: bad"),
        ("a\nerror: seed=-1: no\nb\n", "seed=-1: no"),
        ("a\nb\n\n", "b"),
        ("", ""),
    ],
)
def test_the_line_that_says_what_went_wrong(tmp_path, log, line):
    path = tmp_path / "job.log"
    path.write_text("error: an earlier start\n")
    since = path.stat().st_size
    with path.open("a") as file:
        file.write(log)
    assert last_error(path, since) == line


def test_the_table_shows_what_matters_first(tmp_path):
    def made(name: str, state: str, **progress) -> Job:
        folder = tmp_path / name
        folder.mkdir()
        if progress:
            (folder / "progress.json").write_text(json.dumps(progress))
        if state == "done":
            (folder / "results.json").write_text('{"val/elbo": -97.5}')
        return Job([], {"model.beta": name}, folder, state=state, where="GPU 1")

    now = {"epoch": 3, "epochs": 20, "val/elbo": -101.25, "seconds_left": 75.2}
    jobs = [
        made("1", "waiting"),
        made("2", "done"),
        made("4", "failed"),
        made("8", "running", **now),
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
