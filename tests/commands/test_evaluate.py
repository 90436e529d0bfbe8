"""Tests of `evaluate.py`: its metrics against known values, its record, and its table.

Also tests estimates with standard errors, and quoting of paths for Hydra.
"""

import json
import math
import re
import shutil
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torchmetrics.image import fid

from vaelab import evaluation
from vaelab.commands import arguments, evaluate, generate, train
from vaelab.commands.config_folders import CONF
from vaelab.errors import UserError
from vaelab.evaluation.latents import active_units
from vaelab.evaluation.plan import ESTIMATES
from vaelab.evaluation.record import cell_text, rounded_estimate
from vaelab.evaluation.samplers import Own
from vaelab.evaluation.samples import generate_images
from vaelab.metrics.estimates import column_mean_estimates, mean_estimate
from vaelab.metrics.frechet import frechet_distance
from vaelab.randomness import stream_seed
from vaelab.runs import finished
from vaelab.training.json_files import write_json

SMALL = ["model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "model.latent_dim=4"]


def test_mean_estimates_have_standard_error_of_the_mean():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0]).double()
    assert mean_estimate(values) == pytest.approx({"value": 3.0, "se": math.sqrt(14 / 3) / 2})
    pair = column_mean_estimates(torch.stack([values, 2 * values], 1))
    assert pair["value"] == [3.0, 6.0]
    assert pair["se"] == pytest.approx([math.sqrt(14 / 3) / 2, math.sqrt(14 / 3)])
    assert mean_estimate(values[:1]) == {"value": 1.0, "se": None}


def test_active_units_error_counts_latents_near_threshold():
    codes = torch.randn(1000, 4).double()
    codes = (codes - codes.mean(0)) / codes.std(0, correction=0)
    means = codes * torch.tensor([0.0, 0.05, 0.1001, 1.0]).double()  # active above 0.1
    assert active_units(means) == {"value": 2.0, "se": 1.0}


@pytest.mark.parametrize(
    ("argument", "read"),
    [
        ("run=a", "run=['a']"),
        ("run=a,b c,d(1)", "run=['a','b c','d(1)']"),
        ("run=it's", "run=['it\\'s']"),
        ("run=[a,b]", "run=[a,b]"),
        ("run='a,b'", "run='a,b'"),
        ("run=", "run="),
        ("what=a,b", "what=a,b"),
        ("to=a=b", "to='a=b'"),
        ("to=a b", "to=a b"),
        ("to=a (b", "to='a (b'"),
        ("to={a", "to={a"),
    ],
)
def test_quote_argument_quotes_lists_and_unparsable_values(argument, read):
    assert arguments.quote_argument(argument, ["run"]) == read


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (95.2834, 0.2641, ("95.283", "0.264")),
        (0.0260123, 0.0000927, ("0.026012", "0.000093")),
        (14.0, 0.0, ("14.000", "0.000")),
        (3.25, None, ("3.250", "")),
        (0.0000312, None, ("0.000031", "")),
        (-0.04512, None, ("-0.0451", "")),
        (None, None, ("n/a", "")),
    ],
)
def test_rounded_estimate_shows_two_digits_of_error(value, error, shown):
    assert rounded_estimate(value, error) == shown


def test_table_of_several_runs_tells_near_values_apart():
    values = {"a": 0.00983, "b": 0.01031}
    shown = [cell_text({"value": value, "se": 0.00012}) for value in values.values()]
    assert shown == ["0.00983 ±0.00012", "0.01031 ±0.00012"]
    assert cell_text({"value": None, "se": None}) == "n/a"
    assert cell_text(None) == ""


def run_command(*overrides, command=evaluate):
    """Runs a command, given by its module (default: evaluate), in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{command.__name__}.py", *overrides])
        patch.delenv("HYDRA_FULL_ERROR", raising=False)
        command.main()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with the finished runs `vae (1)` and `cvae (1)`, and their data."""
    folder = tmp_path_factory.mktemp("a sweep")
    for model in ("vae", "cvae"):
        run_command(
            *SMALL,
            f"model={model}",
            f"hydra.run.dir='{folder}/{model} (1)'",
            f"paths.data='{folder}/data'",
            "trainer.max_epochs=2",
            command=train,
        )
    return folder


