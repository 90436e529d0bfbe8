"""Fixtures for tests of reports: sweep folders with finished runs."""

import json

import pytest
from support.sweep_folders import (
    FASHION,
    MNIST,
    grid_jobs,
    run_config,
    run_folder_name,
    write_finished_run,
)


@pytest.fixture
def make_sweep(tmp_path):
    """(jobs, done=None) -> a sweep folder whose first `done` jobs are finished; default all.

    Further arguments are added to the results of each job.
    """

    def make(jobs, done=None, **changes):
        folder = tmp_path / "sweep"
        plan = [{"folder": run_folder_name(job) or "run", "overrides": job} for job in jobs]
        folder.mkdir(exist_ok=True)
        index = {"command": "python train.py -m 'a<b'", "jobs": plan}
        (folder / "sweep.json").write_text(json.dumps(index))
        for job in plan[:done]:
            write_finished_run(folder / job["folder"], job["overrides"], **changes)
        return folder

    return make


@pytest.fixture
def mixed_sweep(make_sweep):
    """Folder of 16 finished runs in four groups that cannot be compared.

    MNIST with binary pixels, with the mass and with the density of grey pixels, and Fashion-MNIST.
    """
    jobs = grid_jobs(model__beta=[0.5, 2], seed=[1, 2], likelihood=["a", "b", "c", "d"])
    configs = {
        "a": run_config(MNIST, "binary", "Bernoulli"),
        "b": run_config(MNIST | {"folder": "/c"}, "grey", "DiscretizedLogistic"),
        "c": run_config(MNIST, "grey", "Gaussian"),
        "d": run_config(FASHION, "binary", "Bernoulli"),
    }
    shift = {"a": 0.0, "b": -900.0, "c": 1500.0, "d": -130.0}
    folder = make_sweep(jobs, done=0)
    for job in jobs:
        kind = job["likelihood"]
        values = {"val/elbo": shift[kind] - float(job["model.beta"]), "config": configs[kind]}
        write_finished_run(folder / run_folder_name(job), job, **values)
    return folder
