"""Tests of `python train.py`: its output and files, resuming, and two processes against one.

Most tests run it as a process. Those at the end run it in the process of the tests.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.types import RunMode
from omegaconf import open_dict, read_write
from PIL import Image
from support import programs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import parse_experiment_plugin_data

from vaelab import evaluation
from vaelab import report as reports
from vaelab.commands import train as train_command
from vaelab.commands.config_folders import CONF, compose_config
from vaelab.commands.run_folder import RunFolder
from vaelab.errors import UserError
from vaelab.runs import naming
from vaelab.sweeps.job import Job

ROOT = Path(__file__).parents[2]

PREFIXES = ("val/", "test")  # of the names of validation and test metrics
SMALL = ["model.encoder.hidden=[32]", "model.decoder.hidden=[32]", "model.latent_dim=4"]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """A data folder that all these runs share."""
    return tmp_path_factory.mktemp("data")


def argv(folder: Path, data_dir: Path, *overrides: str) -> list[str]:
    """The words of `python train.py` with a run folder and a data folder."""
    given = [f"hydra.run.dir={folder}", f"paths.data={data_dir}", *overrides]
    return [sys.executable, "train.py", *given]


def train(folder: Path, data_dir: Path, *overrides: str, **options) -> str:
    """Runs `python train.py` as a process, checks for exit code 0, and returns its output."""
    done = programs.run(
        argv(folder, data_dir, *overrides),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        **options,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def load_weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    """Reads the state dict of a checkpoint in a run folder."""
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir) -> tuple[Path, str]:
    """A short run with TensorBoard and linear annealing of beta: its folder and its output."""
    folder = tmp_path_factory.mktemp("runs") / "cvae"
    overrides = ["model=cvae", "annealing=linear", "trainer.max_epochs=4"]
    often = ["trainer.log_every_n_steps=10", "model.latent_dim=2"]
    return folder, train(folder, data_dir, *SMALL[:2], *overrides, *often)


@pytest.fixture(scope="module")
def board(run) -> EventAccumulator:
    """The events in the folder of `run`, read by TensorBoard's own reader."""
    reader = EventAccumulator(str(run[0]), size_guidance={"scalars": 0, "images": 0})
    return reader.Reload()


@pytest.mark.slow
def test_train_prints_data_metrics_and_follow_up_commands(run):
    folder, said = run
    for words in (
        "data=mnist has all 70,000",
        "4,000 training, 500 validation and 500 test images",
        "val/elbo",
        f"tensorboard --logdir {folder}",
        f"hydra.run.dir={folder} ckpt=last",
    ):
        assert words in said
    assert "\x1b" not in said  # no terminal, no colours
    assert "hydra.mode" not in said
    assert max(map(len, said.splitlines())) < 400


@pytest.mark.slow
def test_run_shorter_than_an_epoch_is_validated_and_tested(data_dir, tmp_path):
    said = train(tmp_path / "run", data_dir, *SMALL, "trainer.max_steps=1")
    assert "warning" not in said
    assert "last weights" in said
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["steps"] == 1
    assert results["val/elbo"] < 0
    assert results["test/elbo"] < 0