def measure(folder: Path, *overrides: str) -> dict:
    """Evaluates a run, with the data beside its folder, and returns its evaluation.json."""
    run_command(f"run={folder}", f"paths.data={folder.parent}/data".replace(" ", "\\ "), *overrides)
    return json.loads((folder / "evaluation.json").read_text())


def degenerate_arrays(case: str) -> dict[str, np.ndarray]:
    """Images and labels to which some metrics do not apply; `case` is a key of NOT_APPLICABLE."""
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    rare = (np.arange(60) < 2).astype(int)
    two = np.arange(60) % 2
    return {
        "one test image": {"train_images": images, "train_labels": two,
                           "test_images": images[:1], "test_labels": two[:1]},
        "three test images": {"train_images": images, "train_labels": two,
                              "test_images": images[:3], "test_labels": two[:3]},
        "a rare class": {"train_images": images, "train_labels": rare,
                         "test_images": images[:20], "test_labels": rare[:20] * 0},
        "one class": {"train_images": images, "train_labels": rare * 0},
        "no labels": {"train_images": images},
    }[case]  # fmt: skip


PROBE_METRICS = {"probe", "probe_chance"}
NOT_APPLICABLE = {
    "one test image": PROBE_METRICS | {"active_units"},
    "three test images": PROBE_METRICS,
    "a rare class": PROBE_METRICS,
    "one class": set(),
    "no labels": set(),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", NOT_APPLICABLE)
def test_not_applicable_metrics_have_reason_and_others_are_measured(tmp_path, capsys, case):
    np.savez(tmp_path / "odd.npz", **degenerate_arrays(case))
    folder, where = tmp_path / "run", f"paths.data={tmp_path}/data"
    given = ["data=arrays", f"data.source.path={tmp_path}/odd.npz", "network=mlp", "logger=none"]
    model = "vae" if case == "no labels" else "cvae"
    given += [f"model={model}", "trainer.max_epochs=1"]
    run_command(*SMALL, *given, f"hydra.run.dir={folder}", where, command=train)
    few = ["num_samples=5", "metrics.samples.count=20", "metrics.conditional.per_class=5"]
    what = "what=[likelihood,reconstruction,latents,samples,conditional]"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_command(f"run={folder}", where, what, *few)
    said = capsys.readouterr().out
    found = json.loads((folder / "evaluation.json").read_text())
    estimates = {name: entry for name, entry in found.items() if isinstance(entry, dict)}
    lacking = {name for name, entry in estimates.items() if "reason" in entry}
    assert lacking == NOT_APPLICABLE[case]
    for name in lacking:
        assert found[name]["value"] is None
        assert re.search(rf"\b{name}\b.* n/a: \w+", said)
        assert re.search(rf"{name} +│ +n/a", said)
    assert all(math.isfinite(found[name]["value"]) for name in ("nll", "ssim", "marginal_kl"))
    left_out = {"one class": ["samples", "conditional"], "no labels": ["samples", "conditional"]}
    left_out |= {"one test image": ["samples"], "three test images": ["samples"]}
    for metric in left_out.get(case, []):
        assert f"{metric} left out: " in said


METRICS = OmegaConf.load(CONF / "metrics" / "default.yaml")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nll", "nll is measured by likelihood"),
        ("test/elbo", "elbo is measured by likelihood"),
        ("FID", "fid is measured by inception"),
        ("mig", "mig is measured by disentanglement"),
        ("active_unit", "active_units is measured by latents"),
        ("dci", "dci_disentanglement is measured by disentanglement"),
        ("gmm_precision", "precision is measured by samples"),
        ("latent", "did you mean latents?"),
        ("zzz", "possible are ais, conditional, "),
    ],
)
def test_name_of_an_estimate_gets_the_metric_that_measures_it(name, hint):
    with pytest.raises(UserError) as error:
        evaluation.Plan(METRICS, [name], 0, False, "", print)
    assert str(error.value).startswith(f"{name}: there is no such metric; {hint}")


def assert_hints_know(found: dict) -> None:
    """Asserts that hints know every estimate of an evaluation.json, and each of one metric."""
    names = " ".join(ESTIMATES.values()).split()
    assert ESTIMATES.keys() == METRICS.keys()
    assert len(names) == len(set(names))
    given = {n for n, entry in found.items() if isinstance(entry, dict) and "se" in entry}
    assert given - {"classifier_accuracy"} <= {*names}  # which two metrics give


