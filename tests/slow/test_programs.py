"""Tests that a program forked by `support.programs` is as good as one that starts fresh."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import programs
from support.commands import run_command

from vaelab.commands import train

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
RUN = [
    *("trainer=fast", "trainer.max_epochs=1", "+trainer.limit_train_batches=2", "logger=none"),
    *("model.encoder.hidden=[8]", "model.decoder.hidden=[8]"),
    "+callbacks.probe._target_=support.process_probe.Probe",
]


@pytest.mark.parametrize("program", [["train.py"], ["-m", "vaelab", "train"]], ids=len)
def test_fork_has_state_output_and_exit_code_of_fresh_program(tmp_path, program):
    state = tmp_path / "state.json"
    settings = [f"+callbacks.probe.file={state}", "+callbacks.probe.then=raise"]
    words = [sys.executable, *program, *RUN, *settings, f"hydra.run.dir={tmp_path}/run"]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    found = []
    for start in (subprocess.Popen, programs.start):
        options = {"cwd": ROOT, "env": environment, "text": True, "start_new_session": True}
        process = start([*words, "rerun=true"], **options, **pipes)
        assert isinstance(process, programs.Program) == (start == programs.start)
        out, err = process.communicate(timeout=200)
        told = json.loads(state.read_text())
        told["main"][1] = os.path.join(ROOT, told["main"][1])  # relative in a fork
        told["output"] = [name.partition(":")[0] for name in told["output"]]
        found.append((process.returncode, told, out, err.splitlines()[-1]))
        assert (tmp_path / "state.json.open").read_text() == "flushed by the end of Python"
    fresh, fork = found
    assert {k: v for k, v in fork[1].items() if v != fresh[1][k]} == {}
    assert fork == fresh
    assert fork[0] == 1


@pytest.mark.parametrize("wanted", ["code", "signal"])
def test_fork_ends_by_exit_code_or_signal(tmp_path, wanted):
    then = {"code": ("exit", 3), "signal": ("SIGKILL", -9)}[wanted]
    settings = [f"+callbacks.probe.then={then[0]}", f"hydra.run.dir={tmp_path}/run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    words = [sys.executable, "train.py", *RUN, *settings]
    done = programs.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == then[1]
    assert "probed" in done.stdout


def test_program_is_forked_after_a_training_in_this_process(tmp_path):
    """Which leaves variables in the environment."""
    run_command(train, *RUN[:-1], f"hydra.run.dir={tmp_path}/run")
    words = [sys.executable, "train.py", "--help"]
    with programs.start(words, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        assert isinstance(process, programs.Program)


def test_program_whose_variables_are_read_at_its_start_is_not_forked(tmp_path):
    words = [sys.executable, "train.py", "--help"]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL}
    for name, value in (("TORCH_LOGS", "recompiles"), ("MKL_NUM_THREADS", "7")):
        with programs.start(words, env=os.environ | {name: value}, **quiet) as process:
            assert isinstance(process, subprocess.Popen)
    with programs.start([sys.executable, "-u", *words[1:]], **quiet) as process:
        assert isinstance(process, subprocess.Popen)
