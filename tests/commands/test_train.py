"""`python train.py`, from the command line to what it leaves in its folder."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import parse_experiment_plugin_data

from vaelab import evaluation
from vaelab import report as reports
from vaelab.commands import train as train_command
from vaelab.errors import UserError
from vaelab.runs import naming
from vaelab.sweeps.job import Job

ROOT = Path(__file__).parents[2]

PARTS = ("val/", "test")  # beginnings of the names of what an evaluation measures
SMALL = ["model.encoder.hidden=[32]", "model.decoder.hidden=[32]", "model.latent_dim=4"]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A data folder that all of these runs share."""
    return tmp_path_factory.mktemp("data")


def arguments(folder: Path, prepared: Path, *overrides: str) -> list[str]:
    given = [f"hydra.run.dir={folder}", f"paths.data={prepared}", *overrides]
    return [sys.executable, "train.py", *given]


def train(folder: Path, prepared: Path, *overrides: str, **options) -> str:
    """Runs to the end; returns what was printed."""
    done = subprocess.run(
        arguments(folder, prepared, *overrides),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        **options,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, prepared) -> tuple[Path, str]:
    """A short run with the default logger and a warm-up: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "cvae"
    overrides = ["model=cvae", "annealing=linear", "trainer.max_epochs=4"]
    often = ["trainer.log_every_n_steps=10", "model.latent_dim=2"]
    return folder, train(folder, prepared, *SMALL[:2], *overrides, *often)


@pytest.fixture(scope="module")
def board(run) -> EventAccumulator:
    """All that TensorBoard's own reader finds in the folder."""
    reader = EventAccumulator(str(run[0]), size_guidance={"scalars": 0, "images": 0})
    return reader.Reload()


@pytest.mark.slow
def test_it_says_what_it_does(run):
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
    assert max(map(len, said.splitlines())) < 400


@pytest.mark.slow
def test_a_run_that_ends_before_its_first_validation_is_measured(prepared, tmp_path):
    said = train(tmp_path / "run", prepared, *SMALL, "trainer.max_steps=1")
    assert "warning" not in said
    assert "last weights" in said
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["steps"] == 1
    assert results["val/elbo"] < 0
    assert results["test/elbo"] < 0


def test_results_hold_the_test_metrics_of_the_best_checkpoint(run):
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


def test_checkpoints_are_tensors_and_plain_values(run):
    for name in ("best", "last"):
        checkpoint = torch.load(run[0] / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert not any("beta" in key for key in checkpoint["state_dict"])
    assert sorted(p.name for p in (run[0] / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_figures_are_pictures(run):
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


def test_tensorboard_reads_the_scalars(board):
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


def test_tensorboard_reads_the_annealed_weight(board):
    """Linear over a fifth of 4 x 31 steps: step s is taken with (s - 1) / 25."""
    found = {event.step + 1: event.value for event in board.Scalars("train/beta")}
    assert found[10] == pytest.approx(9 / 25)
    assert found[20] == pytest.approx(19 / 25)
    assert found[30] == 1.0


def test_tensorboard_reads_pictures_and_the_rate_of_each_latent(board):
    tags = board.Tags()
    assert set(tags["images"]) >= {"reconstructions", "samples", "traversal", "manifold"}
    (histogram, *_) = board.Histograms("val/rate_per_latent")
    assert histogram.histogram_value.num == 2
    assert histogram.histogram_value.min >= 0


def test_tensorboard_reads_the_hyperparameters(run, board):
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


def test_tensorboard_has_the_projector(run):
    config = (run[0] / "projector_config.pbtxt").read_text()
    assert "latent_means" in config
    points = run[0] / "latent_means" / "points.tsv"
    rows = points.read_text().splitlines()
    assert len(rows) == 500
    assert len(rows[0].split("\t")) == 2
    assert len((points.parent / "labels.tsv").read_text().split()) == 500
    assert Image.open(points.parent / "sprite.png").size == (23 * 28, 23 * 28)


WARM_UP = [
    *SMALL,
    *("model=beta_vae", "annealing=linear", "annealing.duration=0.9", "logger=none"),
    *("trainer.max_epochs=6", "data.batch_size=64"),
]  # 6 epochs of 62 steps
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, prepared) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(folder, prepared, *WARM_UP)
    return weights(folder)


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
def test_a_run_stopped_in_its_warm_up_goes_on_to_the_same_bits(
    tmp_path, prepared, undisturbed, number, code, step, validating, kept
):
    stop = [
        "_target_=support.faults.Stop",
        f"number={number}",
        f"step={step}",
        f"validating={validating}",
    ]
    overrides = [*WARM_UP, *(f"+callbacks.stop.{setting}" for setting in stop)]
    command = arguments(tmp_path, prepared, *overrides)
    options = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True}
    stopped = subprocess.run(command, timeout=120, **options)
    assert stopped.returncode == code, stopped.stderr
    if number != signal.SIGKILL:
        assert f"hydra.run.dir={tmp_path} ckpt=last" in stopped.stdout
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == kept

    train(tmp_path, prepared, *WARM_UP, "ckpt=last")
    resumed = weights(tmp_path)
    assert resumed.keys() == undisturbed.keys()
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in resumed)