@pytest.mark.slow
def test_failed_metric_does_not_stop_others(runs, monkeypatch, capsys):
    def raise_user_error(*_, **__):
        raise UserError("it is broken")

    folder = shutil.copytree(runs / "vae (1)", runs.parent / "copied")
    monkeypatch.setattr(evaluation, "reconstruction", raise_user_error)
    with pytest.raises(SystemExit) as exit_:
        measure(folder, "num_samples=5", "what=[reconstruction,latents]")
    assert exit_.value.code == 2
    assert "reconstruction: it is broken" in capsys.readouterr().err
    assert "marginal_kl" in json.loads((folder / "evaluation.json").read_text())


def test_write_json_writes_nonfinite_numbers_as_null(tmp_path):
    numbers = {"a": math.inf, "b": [1.0, -math.inf], "c": {"d": (math.nan, 2)}, "e": "Infinity"}
    write_json(tmp_path / "a.json", numbers)
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert found == {"a": None, "b": [1.0, None], "c": {"d": [None, 2]}, "e": "Infinity"}


def test_evaluate_reuses_results_of_same_settings(runs, monkeypatch):
    folder = runs / "vae (1)"
    few = measure(folder, "num_samples=5", "what=likelihood")
    many = measure(folder, "num_samples=50", "what=likelihood")
    assert -few["elbo"]["value"] >= few["nll"]["value"] >= many["nll"]["value"]
    assert sum(few["rate_per_latent"]["value"]) == pytest.approx(few["rate"]["value"])
    tested = json.loads((folder / "results.json").read_text())
    assert few["rate"]["value"] == pytest.approx(tested["test/rate"], rel=1e-4)
    assert few["elbo"]["value"] == pytest.approx(tested["test/elbo"], abs=1.0)
    assert many["num_samples"] == 50
    assert "num_samples=50" in many["command"]

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "likelihood", lambda *_, **__: pytest.fail("measured again"))
        assert measure(folder, "num_samples=50", "what=likelihood") == many
    again = measure(folder, "num_samples=50", "what=likelihood", "rerun=true")
    assert again == many | {"command": again["command"]}
    other = measure(folder, "num_samples=50", "what=likelihood", "seed=1")
    assert 0 < abs(other["nll"]["value"] - many["nll"]["value"]) < many["nll"]["se"]


@pytest.mark.slow
def test_evaluate_writes_metrics_to_json_and_tensorboard(runs):
    folder = runs / "cvae (1)"
    found = measure(folder, "num_samples=20", "metrics.conditional.images=20")
    board = EventAccumulator(str(folder)).Reload()
    tags = board.Tags()["scalars"]
    for name in ("nll", "rate", "active_units", "mutual_information", "psnr", "density"):
        assert math.isfinite(found[name]["se"])
        assert f"evaluation/{name}" in tags
    (event,) = board.Scalars("evaluation/mutual_information")
    assert event.value == pytest.approx(found["mutual_information"]["value"])
    assert event.step == found["step"] > 0
    assert_hints_know(found)


def test_evaluate_prints_one_table_of_several_runs(runs, capsys):
    (runs / "no run").mkdir(exist_ok=True)
    both = finished.find_runs([str(runs)])
    assert [folder.name for folder in both] == ["cvae (1)", "vae (1)"]
    assert finished.find_runs([str(both[1]), str(runs)]) == both[::-1]
    data = f"paths.data='{runs}/data'"
    run_command(f"run={runs}", data, "num_samples=3", "what=likelihood")
    table = capsys.readouterr().out
    run_command(f"run={both[0]},{both[1]}", data, "num_samples=3", "what=likelihood")
    assert table.endswith(capsys.readouterr().out)
    for name in ("nll", "distortion"):
        (line,) = [line for line in table.splitlines() if f" {name} " in line]
        for folder, cell in zip(both, line.split("│")[2:], strict=False):
            found = json.loads((folder / "evaluation.json").read_text())[name]
            assert cell.strip() == f"{found['value']:.3f} ±{found['se']:.3f}"


def test_evaluation_table_of_many_runs_has_only_main_metrics():
    entry = {"value": 1.0, "se": 0.5}
    records = {
        Path(str(i)): SimpleNamespace(content={"nll": entry, "psnr": entry} if i else {})
        for i in range(9)
    }
    grid = evaluation.evaluation_table(records)
    assert [column.header for column in grid.columns] == ["run", "nll"]
    assert list(grid.columns[1].cells) == ["", *["1.000 ±0.500"] * 8]


