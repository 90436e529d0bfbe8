"""`python train.py`, from the command line to what it leaves in its folder."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]
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
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, prepared) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(folder, prepared, *WARM_UP)
    return weights(folder)


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
    stop = ["_target_=faults.Stop", f"number={number}", f"step={step}", f"validating={validating}"]
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


def test_factor_vae_goes_on_to_the_same_bits_with_both_parts_of_its_optimizer(tmp_path, prepared):
    small = [*WARM_UP, "model=factor_vae", "model.discriminator.hidden=[16]"]
    train(tmp_path / "one", prepared, *small, "trainer.max_epochs=3")
    stop = ["_target_=faults.Stop", f"number={signal.SIGTERM}", "step=100"]
    stop = [*small, *(f"+callbacks.stop.{setting}" for setting in stop), "trainer.max_epochs=3"]
    options = {"cwd": ROOT, "env": ENVIRONMENT, "timeout": 120}
    assert subprocess.run(arguments(tmp_path / "two", prepared, *stop), **options).returncode == 143
    train(tmp_path / "two", prepared, *small, "trainer.max_epochs=3", "ckpt=last")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert any(name.startswith("discriminator.") for name in one)
    assert all(torch.equal(two[name], one[name]) for name in one)


def test_the_same_command_goes_on_and_then_answers_at_once(tmp_path, prepared, undisturbed):
    stop = ["_target_=faults.Stop", f"number={signal.SIGTERM}", "step=100"]
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
