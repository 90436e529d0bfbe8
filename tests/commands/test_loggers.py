"""Loggers of `python train.py`: several at once, pictures, and runs elsewhere that are resumed."""

import sys
from importlib.util import find_spec

import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from support.logged_curves import read_events, read_rows

from vaelab.commands import train
from vaelab.errors import UserError
from vaelab.pictures.tensorboard import Board
from vaelab.training import tracking
from vaelab.training.csv_logger import CSVLogger
from vaelab.training.json_files import read_json, write_json
from vaelab.training.trainer import Trainer

TINY = [
    *("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"),
    *("data.batch_size=1000", "trainer.accelerator=cpu", "callbacks.board.projector_images=9"),
    "trainer.log_every_n_steps=2",  # of 4 steps an epoch
]


@pytest.fixture
def run_train(tmp_path, monkeypatch):
    """Returns a function that trains in this process into `tmp_path/run`, which it returns."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.chdir(tmp_path)  # wandb and MLflow write there

    def run(*overrides):
        folder = tmp_path / "run"
        given = [f"hydra.run.dir={folder}", f"paths.data={tmp_path}/data", *TINY, *overrides]
        monkeypatch.setattr(sys, "argv", ["train.py", *given])
        train.main()
        return folder

    return run


@pytest.fixture
def wandb(monkeypatch):
    """The module wandb, offline; finishes its run at the end."""
    found = pytest.importorskip("wandb", reason="wandb is not installed (vaelab[wandb])")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield found
    found.finish()


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A client of MLflow, of a database in `tmp_path`."""
    found = pytest.importorskip("mlflow", reason="mlflow is not installed (vaelab[mlflow])")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return found.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.slow
def test_several_loggers_at_once(run_train):
    folder = run_train("logger=[tensorboard,csv]", "trainer.max_epochs=1")
    assert read_events(folder)
    assert read_rows(folder)
    with pytest.raises(SystemExit):
        run_train("logger=[tensorboard,cvs]")


@pytest.mark.slow
def test_wandb_goes_on_with_the_run_that_a_folder_began(run_train, wandb):
    folder = run_train("logger=wandb", "trainer.max_epochs=1")
    number = read_json(folder / tracking.FILE)["wandb"]
    assert wandb.run.id == number
    assert wandb.run.summary["trainer/global_step"] == 4
    wandb.finish()
    (one,) = (folder.parent / "wandb").glob(f"offline-run-*-{number}")
    assert {"reconstructions", "samples"} <= {p.stem.split("_")[0] for p in one.rglob("*.png")}
    run_train("logger=wandb", "trainer.max_epochs=2", "ckpt=last")
    assert wandb.run.id == number
    assert wandb.run.summary["trainer/global_step"] == 8
    wandb.finish()
    run_train("logger=wandb", "trainer.max_epochs=1", "rerun=true")
    assert wandb.run.id != number
    assert read_json(folder / tracking.FILE) == {"wandb": wandb.run.id}


@pytest.mark.slow
def test_mlflow_goes_on_with_the_run_that_a_folder_began(run_train, client):
    folder = run_train("logger=mlflow", "trainer.max_epochs=1")
    number = read_json(folder / tracking.FILE)["mlflow"]
    told = client.get_run(number)
    assert (told.data.params["model.latent_dim"], told.info.run_name) == ("2", "run")
    assert "test/elbo" in told.data.metrics
    pictures = {p.path for p in client.list_artifacts(number, "images")}
    assert any("reconstructions" in path for path in pictures)
    run_train("logger=mlflow", "trainer.max_epochs=2", "ckpt=last", "model.free_bits=0.1")
    assert read_json(folder / tracking.FILE)["mlflow"] == number
    steps = [m.step for m in client.get_metric_history(number, "train/loss")]
    assert steps == [1, 3, 5, 7]
    run_train("logger=mlflow", "trainer.max_epochs=1", "rerun=true")
    assert read_json(folder / tracking.FILE)["mlflow"] != number


