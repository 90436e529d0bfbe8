"""Signals to real runs, in one process and in two, at each phase; and processes that are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from support import programs

from vaelab.runs.resume import UNMEASURED

ROOT = Path(__file__).parents[2]
RUN = [
    *("model=beta_vae", "annealing=linear", "annealing.duration=0.9", "logger=none"),
    *("model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "model.latent_dim=2"),
    *("data.batch_size=64", "trainer.max_epochs=2"),
]  # 2 epochs of 62 steps
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
DDP = "trainer=ddp_cpu"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """A data folder that all these runs share."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def start(data_dir):
    """Returns a function that starts `train.py` in a session, which is killed at the end."""
    started = []

    def start_run(folder, *overrides, script="train.py", program=programs.start, **environment):
        settings = [f"hydra.run.dir={folder}", f"paths.data={data_dir}", *RUN]
        started.append(
            program(
                [sys.executable, script, *(settings if script == "train.py" else []), *overrides],
                cwd=ROOT,
                env=ENVIRONMENT | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start_run
    for process in started:
        if session_members(process):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def session_members(leader: subprocess.Popen) -> list[int]:
    """Returns the ids of the living processes that a process began, itself among them."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = status.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # ended meanwhile
            continue
        if int(session) == leader.pid and state not in "ZX":
            found.append(int(status.parent.name))
    return found


def end(process: subprocess.Popen) -> tuple[int, str, str]:
    """Waits for a run; returns exit code, output and errors; no process may be left behind."""
    out, err = process.communicate(timeout=200)
    until = time.monotonic() + 10
    while session_members(process) and time.monotonic() < until:
        time.sleep(0.1)
    assert session_members(process) == []
    assert "Traceback" not in err
    return process.returncode, out, err


def stop(number: int, **settings) -> list[str]:
    """Returns the overrides that make a run send itself a signal."""
    given = {"_target_": "support.faults.Stop", "number": int(number), "step": 0} | settings
    return [f"+callbacks.stop.{name}={value}" for name, value in given.items()]


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def final_weights(tmp_path_factory, data_dir):
    """Final weights of an undisturbed run in two processes."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    settings = [f"hydra.run.dir={folder}", f"paths.data={data_dir}", *RUN, DDP]
    programs.run([sys.executable, "train.py", *settings], cwd=ROOT, env=ENVIRONMENT, check=True)
    return load_weights(folder)


@pytest.mark.parametrize(
    ("number", "code", "settings", "kept"),
    [
        (signal.SIGTERM, 143, {"rank": 0, "step": 70}, 71),
        (signal.SIGHUP, 143, {"rank": 1, "step": 70}, 71),
        (signal.SIGINT, 130, {"step": 70}, 71),
        (signal.SIGTERM, 143, {"rank": 1, "step": 1, "validating": True}, 62),
    ],
    ids=["SIGTERM to rank 0", "SIGHUP to rank 1", "Ctrl-C", "in validation"],
)
def test_signal_to_any_process_stops_ddp_at_one_step_and_resumes_bit_exact(
    start, tmp_path, final_weights, number, code, settings, kept
):
    found, out, err = end(start(tmp_path, DDP, *stop(number, **settings)))
    assert found == code, err
    assert out.count("stopped; go on with") == 1
    assert f"hydra.run.dir={tmp_path} ckpt=last" in out
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == kept
    found, out, err = end(start(tmp_path, DDP, "ckpt=last"))
    assert found == 0, err
    resumed = load_weights(tmp_path)
    assert all(torch.equal(resumed[name], final_weights[name]) for name in final_weights)


RANKS = {
    "srun": "SLURM_PROCID={0} SLURM_LOCALID={0} SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=2 "
    "SLURM_NODEID=0 SLURM_NNODES=1 SLURM_JOB_ID=7 SLURM_JOB_NAME=train SLURM_NODELIST=localhost",
    "torchrun": "RANK={0} LOCAL_RANK={0} WORLD_SIZE=2 GROUP_RANK=0 TORCHELASTIC_RUN_ID=7",
}
"""Variables that launchers of processes set for each of two ranks on one machine."""


@pytest.mark.parametrize("launcher", RANKS)
def test_processes_of_another_launcher_stop_and_resume_as_one_run(
    start, tmp_path, final_weights, launcher
):
    def run(*overrides):
        """Returns exit codes, output and errors of both ranks, started as the launcher does."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        variables = [dict(w.split("=") for w in RANKS[launcher].format(r).split()) for r in (0, 1)]
        both = [start(tmp_path, DDP, *overrides, **shared, **own) for own in variables]
        return zip(*map(end, both), strict=True)

    codes, (first, other), errors = run(*stop(signal.SIGTERM, rank=1, step=70))
    assert codes == (143, 143), errors
    assert first.count("stopped; go on with") == 1
    assert other == ""
    codes, (_, other), errors = run("ckpt=last")
    assert (codes, other) == ((0, 0), ""), errors
    resumed = load_weights(tmp_path)
    assert all(torch.equal(resumed[name], final_weights[name]) for name in final_weights)


def test_killed_process_of_ddp_is_told_and_ends_the_run(start, tmp_path, final_weights):
    process = start(tmp_path, DDP, *stop(signal.SIGKILL, rank=1, step=100))
    found, _, err = end(process)
    assert found == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: process 1 of 2 was lost (killed by SIGKILL); go on with  ")
    assert line.endswith(f"hydra.run.dir={tmp_path} ckpt=last")
    assert end(start(tmp_path, DDP, "ckpt=last"))[0] == 0
    resumed = load_weights(tmp_path)
    assert all(torch.equal(resumed[name], final_weights[name]) for name in final_weights)


@pytest.mark.parametrize("phase", [{"testing": True}, {"step": 1, "validating": True}])
def test_process_killed_in_evaluation_is_told(start, tmp_path, phase):
    process = start(tmp_path, DDP, "trainer.max_epochs=1", *stop(signal.SIGKILL, rank=1, **phase))
    found, _, err = end(process)
    assert found == 1
    assert err.count("process 1 of 2 was lost (killed by SIGKILL)") == 1


def test_other_process_ends_when_the_first_is_killed(start, tmp_path):
    assert end(start(tmp_path, DDP, *stop(signal.SIGKILL, rank=0, step=70)))[0] == -signal.SIGKILL


@pytest.mark.parametrize(("trainer", "rank"), [("cpu", 0), ("ddp_cpu", 0), ("ddp_cpu", 1)])
def test_signal_in_test_ends_at_once_and_resumed_run_only_tests(start, tmp_path, trainer, rank):
    wanted = [f"trainer={trainer}", "trainer.max_epochs=1"]
    found, out, err = end(start(tmp_path, *wanted, *stop(signal.SIGTERM, testing=True, rank=rank)))
    assert found == 143, err
    assert out.count("stopped; go on with") == 1
    assert f"hydra.run.dir={tmp_path} ckpt=last" in out
    trained = (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    found, out, err = end(start(tmp_path, *wanted, "ckpt=last"))
    assert found == 0, err
    assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns == trained
    assert (tmp_path / "results.json").exists()


def test_signal_while_measuring_is_finished_by_the_same_command(start, tmp_path):
    metric = ["+metrics.measure._target_=support.faults.measure", "+metrics.measure._partial_=true"]
    command = ["trainer.max_epochs=1", "evaluate=[measure]", *metric]
    found, out, err = end(start(tmp_path, *command, MEASURE_TROUBLE="1"))
    assert found == 143, err
    assert "ckpt=last" not in out.splitlines()[-1]
    assert json.loads((tmp_path / "results.json").read_text())[UNMEASURED] == ["measure"]
    trained = (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    found, out, err = end(start(tmp_path, *command))
    assert found == 0, err
    assert UNMEASURED not in json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns == trained

    asked = [f"run={tmp_path}", "what=[measure]", *metric, "rerun=true"]
    found, out, err = end(start(tmp_path, *asked, script="evaluate.py", MEASURE_TROUBLE="1"))
    assert found == 143, err
    assert out.startswith("stopped; go on with  python evaluate.py")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)]
)
def test_signal_during_imports_ends_with_one_line(start, tmp_path, number, code):
    process = start(tmp_path, program=subprocess.Popen)
    while "torch" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.05)
    process.send_signal(number)
    found, out, err = end(process)
    assert (found, err) == (code, "")
    assert out.splitlines()[-1].startswith("stopped; go on with  python train.py")


def test_nohup_run_goes_on_after_sighup(start, tmp_path):
    settings = ["trainer.max_epochs=1", *stop(signal.SIGHUP, step=10)]
    program = partial(programs.start, ignored=signal.SIGHUP)
    assert end(start(tmp_path, *settings, program=program))[0] == 0
