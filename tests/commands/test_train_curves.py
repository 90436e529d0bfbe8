"""Curves of runs of `python train.py` that were stopped, against runs that never were."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from support import programs
from support.logged_curves import assert_same_curves, read_events, read_rows

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
BOARD = (
    "{_target_:vaelab.training.tensorboard.TensorBoardLogger,save_dir:'${hydra:runtime.output_dir}',"
    "name:'',version:'',default_hp_metric:false}"
)
LOGGERS = {
    "tensorboard": ["logger=tensorboard"],
    "csv": ["logger=csv"],
    "both": ["logger=csv", f"trainer.logger=['${{logger}}',{BOARD}]"],
}
RUN = [
    *("model=beta_vae", "annealing=linear", "annealing.duration=15", "annealing.unit=steps"),
    *("model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "model.latent_dim=2"),
    *("data.batch_size=400", "trainer.log_every_n_steps=3", "callbacks.board.projector_images=9"),
]  # 10 steps an epoch
EPOCHS = ["trainer.val_check_interval=4", "trainer.max_epochs=3"]
INTERRUPTED = {
    "within an epoch, after a checkpoint": ["step=17"],
    "before the first checkpoint": ["step=2"],
    "in a validation": ["step=16", "validating=true"],
    "in the test": ["step=0", "testing=true"],
    "terminated": ["step=18", f"number={signal.SIGTERM:d}"],
    "terminated before a validation": ["step=17", f"number={signal.SIGTERM:d}"],
}


def train(folder, data_dir, *overrides, code=0, **environment):
    """Runs `python train.py` and checks its exit code; returns what it printed."""
    given = [f"hydra.run.dir={folder}", f"paths.data={data_dir}", *RUN, *overrides]
    command = [sys.executable, "train.py", *given]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 500}
    done = programs.run(command, env=ENVIRONMENT | environment, **options)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data folder that all these runs share."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    """The folder of a run of 3 epochs that is not interrupted, with both loggers."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(
        folder, data_dir, *LOGGERS["both"], "trainer.val_check_interval=4", "trainer.max_epochs=3"
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", INTERRUPTED)
def test_run_given_again_has_the_curves_of_one_never_stopped(
    whole, tmp_path, data_dir, interrupted
):
    settings = [f"number={signal.SIGKILL:d}", *INTERRUPTED[interrupted]]
    settings = dict(pair.split("=") for pair in ["_target_=support.faults.Stop", *settings])
    stop = [f"+callbacks.stop.{name}={value}" for name, value in settings.items()]
    given = [tmp_path / "run", data_dir, *LOGGERS["both"], *EPOCHS, *stop]
    terminated = settings["number"] == str(int(signal.SIGTERM))
    train(*given, code=143 if terminated else -signal.SIGKILL)
    said = train(*given, STOP="no")
    assert "warning" not in said
    assert_same_curves(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("logger", LOGGERS)
def test_extended_run_has_the_curves_of_a_longer_one(tmp_path, data_dir, logger):
    given = [*LOGGERS[logger], "callbacks.board.every_n_epochs=1"]
    train(tmp_path / "run", data_dir, *given, "trainer.max_epochs=1")
    train(tmp_path / "run", data_dir, *given, "trainer.max_epochs=3", "ckpt=last")
    train(tmp_path / "whole", data_dir, *given, "trainer.max_epochs=3")
    assert_same_curves(tmp_path / "run", tmp_path / "whole")
    assert bool(read_events(tmp_path / "run")) == (logger != "csv")
    assert bool(read_rows(tmp_path / "run")) == (logger != "tensorboard")
    results = [json.loads((tmp_path / n / "results.json").read_text()) for n in ("run", "whole")]
    assert results[0]["val/elbo"] == results[1]["val/elbo"]