@pytest.mark.slow
def test_factor_vae_goes_on_to_the_same_bits_with_both_parts_of_its_optimizer(tmp_path, prepared):
    small = [*WARM_UP, "model=factor_vae", "model.discriminator.hidden=[16]"]
    train(tmp_path / "one", prepared, *small, "trainer.max_epochs=3")
    stop = ["_target_=support.faults.Stop", f"number={signal.SIGTERM}", "step=100"]
    stop = [*small, *(f"+callbacks.stop.{setting}" for setting in stop), "trainer.max_epochs=3"]
    options = {"cwd": ROOT, "env": ENVIRONMENT, "timeout": 120}
    assert subprocess.run(arguments(tmp_path / "two", prepared, *stop), **options).returncode == 143
    train(tmp_path / "two", prepared, *small, "trainer.max_epochs=3", "ckpt=last")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert any(name.startswith("discriminator.") for name in one)
    assert all(torch.equal(two[name], one[name]) for name in one)


@pytest.mark.slow
def test_the_same_command_goes_on_and_then_answers_at_once(tmp_path, prepared, undisturbed):
    stop = ["_target_=support.faults.Stop", f"number={signal.SIGTERM}", "step=100"]
    overrides = [*WARM_UP, *(f"+callbacks.stop.{setting}" for setting in stop)]

    def again(*more):
        command = arguments(tmp_path, prepared, *overrides, *more)
        options = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True}
        return subprocess.run(command, timeout=120, **options)

    assert again().returncode == 143
    resumed = again()
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step 101" in resumed.stdout
    final = weights(tmp_path)
    assert all(torch.equal(final[name], undisturbed[name]) for name in undisturbed)

    kept = [*tmp_path.rglob("*.ckpt"), tmp_path / "results.json"]
    files = {path: path.stat().st_mtime_ns for path in kept}
    finished = again()
    assert finished.returncode == 0, finished.stderr
    assert "is finished, with val/elbo" in finished.stdout
    assert {path: path.stat().st_mtime_ns for path in files} == files

    other = again("model.beta=2.0")
    assert other.returncode == 2
    assert "holds a run with model.beta=4.0, not 2.0" in other.stderr

    (tmp_path / "mine.json").write_text("{}")
    assert again("rerun=true").returncode == 143  # at step 100 again
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 101
    assert not (tmp_path / "results.json").exists()
    assert (tmp_path / "mine.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "of_the_batch",
    [
        [],
        ["model.free_bits=0.5"],
        ["likelihood=gaussian", "model.likelihood.scale=optimal", "data.pixels=grey"],
        ["model=factor_vae", "model.discriminator.hidden=[16]"],
    ],
)
def test_two_processes_train_to_the_same_result_as_one(tmp_path, prepared, of_the_batch):
    """To the same weights, but for the order in which gradients are added up."""
    overrides = [
        *SMALL,
        *("model=beta_vae", "model.num_samples=2", "trainer.max_epochs=2", "logger=csv"),
        *of_the_batch,
    ]
    for trainer in ("cpu", "ddp_cpu"):
        train(tmp_path / trainer, prepared, *overrides, f"trainer={trainer}", env=ENVIRONMENT)
    one, two = (json.loads((tmp_path / t / "results.json").read_text()) for t in ("cpu", "ddp_cpu"))
    assert (one["devices"], two["devices"]) == (1, 2)
    assert one["steps"] == two["steps"]
    for name in ("val/elbo", "test/elbo", "test/distortion", "test/rate", "test/active_units"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)
    first, second = weights(tmp_path / "cpu"), weights(tmp_path / "ddp_cpu")
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=1e-3, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu", "ddp_cpu"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", [["model=beta_tcvae", "model.num_samples=2"], ["model=vq_vae"], ["model=wae"]]
)
def test_two_processes_evaluate_to_the_same_bits_as_one(tmp_path, prepared, variant):
    """47 images in batches of 40, of which the last one has 7, and 30 in one batch."""
    few = ["data.val_size=47", "data.test_size=30", "data.batch_size=40", "logger=none"]
    still = ["model.optimizer.lr=0", "trainer.max_steps=1", "trainer.val_check_interval=1"]
    found = []
    for trainer in ("cpu", "ddp_cpu"):
        options = [*SMALL, *few, *still, *variant, f"trainer={trainer}"]
        train(tmp_path / trainer, prepared, *options, env=ENVIRONMENT)
        results = json.loads((tmp_path / trainer / "results.json").read_text())
        found.append({name: value for name, value in results.items() if name[:4] in PARTS})
    assert len(found[0]) > 6
    assert found[0] == found[1]