def test_results_json_holds_test_metrics_config_and_versions(run):
    results = json.loads((run[0] / "results.json").read_text())
    assert results["test/elbo"] == pytest.approx(-results["test/distortion"] - results["test/rate"])
    assert -300 < results["test/elbo"] < -100
    bits = -results["test/elbo"] / (784 * 0.6931471805599453)
    assert results["test/bits_per_dim"] == pytest.approx(bits)
    assert 0 <= results["test/active_units"] <= 2
    assert results["seed"] == 0
    assert results["seconds"] > 0
    assert results["train/images_per_second"] > 0
    assert results["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert results["config"]["model"]["condition"]["_target_"].endswith("OneHot")
    assert "git_commit" in results
    assert results["threads"] == torch.get_num_threads()
    assert isinstance(results["processor"], str)


def test_checkpoints_load_with_weights_only_and_exclude_beta(run):
    for name in ("best", "last"):
        checkpoint = torch.load(run[0] / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert not any("beta" in key for key in checkpoint["state_dict"])
    assert sorted(p.name for p in (run[0] / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_train_writes_expected_figures_as_png(run):
    names = {path.stem for path in (run[0] / "figures").glob("*.png")}
    expected = {
        "reconstructions",
        "samples",
        "traversal",
        "interpolation",
        "class_grid",
        "manifold",
    }
    assert names == expected
    for name in names:
        picture = Image.open(run[0] / "figures" / f"{name}.png")
        assert min(picture.size) > 100
        assert len(picture.convert("L").getcolors()) > 10


def test_tensorboard_has_scalars_of_train_val_and_test(board):
    tags = set(board.Tags()["scalars"])
    for stage in ("train", "val", "test"):
        for name in ("loss", "elbo", "distortion", "rate", "bits_per_dim"):
            assert f"{stage}/{name}" in tags
    assert {"val/active_units", "test/active_units"} <= tags
    assert {"train/beta", "train/learning_rate", "train/images_per_second"} <= tags
    elbo, distortion, rate = (
        [event.value for event in board.Scalars(f"val/{name}")]
        for name in ("elbo", "distortion", "rate")
    )
    assert len(elbo) == 4
    for e, d, r in zip(elbo, distortion, rate, strict=True):
        assert e == pytest.approx(-d - r, rel=1e-5)


def test_tensorboard_beta_follows_linear_annealing(board):
    """Annealing is over a fifth of the 4 x 31 steps: step s has the weight (s - 1) / 25."""
    found = {event.step + 1: event.value for event in board.Scalars("train/beta")}
    assert found[10] == pytest.approx(9 / 25)
    assert found[20] == pytest.approx(19 / 25)
    assert found[30] == 1.0


def test_tensorboard_has_images_and_histogram_of_rate_per_latent(board):
    tags = board.Tags()
    assert set(tags["images"]) >= {"reconstructions", "samples", "traversal", "manifold"}
    (histogram, *_) = board.Histograms("val/rate_per_latent")
    assert histogram.histogram_value.num == 2
    assert histogram.histogram_value.min >= 0


def test_tensorboard_has_hyperparameters_and_test_elbo(run, board):
    summary = board.SummaryMetadata("_hparams_/session_start_info")
    assert summary.plugin_data.plugin_name == "hparams"
    assert b"model.latent_dim" in summary.plugin_data.content
    experiment = board.SummaryMetadata("_hparams_/experiment").plugin_data.content
    columns = parse_experiment_plugin_data(experiment).hparam_infos
    first = sorted(column.name for column in columns if column.differs)
    assert {"model", "model.beta", "model.latent_dim"} < set(first)
    assert set(first) - {column.name for column in columns} == set()
    assert "model.num_samples" not in first
    results = json.loads((run[0] / "results.json").read_text())
    assert board.Scalars("hp/test_elbo")[-1].value == pytest.approx(results["test/elbo"])


def test_tensorboard_projector_has_means_labels_and_sprite(run):
    config = (run[0] / "projector_config.pbtxt").read_text()
    assert "latent_means" in config
    points = run[0] / "latent_means" / "points.tsv"
    rows = points.read_text().splitlines()
    assert len(rows) == 500
    assert len(rows[0].split("\t")) == 2
    assert len((points.parent / "labels.tsv").read_text().split()) == 500
    assert Image.open(points.parent / "sprite.png").size == (23 * 28, 23 * 28)


ANNEALED_RUN = [
    *SMALL,
    *("model=beta_vae", "annealing=linear", "annealing.duration=0.9", "logger=none"),
    *("trainer.max_epochs=6", "data.batch_size=64"),
]  # 6 epochs of 62 steps
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def final_weights(tmp_path_factory, data_dir) -> dict[str, torch.Tensor]:
    """Final weights of a run with `ANNEALED_RUN` that is not interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(folder, data_dir, *ANNEALED_RUN)
    return load_weights(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "step", "validating", "kept"),
    [
        (signal.SIGTERM, 143, 100, False, 101),
        (signal.SIGTERM, 143, 124, True, 124),
        (signal.SIGINT, 130, 100, False, 101),
        (signal.SIGKILL, -9, 100, False, 62),
    ],
)
def test_resume_after_signal_during_annealing_is_bit_exact(
    tmp_path, data_dir, final_weights, number, code, step, validating, kept
):
    stop = [
        "_target_=support.faults.Stop",
        f"number={number}",
        f"step={step}",
        f"validating={validating}",
    ]
    overrides = [*ANNEALED_RUN, *(f"+callbacks.stop.{setting}" for setting in stop)]
    command = argv(tmp_path, data_dir, *overrides)
    options = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True}
    stopped = programs.run(command, timeout=120, **options)
    assert stopped.returncode == code, stopped.stderr
    if number != signal.SIGKILL:
        assert f"hydra.run.dir={tmp_path} ckpt=last" in stopped.stdout
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == kept

    train(tmp_path, data_dir, *ANNEALED_RUN, "ckpt=last")
    resumed = load_weights(tmp_path)
    assert resumed.keys() == final_weights.keys()
    assert all(torch.equal(resumed[name], final_weights[name]) for name in resumed)


@pytest.mark.slow
def test_resume_factor_vae_with_discriminator_is_bit_exact(tmp_path, data_dir):
    small = [*ANNEALED_RUN, "model=factor_vae", "model.discriminator.hidden=[16]"]
    train(tmp_path / "one", data_dir, *small, "trainer.max_epochs=3")
    stop = ["_target_=support.faults.Stop", f"number={signal.SIGTERM}", "step=100"]
    stop = [*small, *(f"+callbacks.stop.{setting}" for setting in stop), "trainer.max_epochs=3"]
    options = {"cwd": ROOT, "env": ENVIRONMENT, "timeout": 120}
    assert programs.run(argv(tmp_path / "two", data_dir, *stop), **options).returncode == 143
    train(tmp_path / "two", data_dir, *small, "trainer.max_epochs=3", "ckpt=last")
    one, two = load_weights(tmp_path / "one"), load_weights(tmp_path / "two")
    assert any(name.startswith("discriminator.") for name in one)
    assert all(torch.equal(two[name], one[name]) for name in one)


@pytest.mark.slow
def test_repeated_command_resumes_then_reports_finished_run(tmp_path, data_dir, final_weights):
    stop = ["_target_=support.faults.Stop", f"number={signal.SIGTERM}", "step=100"]
    overrides = [*ANNEALED_RUN, *(f"+callbacks.stop.{setting}" for setting in stop)]

    def repeat_command(*more):
        command = argv(tmp_path, data_dir, *overrides, *more)
        options = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True}
        return programs.run(command, timeout=120, **options)

    assert repeat_command().returncode == 143
    resumed = repeat_command()
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step 101" in resumed.stdout
    final = load_weights(tmp_path)
    assert all(torch.equal(final[name], final_weights[name]) for name in final_weights)

    kept = [*tmp_path.rglob("*.ckpt"), tmp_path / "results.json"]
    files = {path: path.stat().st_mtime_ns for path in kept}
    finished = repeat_command()
    assert finished.returncode == 0, finished.stderr
    assert "is finished, with val/elbo" in finished.stdout
    assert {path: path.stat().st_mtime_ns for path in files} == files

    other = repeat_command("model.beta=2.0")
    assert other.returncode == 2
    assert "holds a run with model.beta=4.0, not 2.0" in other.stderr

    (tmp_path / "mine.json").write_text("{}")
    assert repeat_command("rerun=true").returncode == 143  # stopped at step 100 again
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 101
    assert not (tmp_path / "results.json").exists()
    assert (tmp_path / "mine.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss_settings",
    [
        [],
        ["model.free_bits=0.5"],
        ["likelihood=gaussian", "model.likelihood.scale=optimal", "data.pixels=grey"],
        ["model=factor_vae", "model.discriminator.hidden=[16]"],
    ],
    ids=["elbo", "free bits", "optimal scale", "factor vae"],
)
def test_ddp_training_matches_single_process(tmp_path, data_dir, loss_settings):
    """The weights agree up to the order in which gradients are summed."""
    overrides = [
        *SMALL,
        *("model=beta_vae", "model.num_samples=2", "trainer.max_epochs=2", "logger=csv"),
        *loss_settings,
    ]
    for trainer in ("cpu", "ddp_cpu"):
        train(tmp_path / trainer, data_dir, *overrides, f"trainer={trainer}", env=ENVIRONMENT)
    one, two = (json.loads((tmp_path / t / "results.json").read_text()) for t in ("cpu", "ddp_cpu"))
    assert (one["devices"], two["devices"]) == (1, 2)
    assert one["steps"] == two["steps"]
    for name in ("val/elbo", "test/elbo", "test/distortion", "test/rate", "test/active_units"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)
    first, second = load_weights(tmp_path / "cpu"), load_weights(tmp_path / "ddp_cpu")
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=1e-3, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu", "ddp_cpu"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", [["model=beta_tcvae", "model.num_samples=2"], ["model=vq_vae"], ["model=wae"]]
)
def test_ddp_evaluation_is_bit_exact_with_single_process(tmp_path, data_dir, variant):
    """Validation has batches of 40 and 7 images, and the test has one batch of 30."""
    few = ["data.val_size=47", "data.test_size=30", "data.batch_size=40", "logger=none"]
    still = ["model.optimizer.lr=0", "trainer.max_steps=1", "trainer.val_check_interval=1"]
    found = []
    for trainer in ("cpu", "ddp_cpu"):
        options = [*SMALL, *few, *still, *variant, f"trainer={trainer}"]
        train(tmp_path / trainer, data_dir, *options, env=ENVIRONMENT)
        results = json.loads((tmp_path / trainer / "results.json").read_text())
        found.append({name: value for name, value in results.items() if name[:4] in PREFIXES})
    assert len(found[0]) > 6
    assert found[0] == found[1]


@pytest.mark.slow
def test_compiled_training_does_not_recompile_during_annealing(tmp_path, data_dir):
    overrides = [*SMALL, "annealing=linear", "trainer.max_epochs=2", "logger=none"]
    environment = ENVIRONMENT | {"TORCH_LOGS": "recompiles"}
    said = train(tmp_path / "compiled", data_dir, *overrides, "compile=true", env=environment)
    assert "Recompiling" not in said
    train(tmp_path / "eager", data_dir, *overrides)
    compiled, eager = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("compiled", "eager")
    )
    assert compiled["test/elbo"] == pytest.approx(eager["test/elbo"], abs=0.05)


def summary_lines(said: str) -> dict[str, str]:
    """The lines with two columns in the output of a run, by their first column."""
    found = [line.split("  ", 1) for line in said.splitlines() if "  " in line]
    return {first.strip(): rest.strip() for first, rest in found}


@pytest.mark.slow
@pytest.mark.parametrize("start", ["", "rerun=true"])
def test_printed_paths_and_commands_work_in_a_shell(tmp_path, data_dir, start):
    folder = tmp_path / "a=b, (it's) [#1] {x} & ö"
    given = [*SMALL, "trainer.max_epochs=1", "model.encoder.hidden=[8]", f"paths.data={data_dir}"]
    quoted = f"hydra.run.dir={naming.quote(str(folder))}"
    command = [sys.executable, "train.py", *given, quoted, *filter(None, [start])]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120}
    first = programs.run(command, **options)
    assert first.returncode == 0, first.stderr
    said = summary_lines(first.stdout)
    listed = subprocess.run(f"ls -d {said['run folder']}", shell=True, **options)
    assert listed.stdout.strip() == str(folder)
    assert shlex.split(said["curves"])[-1] == str(folder)
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    again = subprocess.run(said["go on"], shell=True, env=os.environ | path, **options)
    assert again.returncode == 0, again.stderr
    assert json.loads((folder / "results.json").read_text())["epochs"] == 2


@pytest.mark.slow
def test_tensorboard_command_is_not_printed_for_csv_logger(tmp_path, data_dir):
    said = train(tmp_path / "run", data_dir, *SMALL, "trainer.max_epochs=1", "logger=csv")
    assert "curves" not in summary_lines(said)


@pytest.mark.slow
def test_concurrent_start_in_same_folder_waits_for_lock(tmp_path, data_dir):
    given = argv(tmp_path, data_dir, *SMALL, "trainer.max_epochs=2", "logger=none")
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    starts = [programs.start(given, **options) for _ in range(2)]
    said = [start.communicate(timeout=180)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0], said
    assert sum("is finished, with val/elbo" in words for words in said) == 1
    assert sum("epoch 2/2" in words for words in said) == 1
    assert "epoch 3/2" not in "".join(said)


# Tests that run the command in their own process.


def train_in_process(folder: Path, data_dir: Path, *overrides: str) -> None:
    """Runs `python train.py` in this process, with a small model and no logger."""
    with pytest.MonkeyPatch.context() as patch:
        given = [f"hydra.run.dir={folder}", f"paths.data={data_dir}", "logger=none", *SMALL]
        patch.setattr(sys, "argv", ["train.py", *given, *overrides])
        patch.delenv("HYDRA_FULL_ERROR", raising=False)
        train_command.main()


@pytest.mark.parametrize(
    ("delta", "rate"),
    [
        (1000, 1e-3),
        (0, 0),  # so that the best checkpoint is of the first epoch, before the stop
    ],
)
def test_early_stopping_is_printed_and_stored_in_results(tmp_path, data_dir, capsys, delta, rate):
    stop = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, "
    stop += f"monitor: val/loss, patience: 1, min_delta: {delta}}}"
    words = ["trainer.max_epochs=30", f"model.optimizer.lr={rate}"]
    train_in_process(tmp_path, data_dir, stop, *words)
    said = capsys.readouterr().out
    assert "stopped at epoch 2 of 30 by EarlyStopping" in said
    assert "go on" not in said  # no setting changes that callback
    assert json.loads((tmp_path / "results.json").read_text())["stopped"] == "epoch 2 of 30"
    report = reports.read_sweep(tmp_path)
    assert report.jobs["stopped"].tolist() == ["epoch 2 of 30"]


@pytest.mark.parametrize(
    ("overrides", "end"),
    [
        (["trainer.max_epochs=1"], None),
        (["trainer.max_epochs=9", "trainer.max_steps=3"], None),
        (["trainer.max_epochs=-1", "trainer.max_steps=3"], None),
        (["trainer.max_epochs=9", "+trainer.max_time=00:00:00:00"], "epoch 0 of 9"),
    ],
)
def test_results_record_stop_by_max_time_not_max_steps(tmp_path, data_dir, overrides, end):
    train_in_process(tmp_path, data_dir, *overrides)
    assert json.loads((tmp_path / "results.json").read_text()).get("stopped") == end


@pytest.mark.parametrize(
    ("few", "said"),
    [(0, "no latent is active, so the codes say nothing"), (300, "steps, which are few: try")],
)
def test_posterior_collapse_is_printed(tmp_path, data_dir, capsys, monkeypatch, few, said):
    monkeypatch.setattr("vaelab.commands.results.FEW_STEPS", few)
    train_in_process(
        tmp_path, data_dir, "model=beta_vae", "model.beta=10000", "trainer.max_epochs=2"
    )
    assert said in capsys.readouterr().out
    train_in_process(tmp_path / "other", data_dir, "trainer.max_epochs=1")
    assert "no latent is active" not in capsys.readouterr().out


@pytest.mark.parametrize(("fault", "code"), [(KeyboardInterrupt, 130), (UserError("no"), 2)])
def test_failed_evaluation_keeps_results_and_is_repeated_on_restart(
    tmp_path, data_dir, monkeypatch, capsys, fault, code
):
    def fails(*_, **__):
        raise fault

    given = ["trainer.max_epochs=1", "evaluate=[reconstruction]"]
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "reconstruction", fails)
        with pytest.raises(SystemExit) as exit_:
            train_in_process(tmp_path, data_dir, *given)
    assert exit_.value.code == code
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["test/elbo"] < 0
    assert results["unmeasured"] == ["reconstruction"]
    assert list((tmp_path / "figures").glob("*.png"))
    assert not Job([], {}, tmp_path).is_finished
    capsys.readouterr()

    train_in_process(tmp_path, data_dir, *given)
    said = capsys.readouterr().out
    assert "is finished, with val/elbo" in said
    assert "ssim" in said
    assert "ssim" in json.loads((tmp_path / "evaluation.json").read_text())
    assert json.loads((tmp_path / "results.json").read_text()) == {
        name: value for name, value in results.items() if name != "unmeasured"
    }
    assert Job([], {}, tmp_path).is_finished
    train_in_process(tmp_path, data_dir, *given)
    assert "ssim" not in capsys.readouterr().out


def test_empty_ckpt_does_not_mean_working_directory(tmp_path, data_dir, monkeypatch, capsys):
    train_in_process(tmp_path / "run", data_dir, "trainer.max_epochs=1")
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(SystemExit):
        train_in_process(tmp_path / "other", data_dir, "ckpt=")
    assert "ckpt=: the value is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "is_job"),
    [
        (["experiment=seeds", "seed=3", "hydra.mode=RUN"], True),
        (["experiment=disentanglement", "seed=1"], False),  # as vaelab.fit composes it
        (["model=beta_vae", "model.beta=4", "hydra.mode=RUN"], True),
        (["model=beta_vae"], False),
        (["model=beta_vae", "hydra.mode=RUN"], False),  # as Hydra composes every run
    ],
)
def test_command_that_goes_on_is_of_one_run(tmp_path, words, is_job):
    cfg = compose_config([CONF], "train", words)
    with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
        cfg.hydra.runtime.output_dir = str(tmp_path / "run")
    run = RunFolder(cfg, cfg.hydra, ["python", "train.py"], is_new=True, is_job=is_job)
    for command in (run.resume_command("trainer.max_epochs=9"), run.continuing_command()):
        program, name, *overrides = shlex.split(command)
        composed = compose_config([CONF], "train", overrides)
        assert (program, name) == ("python", "train.py")
        assert composed.hydra.mode != RunMode.MULTIRUN
        assert composed.hydra.run.dir == str(tmp_path / "run")
        assert ("hydra.mode=RUN" in overrides) == (is_job or "seed=1" in words)