@pytest.mark.slow
def test_mlflow_has_points_after_the_checkpoint_once(run_train, client):
    folder = run_train("logger=mlflow", "trainer.max_epochs=1")
    last = folder / "checkpoints" / "last.ckpt"
    saved = last.read_bytes()
    run_train("logger=mlflow", "trainer.max_epochs=2", "ckpt=last")
    number = read_json(folder / tracking.FILE)["mlflow"]
    names = client.get_run(number).data.metrics.keys() - {"train/images_per_second"}
    before = {name: points_of(client, number, name) for name in names}
    assert [step for step, _ in before["train/loss"]] == [1, 3, 5, 7]
    last.write_bytes(saved)  # as if the second epoch had been killed before its checkpoint
    run_train("logger=mlflow", "trainer.max_epochs=2", "ckpt=last")
    assert {name: points_of(client, number, name) for name in names} == before
    last.write_bytes(saved)
    run_train("logger=mlflow", "trainer.max_epochs=2", "ckpt=last", "model.free_bits=9.0")
    assert [step for step, _ in points_of(client, number, "train/loss")] == [1, 3, 5, 5, 7, 7]


def points_of(client, number: str, name: str) -> list[tuple[int, float]]:
    """Returns step and value of each point of a metric of a run in MLflow, by step."""
    return sorted((m.step, m.value) for m in client.get_metric_history(number, name))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_logger_that_is_not_installed_is_one_line(run_train, monkeypatch, capsys, name):
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(SystemExit) as end:
        run_train(f"logger={name}")
    said = capsys.readouterr().err.strip()
    assert end.value.code == 2
    assert said == f'error: logger={name}: {name} is not installed; pip install "vaelab[{name}]"'


def test_logger_that_refuses_to_start_is_one_line():
    def start():
        raise PermissionError("api_key not configured\nmore")

    with pytest.raises(UserError, match="logger=wandb: api_key not configured; log in by wandb"):
        tracking.explain_refusal("wandb", start)


def test_id_of_a_run_elsewhere_is_of_a_run_that_goes_on(tmp_path):
    tracking.keep_id(tmp_path, "wandb", "abc1")
    tracking.keep_id(tmp_path, "mlflow", "abc2")
    assert tracking.earlier_id(tmp_path, "wandb") is None  # no checkpoint to go on from
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert tracking.earlier_id(tmp_path, "wandb") == "abc1"
    for wrong in ("../../a", "", 7, None, "a" * 65):  # in a folder from elsewhere
        write_json(tmp_path / tracking.FILE, {"wandb": wrong})
        assert tracking.earlier_id(tmp_path, "wandb") is None
    (tmp_path / tracking.FILE).write_text("{")
    assert tracking.earlier_id(tmp_path, "wandb") is None


def test_trainer_takes_loggers_by_name_and_in_lists(tmp_path):
    one, two = (CSVLogger(tmp_path, name=name) for name in "ab")
    options = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    for given in ({"a": one, "b": two, "c": None}, [{"a": one}, two], [one, [two]]):
        assert Trainer(logger=given, **options).loggers == [one, two]
    assert Trainer(logger={"a": one}, **options).loggers == [one]
    assert Trainer(logger=False, **options).loggers == []


class KeepPictures(DummyLogger):
    """A logger that keeps the names and steps of pictures."""

    def __init__(self):
        super().__init__()
        self.pictures = []

    def log_image(self, key, images, step=None):
        self.pictures += [(key, step, image.size) for image in images]


def test_pictures_go_to_every_logger_that_shows_any(fit, tmp_path):
    torch.manual_seed(0)
    pictured = KeepPictures()
    fit(Board(1, 9), logger=[CSVLogger(tmp_path), pictured])
    names = {name for name, _, _ in pictured.pictures}
    assert {"reconstructions", "samples"} <= names
    assert {step for _, step, _ in pictured.pictures} == {4, 9}


@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
def test_loggers_with_images_are_known_by_their_method():
    assert issubclass(tracking.MLFlowLogger, tracking.LogsImages)
    assert issubclass(tracking.WandbLogger, tracking.LogsImages)
    assert not issubclass(CSVLogger, tracking.LogsImages)