def test_latents_metric_with_images_all_uses_every_image(runs):
    model, data = finished.load_run(runs / "cvae (1)")
    subject = evaluation.Subject(model, data, runs, track=lambda batches, _: batches)
    x, y = map(torch.cat, zip(*subject.iterate_all_images("all"), strict=True))
    trained_on = len(data.splits.train_images)
    assert len(x) == len(y) == trained_on + len(data.splits.test_images)
    stored = data.splits.train_images.float() / 255
    certain = (stored == 0) | (stored == 1)  # for these pixels the noise does not matter
    assert torch.equal(x[:trained_on][certain], stored[certain])
    assert torch.equal(y[:trained_on].argmax(1), data.splits.train_labels)
    few = evaluation.latents(subject, num_samples=1, images="test")
    every = evaluation.latents(subject, num_samples=1, images="all")
    assert every["mutual_information"]["se"] < few["mutual_information"]["se"]


def test_damaged_run_does_not_stop_evaluation_of_others(runs, tmp_path, capsys):
    folder = tmp_path / "copied"
    shutil.copytree(runs, folder)
    broken = folder / "cvae (1)" / "checkpoints" / "best.ckpt"
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(SystemExit):
        run_command(
            f"run={folder}", f"paths.data='{runs}/data'", "num_samples=3", "what=likelihood"
        )
    out, err = capsys.readouterr()
    assert "vae (1)" in out
    assert str(broken) in err
    assert "truncated" in err


@pytest.mark.slow
def test_what_all_measures_every_applicable_metric(runs, capsys):
    few = ["samples.count=300", "ais.images=10", "ais.chains=1", "ais.steps=2"]
    found = measure(runs / "vae (1)", "what=all", *(f"metrics.{setting}" for setting in few))
    assert {"nll", "nll_ais", "ssim", "marginal_kl", "copied"} <= found.keys()
    said = capsys.readouterr().out
    for name in ("inception", "conditional", "disentanglement"):
        assert f"{name} left out: " in said


def test_evaluate_discards_results_of_another_checkpoint(runs):
    folder = runs / "vae (1)"
    found = measure(folder, "num_samples=3", "what=[likelihood,latents]")
    file = folder / "evaluation.json"
    file.write_text(json.dumps(found | {"step": found["step"] - 1}))
    assert "active_units" not in measure(folder, "num_samples=3", "what=likelihood")


def test_evaluate_without_metrics_prints_stored_results(runs, capsys):
    before = measure(runs / "vae (1)", "what=latents")
    capsys.readouterr()
    assert measure(runs / "vae (1)", "what=[]") == before
    assert "active_units" in capsys.readouterr().out


def test_evaluate_skips_metric_that_does_not_apply(runs, capsys):
    found = measure(runs / "vae (1)", "what=[latents,conditional]")
    assert "active_units" in found
    assert "conditional left out: " in capsys.readouterr().out


def test_ais_nll_agrees_with_importance_weighted_nll(runs):
    few = ["images=12", "chains=8", "steps=100", "leapfrog_steps=5", "num_samples=500"]
    found = measure(runs / "vae (1)", "what=ais", *(f"metrics.ais.{setting}" for setting in few))
    assert found["nll_ais"]["value"] > 0
    assert abs(found["nll_minus_ais"]["value"]) < 5  # nats, of about 350
    assert 0.2 < found["ais_acceptance"]["value"] < 1