@pytest.mark.slow
def test_compiled_training_goes_on_under_annealing(tmp_path, prepared):
    """A weight that changes at every step must not compile the step again."""
    overrides = [*SMALL, "annealing=linear", "trainer.max_epochs=2", "logger=none"]
    environment = ENVIRONMENT | {"TORCH_LOGS": "recompiles"}
    said = train(tmp_path / "compiled", prepared, *overrides, "compile=true", env=environment)
    assert "Recompiling" not in said
    train(tmp_path / "eager", prepared, *overrides)
    compiled, eager = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("compiled", "eager")
    )
    assert compiled["test/elbo"] == pytest.approx(eager["test/elbo"], abs=0.05)


def lines(said: str) -> dict[str, str]:
    """The last lines of a run, by their first word."""
    found = [line.split("  ", 1) for line in said.splitlines() if "  " in line]
    return {first.strip(): rest.strip() for first, rest in found}


@pytest.mark.slow
@pytest.mark.parametrize("start", ["", "rerun=true"])
def test_what_it_prints_can_be_pasted(tmp_path, prepared, start):
    folder = tmp_path / "a=b, (it's) [#1] {x} & ö"
    given = [*SMALL, "trainer.max_epochs=1", "model.encoder.hidden=[8]", f"paths.data={prepared}"]
    quoted = f"hydra.run.dir={naming.quote(str(folder))}"
    command = [sys.executable, "train.py", *given, quoted, *filter(None, [start])]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120}
    first = subprocess.run(command, **options)
    assert first.returncode == 0, first.stderr
    said = lines(first.stdout)
    listed = subprocess.run(f"ls -d {said['run folder']}", shell=True, **options)
    assert listed.stdout.strip() == str(folder)
    assert shlex.split(said["curves"])[-1] == str(folder)
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    again = subprocess.run(said["go on"], shell=True, env=os.environ | path, **options)
    assert again.returncode == 0, again.stderr
    assert json.loads((folder / "results.json").read_text())["epochs"] == 2


