"""The training scalars that TensorBoard's event files have, and their steps."""

from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vaelab.training.callbacks import Seeding, Speed


def test_tensorboard_has_scalars_once_per_logging_step(fit, tmp_path):
    fit(Seeding(0), Speed(), logger=TensorBoardLogger(tmp_path, name="", version=""),
        log_every_n_steps=2)  # fmt: skip
    board = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    steps = {tag: [event.step for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    for name in ("elbo", "distortion", "rate", "loss", "images_per_second", "learning_rate"):
        assert steps[f"train/{name}"] == [1, 3, 5, 7, 9]
    assert len(steps["val/elbo"]) == 2