def test_fid_matches_frechet_distance_of_same_features(runs, monkeypatch):
    """A small network replaces Inception; its features are the means of the image's quarters."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    network.num_features = 12
    known = partial(fid.FrechetInceptionDistance, feature=network)
    monkeypatch.setattr(fid, "FrechetInceptionDistance", known)
    found = measure(runs / "cvae (1)", "what=inception", "metrics.inception.count=200")

    model, data = finished.load_run(runs / "cvae (1)")
    subject = evaluation.Subject(model, data, runs)
    torch.manual_seed(stream_seed("evaluate inception", 0))
    sets = [
        torch.cat(list(generate_images(subject, 200, Own()))),
        torch.cat(list(data.grey_images("test", 200))),
    ]
    sets = [network(images.expand(-1, 3, -1, -1)) for images in sets]
    assert found["fid"]["value"] == pytest.approx(frechet_distance(*sets)["value"], rel=1e-3)


def test_inception_metric_without_its_weights_is_an_error(runs, capsys):
    with pytest.raises(SystemExit):
        measure(runs / "vae (1)", "what=inception")
    assert "inception: it takes torch-fidelity and its weights" in capsys.readouterr().err


@pytest.mark.slow
def test_disentanglement_scores_of_sprites_are_between_0_and_1(tmp_path):
    grid = ["size=16", "scales=2", "orientations=3", "positions=6"]
    run_command(
        "data=sprites",
        *(f"data.source.{axis}" for axis in grid),
        *("data.val_size=20", "data.test_size=40", "data.batch_size=64"),
        *SMALL,
        *("trainer.max_epochs=1", f"hydra.run.dir={tmp_path}/run", f"paths.data={tmp_path}/data"),
        command=train,
    )
    settings = ["images=300", "points=20", "repeats=2"]
    found = measure(
        tmp_path / "run",
        "what=disentanglement",
        *(f"metrics.disentanglement.{setting}" for setting in settings),
    )
    scores = ["mig", "mig_chen", "sap", "modularity", "explicitness", "irs"]
    scores += ["beta_vae_score", "factor_vae_score", "dci_disentanglement", "dci_completeness"]
    for name in scores:
        assert 0 <= found[name]["value"] <= 1
        assert math.isfinite(found[name]["se"])
    assert_hints_know(found)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "run has no value"),
        (["run=nowhere"], "nowhere is no run folder"),
        (["run=RUN", "num_samples=0"], "num_samples=0: should be greater than 0"),
        (["run=RUN", "num_sample=1"], "did you mean num_samples?"),
        (["run=RUN", "what=latent"], "latent: there is no such metric; did you mean latents?"),
        (["run=RUN", "what=likelihood,nll"], "nll is measured by likelihood"),
        (["run=RUN", "metrics.disentanglement.repeats=1"], "repeats=1: should be greater than"),
        (["run=RUN", "what=conditional"], "conditional: the model sees no labels"),
        (["run=RUN", "device=gpu"], "device=gpu: this machine has no such device"),
    ],
)
def test_evaluate_refuses_invalid_settings(runs, capsys, overrides, message):
    with pytest.raises(SystemExit) as exit_:
        run_command(*(override.replace("RUN", f"{runs}/vae (1)") for override in overrides))
    assert exit_.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert message in said


TINY_NETWORK = "model.encoder.channels=[4,4]", "model.decoder.channels=[4,4]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        ["model=beta_vae", "network=conv", "likelihood=gaussian", *TINY_NETWORK],
        ["model=cvae", "network=conv", "prior=conditional_normal", *TINY_NETWORK],
        ["model=cvae", "likelihood=gaussian", "data.pixels=grey", "prior=conditional_normal"],
        ["model=vae", "model.latent_dim=2", "model.num_samples=3", "optimizer=adamw"],
        [
            "model=vae",
            "data=arrays",
            "data.source.path=ARRAYS",
            "data.val_size=9",
            "data.batch_size=20",
            *TINY_NETWORK,
        ],
    ],
    ids=" ".join,
)
def test_evaluate_and_generate_support_various_models_and_data(tmp_path, choices):
    images = np.random.default_rng(0).integers(0, 256, (100, 3, 9, 10), np.uint8)
    np.savez(tmp_path / "mine.npz", train_images=images)
    choices = [choice.replace("ARRAYS", str(tmp_path / "mine.npz")) for choice in choices]
    paths = [f"hydra.run.dir={tmp_path}/run", f"paths.data={tmp_path}/data"]
    run_command(*choices, *paths, "data.test_size=50", "trainer.max_steps=3", command=train)
    settings = ["num_samples=2", "what=[likelihood,reconstruction,latents]"]
    found = measure(tmp_path / "run", *settings)
    for name in ("nll", "mse", "ssim", "mutual_information", "marginal_kl"):
        assert math.isfinite(found[name]["value"])
    run_command(f"run={tmp_path}/run", "count=4", command=generate)
    assert len(list((tmp_path / "run" / "generated").glob("*.npz"))) >= 5


def test_evaluate_run_shorter_than_an_epoch_uses_last_weights(tmp_path):
    paths = [f"hydra.run.dir={tmp_path}/run", f"paths.data={tmp_path}/data"]
    run_command(*SMALL, *paths, "trainer.max_steps=3", command=train)
    found = measure(tmp_path / "run", "num_samples=2", "what=likelihood")
    assert found["step"] == 3