@pytest.mark.slow
def test_no_curves_are_named_where_there_are_none(tmp_path, prepared):
    said = train(tmp_path / "run", prepared, *SMALL, "trainer.max_epochs=1", "logger=csv")
    assert "curves" not in lines(said)


@pytest.mark.slow
def test_a_second_start_in_a_folder_waits_and_says_that_it_is_finished(tmp_path, prepared):
    given = arguments(tmp_path, prepared, *SMALL, "trainer.max_epochs=2", "logger=none")
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    starts = [subprocess.Popen(given, **options) for _ in range(2)]
    said = [start.communicate(timeout=180)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0], said
    assert sum("is finished, with val/elbo" in words for words in said) == 1
    assert sum("epoch 2/2" in words for words in said) == 1
    assert "epoch 3/2" not in "".join(said)


# In this process.


def run_here(folder: Path, prepared: Path, *overrides: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        given = [f"hydra.run.dir={folder}", f"paths.data={prepared}", "logger=none", *SMALL]
        patch.setattr(sys, "argv", ["train.py", *given, *overrides])
        patch.delenv("HYDRA_FULL_ERROR", raising=False)
        train_command.main()


def test_an_early_stop_is_said(tmp_path, prepared, capsys):
    stop = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, "
    stop += "monitor: val/loss, patience: 1, min_delta: 1000}"
    run_here(tmp_path, prepared, stop, "trainer.max_epochs=30")
    assert "stopped at epoch 2 of 30 by EarlyStopping" in capsys.readouterr().out
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
def test_only_an_end_that_was_not_asked_for_is_one(tmp_path, prepared, overrides, end):
    run_here(tmp_path, prepared, *overrides)
    assert json.loads((tmp_path / "results.json").read_text()).get("stopped") == end


def test_a_collapse_is_said(tmp_path, prepared, capsys):
    run_here(tmp_path, prepared, "model=beta_vae", "model.beta=10000", "trainer.max_epochs=2")
    assert "no latent is active, so the codes say nothing" in capsys.readouterr().out
    run_here(tmp_path / "other", prepared, "trainer.max_epochs=1")
    assert "no latent is active" not in capsys.readouterr().out


@pytest.mark.parametrize(("fault", "code"), [(KeyboardInterrupt, 130), (UserError("no"), 2)])
def test_a_measurement_that_fails_leaves_the_run_whole(
    tmp_path, prepared, monkeypatch, capsys, fault, code
):
    def fails(*_, **__):
        raise fault

    given = ["trainer.max_epochs=1", "evaluate=[reconstruction]"]
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "reconstruction", fails)
        with pytest.raises(SystemExit) as exit_:
            run_here(tmp_path, prepared, *given)
    assert exit_.value.code == code
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["test/elbo"] < 0
    assert results["unmeasured"] == ["reconstruction"]
    assert list((tmp_path / "figures").glob("*.png"))
    assert not Job([], {}, tmp_path).is_finished
    capsys.readouterr()

    run_here(tmp_path, prepared, *given)
    said = capsys.readouterr().out
    assert "is finished, with val/elbo" in said
    assert "ssim" in said
    assert "ssim" in json.loads((tmp_path / "evaluation.json").read_text())
    assert json.loads((tmp_path / "results.json").read_text()) == {
        name: value for name, value in results.items() if name != "unmeasured"
    }
    assert Job([], {}, tmp_path).is_finished
    run_here(tmp_path, prepared, *given)
    assert "ssim" not in capsys.readouterr().out


def test_an_empty_ckpt_reads_nothing_of_the_folder_where_one_stands(
    tmp_path, prepared, monkeypatch, capsys
):
    run_here(tmp_path / "run", prepared, "trainer.max_epochs=1")
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(SystemExit):
        run_here(tmp_path / "other", prepared, "ckpt=")
    assert "ckpt=: the value is empty" in capsys.readouterr().err
