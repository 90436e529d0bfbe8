"""Folders of made-up sweeps and runs, for tests of reports."""

import json
import re

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


def grid_jobs(**axes):
    """Returns a job for each combination of settings; `__` in a name stands for a dot."""
    jobs = [{}]
    for name, values in axes.items():
        jobs = [{**job, name.replace("__", "."): str(v)} for job in jobs for v in values]
    return jobs


# 12 jobs: two values of beta, two sizes of the latent space, three seeds.
BETA_BY_SIZE = grid_jobs(model__beta=[0.5, 2], model__latent_dim=[2, 8], seed=[1, 2, 3])

# Jobs and the number of finished ones; None: all are finished.
SWEEPS = {
    "nothing finished": (grid_jobs(model__beta=[1, 2], seed=[1, 2]), 0),
    "one run": (grid_jobs(seed=[1]), None),
    "one run without settings": ([{}], None),
    "seeds alone": (grid_jobs(seed=[1, 2, 3]), None),
    "one axis": (grid_jobs(model__beta=[0.1, 1, 10], seed=[1, 2]), None),
    "one text axis": (grid_jobs(model=["vae", "cvae"], seed=[1, 2]), None),
    "two text axes": (grid_jobs(model=["vae", "cvae"], data=["a", "b", "c"]), None),
    "four axes": (
        grid_jobs(a=[1, 2], model__beta=[1, 2], b=["x", "y"], model__latent_dim=[2, 3]),
        None,
    ),
    "partly finished": (BETA_BY_SIZE, 5),
    "one finished": (BETA_BY_SIZE, 1),
    "booleans": (grid_jobs(compile=["true", "false"], model__beta=[1, 2]), None),
    "a search": (
        [
            {"model.beta": f"{1.7**i:.9f}", "model.latent_dim": str(2 + i % 13), "lr": f"{i}e-3"}
            for i in range(1, 20)
        ],
        None,
    ),
    "settings missing in some jobs": (
        [{"model.beta": "2"}, {"model": "vae"}, {"model.beta": "3"}],
        None,
    ),
}

MNIST = {"_target_": "vaelab.data.TorchvisionDataset", "name": "MNIST", "folder": "/a"}
FASHION = {"_target_": "vaelab.data.TorchvisionDataset", "name": "FashionMNIST", "folder": "/b"}


def run_config(source, pixels, likelihood, **changes):
    """Returns the part of a run's configuration that decides which runs it is compared with."""
    model = {"likelihood": {"_target_": f"vaelab.likelihoods.{likelihood}"}, "latent_dim": 4}
    return {"model": model, "data": {"source": source, "pixels": pixels}} | changes


def results_content(job, **changes):
    """Returns the content of a run's results.json, with numbers computed from the job's settings.

    `changes` are added, or replace entries.
    """
    beta, seed = float(job.get("model.beta", 1)), int(job.get("seed", 0))
    size = int(job.get("model.latent_dim", 4))
    rate, distortion = size / beta + 0.1 * seed, 100 + 5 * beta - size
    return {
        "val/elbo": -(rate + distortion) - 1,
        "test/elbo": -(rate + distortion),
        "test/rate": rate,
        "test/distortion": distortion,
        "test/active_units": float(min(size, 3)),
        "seed": seed,
        "seconds": 10.5,
        "epochs": 2,
        "steps": 20,
        "device": "cpu",
        "versions": {"vaelab": "0.1.0", "torch": "2.9.0"},
        "git_commit": "abc",
        "overrides": [],
        "config": {"model": {"latent_dim": size, "beta": beta}, "seed": seed},
    } | changes


def run_folder_name(job):
    """Returns the name of a job's folder, as `beta-0.5_seed-1`; empty without settings."""
    return "_".join(f"{k.split('.')[-1]}-{re.sub('[^A-Za-z0-9.]', '-', v)}" for k, v in job.items())


def write_finished_run(folder, job, **changes):
    """Writes the folder of a finished run: configuration, results, two pictures and an event file.

    `changes` are those of `results_content`.
    """
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text("model:\n  latent_dim: 4\n")
    (folder / "results.json").write_text(json.dumps(results_content(job, **changes)))
    (folder / "figures").mkdir(exist_ok=True)
    for picture in ("samples", "reconstructions"):
        shade = int(10 * float(job.get("model.beta", 1))) % 255
        Image.new("RGB", (20, 20), (shade, 0, 0)).save(folder / "figures" / f"{picture}.png")
    write_event_file(folder, {"val/elbo": {10: -130.0, 20: -120.0 - float(job.get("seed", 0))}})


def write_event_file(folder, curves, second=0, number=0):
    """Writes a TensorBoard event file into a run's folder and returns its path.

    Args:
        folder: The run's folder, created if it is missing.
        curves: Values by tag and step.
        second: The second in the file's name, at which the run was started.
        number: The number in the file's name, of several files of one start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("events.*"))
    writer = EventFileWriter(str(folder))
    for tag, points in curves.items():
        for step, value in points.items():
            scalar = Summary.Value(tag=tag, simple_value=value)
            writer.add_event(Event(step=step, summary=Summary(value=[scalar])))
    writer.close()
    (path,) = set(folder.glob("events.*")) - before
    return path.rename(folder / f"events.out.tfevents.{1_800_000_000 + second}.host.1.{number}")
