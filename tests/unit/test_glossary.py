"""Tests that docs/glossary.md has every number that the code logs, with its unit, and no other."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import vaelab
from vaelab.commands.config_folders import CONF
from vaelab.evaluation.plan import ESTIMATES
from vaelab.report.directions import BETTER, better_direction
from vaelab.report.units import unit
from vaelab.runs.resume import UNMEASURED
from vaelab.training.window import SCALARS

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
MODELS = sorted(path.stem for path in CONF.glob("model/[!_]*.yaml"))
PARTS = "Training, validation, test"
BESIDE = {"likelihood": ["num_samples"], "samples": ["classifier_accuracy"]}
"""Numbers in evaluation.json that are no estimates, by the metric of the table they are in."""


def read_glossary():
    """Returns the rows of each table as (name, unit, better), by the heading above it."""
    found, heading = {}, ""
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").strip("`")
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert len(cells) == 5, line
            found.setdefault(heading, []).append((cells[0].strip("`"), cells[1], cells[4]))
    return found


def names(heading):
    """Returns the names in the table below a heading, sorted."""
    return sorted(name for name, _, _ in read_glossary()[heading])


def logged_names(model):
    """Returns the names that a model logs of validation; of levels `rate_1` alone."""
    model.eval()
    if hasattr(model, "num_images"):
        model.num_images = 8
    x = torch.randint(2, (8, *model.x_shape)).float()
    y = torch.eye(model.y_dim)[torch.arange(8) % model.y_dim]
    with torch.no_grad():
        model.on_validation_epoch_start()
        model.validation_step((x, y), 0)
    means, model.rate_per_latent = model.totals.compute_means()
    return {re.sub(r"^rate_\d+$", "rate_1", name) for name in model.evaluation_scalars(means)}


def test_glossary_has_every_number_that_variants_log_and_no_other(build):
    small = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
    logged = set(SCALARS)
    for model in MODELS:
        words = [f"model={model}", *small]
        words += ["model.discriminator.hidden=[8]"] if model == "factor_vae" else []
        logged |= logged_names(build(*words, x_shape=(1, 8, 8), num_classes=3))
    assert sorted(logged) == names(PARTS)


def test_glossary_has_every_estimate_of_an_evaluation_and_no_other():
    for metric, estimates in ESTIMATES.items():
        assert names(metric) == sorted([*estimates.split(), *BESIDE.get(metric, [])])


def test_glossary_agrees_with_the_report_on_units_and_which_way_is_better():
    for rows in read_glossary().values():
        for name, said, better in rows:
            assert said == unit(name), name
            assert (better or "none") == better_direction(name), name


def test_directions_have_no_name_that_the_glossary_lacks():
    assert set(BETTER) <= {
        name.rpartition("/")[2] for rows in read_glossary().values() for name, *_ in rows
    }


def test_rate_of_any_level_is_in_nats():
    assert unit("test/rate_12") == "nats per image"


@pytest.mark.parametrize("name", [*ESTIMATES["samples"].split(), "fid"])
def test_sampler_in_front_of_a_name_changes_neither_unit_nor_side(name):
    assert unit(f"gmm_{name}") == unit(name)
    assert better_direction(f"gmm_{name}") == better_direction(name)


@pytest.mark.slow
def test_glossary_has_every_number_in_results_json_and_in_curves(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    overrides = ["logger=csv", "trainer.log_every_n_steps=1", "data.batch_size=16"]
    run = vaelab.fit(
        images,
        model="beta_vae",
        network="mlp",
        likelihood="bernoulli",
        annealing="linear",
        epochs=1,
        folder=tmp_path / "run",
        overrides=overrides,
    )
    numbers = {k for k, v in run.results.items() if type(v) in (int, float) and k != UNMEASURED}
    of_parts = {f"{part}/{name}" for part in ("val", "test") for name in names(PARTS)}
    alone = {"train/images_per_second"}
    assert numbers - of_parts - alone == set(names("results.json"))
    header = (tmp_path / "run" / "metrics.csv").read_text().partition("\n")[0].split(",")
    curves = {re.sub(r"^train/beta$", "train/WEIGHT", name) for name in header}
    known = {f"{part}/{name}" for part in ("train", "val", "test") for name in names(PARTS)}
    assert curves - known == {*names("Training alone"), "step"}
