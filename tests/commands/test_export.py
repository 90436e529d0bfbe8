"""Tests of `export.py` and `vaelab.load`, against checkpoints and PyTorch's outputs.

Also tests models on the Hugging Face hub, damaged exports, and exports that name other code.
"""

import json
import shutil
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import onnxruntime
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from torch.testing import assert_close

import vaelab
from vaelab.commands import export, train
from vaelab.commands.config_folders import CONF
from vaelab.distributions.argument_checks import disable_argument_checks
from vaelab.errors import UserError
from vaelab.export import onnx_files
from vaelab.export.model_card import results_section
from vaelab.runs import finished, loading

CONDITIONAL, CONVOLUTIONAL = "conditional", "convolutional"
RUNS = {
    CONDITIONAL: "model=cvae prior=conditional_normal network=mlp likelihood=bernoulli "
    "model.encoder.hidden=[16] model.decoder.hidden=[16]",
    CONVOLUTIONAL: "model=beta_vae network=conv likelihood=gaussian model.encoder.channels=[4,6] "
    "model.decoder.channels=[4,6] model.encoder.features=10 model.decoder.features=10",
}
SHAPE, CLASSES, LATENTS = (2, 9, 11), 3, 4


def run_command(command, *overrides):
    """Runs a command, given by its module, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{command.__name__}.py", *overrides])
        patch.delenv("HYDRA_FULL_ERROR", raising=False)
        command.main()


def get_error(capsys, command, *overrides) -> str:
    """Runs a command, checks for exit code 2, and returns its error message of one line."""
    with pytest.raises(SystemExit) as exit_:
        run_command(command, *overrides)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("error: ")


@pytest.fixture(scope="module")
def exported_runs(tmp_path_factory) -> dict[str, Path]:
    """Run folders by the names of `RUNS`, each with an export; their data file is deleted."""
    folder = tmp_path_factory.mktemp("export")
    images = np.random.default_rng(0).integers(0, 256, (80, *SHAPE), dtype=np.uint8)
    np.savez(folder / "mine.npz", train_images=images, train_labels=np.arange(80) % CLASSES)
    data = f"data=arrays data.source.path={folder}/mine.npz data.val_size=20 data.test_size=20"
    few = f"data.batch_size=8 trainer.max_epochs=2 logger=none model.latent_dim={LATENTS}"
    for name, words in RUNS.items():
        overrides = f"{data} {few} model.optimizer.lr=0.01 {words} hydra.run.dir={folder}/{name}"
        run_command(train, *overrides.split())
    (folder / "mine.npz").unlink()
    for name in RUNS:
        run_command(export, f"run={folder}/{name}")
    return {name: folder / name for name in RUNS}


@pytest.fixture
def export_copy(exported_runs, tmp_path) -> Path:
    """A copy of an export, which a test may change."""
    return shutil.copytree(exported_runs[CONDITIONAL] / "export", tmp_path / "exported")


def edit_json(file: Path, changes) -> None:
    """Rewrites a JSON file after a function has changed its content in place."""
    content = json.loads(file.read_text())
    changes(content)
    file.write_text(json.dumps(content))


def random_batch(count: int) -> dict[str, torch.Tensor]:
    """Random images x [B, C, H, W], one-hot labels y [B, Y] and codes z [B, D]."""
    return {
        "x": torch.rand(count, *SHAPE),
        "y": torch.eye(CLASSES)[torch.arange(count) % CLASSES],
        "z": torch.randn(count, LATENTS),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_load_of_run_and_export_equals_best_checkpoint(exported_runs, name):
    checkpoint = torch.load(exported_runs[name] / "checkpoints" / "best.ckpt", weights_only=True)
    x, y, z = random_batch(6).values()
    outcomes = []
    for folder in (exported_runs[name], exported_runs[name] / "export"):
        model = vaelab.load(str(folder))
        assert not model.training
        assert model.step == checkpoint["global_step"] > 0
        state = model.state_dict()
        assert state.keys() == checkpoint["state_dict"].keys()
        assert all(torch.equal(state[key], checkpoint["state_dict"][key]) for key in state)
        torch.manual_seed(0)
        elbo = model.terms(x.round(), y).elbo
        outcomes.append([elbo, model.image_likelihood(z, y).mean, model.beta, model.bits_offset])
    for ours, theirs in zip(*outcomes, strict=True):
        assert torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs))


def test_load_run_needs_data_file_only_for_batches(exported_runs):
    model, data = finished.load_run(exported_runs[CONVOLUTIONAL])
    assert model.x_shape == SHAPE
    with pytest.raises(UserError, match=r"mine.npz: there is no such file"):
        data.batches("test")


@pytest.mark.parametrize("name", RUNS)
def test_onnx_outputs_match_pytorch(exported_runs, name):
    """The batch size is not one that the export itself compares."""
    model = vaelab.load(exported_runs[name])
    given = random_batch(5)
    x, y, z = given.values()
    q, p = model.latent_posterior(x, y).base_dist, model.image_likelihood(z, y).base_dist
    expected = {
        "encoder": {"mean": q.loc, "scale": q.scale},
        "decoder": {"mean": p.mean},
    }
    if name == CONDITIONAL:
        prior = model.latent_prior(y).base_dist
        assert not torch.equal(prior.loc[0], prior.loc[1])  # after training it depends on y
        expected["decoder"] |= {"logits": p.logits}
        expected["prior"] = {"mean": prior.loc, "scale": prior.scale}
    else:
        expected["decoder"] |= {"scale": model.likelihood.log_scale.exp().expand(5, *SHAPE)}
    folder = exported_runs[name] / "export"
    assert {path.stem for path in folder.glob("*.onnx")} == expected.keys()
    for graph, values in expected.items():
        session = onnxruntime.InferenceSession(folder / f"{graph}.onnx")
        arrays = {node.name: given[node.name].numpy() for node in session.get_inputs()}
        assert ("y" in arrays) == (name == CONDITIONAL)
        found = dict(
            zip([n.name for n in session.get_outputs()], session.run(None, arrays), strict=True)
        )
        assert found.keys() == values.keys()
        for key, value in values.items():
            assert_close(torch.from_numpy(found[key]), value.detach(), rtol=1e-5, atol=1e-5)


def test_export_contains_no_local_paths(exported_runs):
    home, source = str(exported_runs[CONDITIONAL].parent), str(CONF.parent)
    for file in (exported_runs[CONDITIONAL] / "export").iterdir():
        content = file.read_bytes()
        assert home.encode() not in content
        assert source.encode() not in content


def test_results_section_includes_metrics_without_standard_error():
    metrics = {"fid": {"value": 12.0, "se": None}, "mse": {"value": 0.5, "se": 0.1}}
    card = results_section({}, metrics)
    assert "| fid | 12.000 |  |" in card
    assert "| mse | 0.500 | 0.100 |" in card


def test_model_card_and_config_describe_model_and_results(exported_runs):
    folder = exported_runs[CONDITIONAL] / "export"
    results = json.loads((exported_runs[CONDITIONAL] / "results.json").read_text())
    content = json.loads((folder / "config.json").read_text())
    assert content["results"]["test/elbo"] == results["test/elbo"]
    shapes = {"x_shape": [*SHAPE], "pixels": "binary"}
    shapes |= {"classes": {"label": CLASSES}, "numbers": {}}
    shapes |= {"class_names": {"label": [*map(str, range(CLASSES))]}}
    stamp = {"format": 2, "version": vaelab.__version__, "shapes": shapes}
    assert content["vaelab"] == stamp
    card = (folder / "README.md").read_text()
    for words in (
        "# VAE of 9 x 11 x 2 images, 4 latents",
        "| `prior.onnx` | `y` [batch, 3] | `mean` [batch, 4], `scale` [batch, 4] |",
        "model.sample(torch.eye(3))",
        "1 with probability k / 255",
        f"| test/elbo | {results['test/elbo']:.3f} | |",
    ):
        assert words in card


@torch.no_grad()
def test_compare_with_pytorch_refuses_onnx_of_other_weights(exported_runs):
    model = vaelab.load(exported_runs[CONVOLUTIONAL])
    file = exported_runs[CONVOLUTIONAL] / "export" / "decoder.onnx"
    decoder = onnx_files.DistributionModule(model, "decoder", ["z"])
    assert onnx_files.compare_with_pytorch(decoder, file, file).deviation < 1e-5
    for value, difference in ((1e-3, "1.0e-03"), (torch.nan, "nan")):
        model.decoder.out.bias[0] += value
        said = rf"decoder.onnx: .* another mean .* by {difference}"
        with pytest.raises(UserError, match=said), disable_argument_checks():
            onnx_files.compare_with_pytorch(decoder, file, file)


def test_max_deviation_is_relative_and_infinite_for_other_shapes():
    expected = torch.tensor([0.0, 0.5, -200.0])
    found = expected + torch.tensor([0.01, 0, 0])
    assert onnx_files.max_deviation(found, expected) == pytest.approx(0.01)
    found = expected + torch.tensor([0, 0, 4.0])
    assert onnx_files.max_deviation(found, expected) == pytest.approx(0.02)
    assert onnx_files.max_deviation(expected[None], expected) == float("inf")


@pytest.mark.slow
@pytest.mark.parametrize(
    "factor",
    [lambda x: 1 if x.sum() > 0 else 2, lambda x: torch.tensor([[1.0]] * len(x))],
    ids=["branches on values", "fixes the batch size"],
)
def test_write_onnx_files_refuses_network_onnx_cannot_express(exported_runs, tmp_path, factor):
    class Encoder(torch.nn.Module):
        def forward(self, x, y):
            return x.flatten(1)[:, :10] * factor(x)

    model = vaelab.load(exported_runs[CONVOLUTIONAL])
    model.encoder = Encoder()
    with pytest.raises(UserError, match=r"encoder.onnx: ONNX cannot express this \(") as error:
        onnx_files.write_onnx_files(model, tmp_path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_write_onnx_files_deletes_file_that_deviates(exported_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "TOLERANCE", -1)
    with pytest.raises(UserError, match="not kept"):
        onnx_files.write_onnx_files(vaelab.load(exported_runs[CONVOLUTIONAL]), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("what", ["all", "onnx"])
@pytest.mark.parametrize(
    "parts",
    [
        *("posterior=iaf", "model=cvae prior=vamp model.prior.components=3"),
        "likelihood=autoregressive",
    ],
)
def test_onnx_of_flow_or_mixture_is_refused_before_writing(
    exported_runs, build, monkeypatch, capsys, tmp_path, parts, what
):
    model = build(*parts.split(), x_shape=SHAPE, num_classes=CLASSES)
    monkeypatch.setattr(loading, "load_run_model", lambda *_, **__: model)
    given = [f"run={exported_runs[CONDITIONAL]}", f"to={tmp_path}/to", f"what={what}"]
    said = get_error(capsys, export, *given)
    assert said.startswith("what=onnx: the distribution of a flow, a mixture")
    assert not (tmp_path / "to").exists()


# The Hugging Face hub.


def test_load_downloads_from_hub_unless_folder_exists(exported_runs, monkeypatch, tmp_path):
    asked = []

    def fake_download(name, allow_patterns):
        asked.append((name, *allow_patterns))
        return str(exported_runs[CONDITIONAL] / "export")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake_download)
    monkeypatch.chdir(tmp_path)
    assert vaelab.load("user/name").context_dim == CLASSES
    assert asked == [("user/name", "config.json", "model.safetensors")]
    shutil.copytree(exported_runs[CONVOLUTIONAL] / "export", tmp_path / "user" / "name")
    assert vaelab.load("user/name").context_dim == 0  # a local folder comes first
    assert len(asked) == 1


def test_load_refuses_run_folder_on_hub(exported_runs, monkeypatch):
    folder = str(exported_runs[CONDITIONAL])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: folder)
    with pytest.raises(UserError, match=r"is no exported model: there is no config\.json"):
        vaelab.load("user/name", trust=True)


def test_load_error_without_connection_or_huggingface_hub(monkeypatch):
    def raise_not_found(*_, **__):
        raise LocalEntryNotFoundError("Name or service not known\nat length")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", raise_not_found)
    with pytest.raises(UserError, match=r"^user/name: there is no such folder.*not known\)$"):
        vaelab.load("user/name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r'^user/name: .* pip install "vaelab\[hub\]"$'):
        vaelab.load("user/name")


# Checkpoints and exports that cannot be loaded.


def set_newer_version(content):
    """Changes a checkpoint's content to that of a newer version of vaelab, in place."""
    content["vaelab"] |= {"format": 3, "version": "9.9.0"}


def test_checkpoint_of_newer_version_is_refused(exported_runs, tmp_path, capsys):
    folder = shutil.copytree(exported_runs[CONDITIONAL], tmp_path / "run")
    for name in ("best", "last"):
        file = folder / "checkpoints" / f"{name}.ckpt"
        content = torch.load(file, weights_only=True)
        set_newer_version(content)
        torch.save(content, file)
    expected = (
        f"{folder}/checkpoints/{{}}.ckpt was written by vaelab 9.9.0, which is newer than this "
        f"{vaelab.__version__}; upgrade with pip install -U vaelab"
    )
    with pytest.raises(UserError) as error:
        vaelab.load(folder)
    assert str(error.value) == expected.format("best")
    again = [f"hydra.run.dir={folder}", "ckpt=last", f"paths.data={tmp_path}", "logger=none"]
    assert get_error(capsys, train, *again) == expected.format("last")


@pytest.mark.parametrize("content", [{"vaelab": {"format": "2"}}, [torch.zeros(2)], {}])
def test_load_refuses_file_that_is_no_checkpoint(exported_runs, tmp_path, content):
    folder = shutil.copytree(exported_runs[CONDITIONAL], tmp_path / "run")
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match=r"best.ckpt is no checkpoint of vaelab$"):
        vaelab.load(folder)


def truncate(folder, name):
    """Cuts a file to its first half."""
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])


DAMAGED_EXPORTS = {  # name: (function that damages the folder, error message)
    "newer version": (
        lambda folder: edit_json(folder / "config.json", set_newer_version),
        r"config.json was written by vaelab 9.9.0, which is newer than this .* pip install -U",
    ),
    "no format version": (
        lambda folder: edit_json(folder / "config.json", lambda c: c.pop("vaelab")),
        r"config.json is no checkpoint of vaelab$",
    ),
    "config without model": (
        lambda folder: edit_json(folder / "config.json", lambda c: c.pop("model")),
        r"config.json: damaged, or no configuration of a model$",
    ),
    "truncated config": (
        lambda folder: truncate(folder, "config.json"),
        r"config.json: damaged, or no configuration of a model$",
    ),
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        r"is no run folder and no exported model: there is no .hydra/config.yaml and no config",
    ),
    "truncated weights": (
        lambda folder: truncate(folder, "model.safetensors"),
        r"model.safetensors: truncated, or no safetensors$",
    ),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        r"model.safetensors: there is no such file; export with what=safetensors$",
    ),
    "other architecture": (
        lambda folder: edit_json(folder / "config.json", lambda c: c["model"].update(latent_dim=3)),
        r"another architecture: decoder.layers.layers.0.weight is \(16, 7\) in it and \(16, 6\)",
    ),
    "invalid setting": (
        lambda folder: edit_json(folder / "config.json", lambda c: c["model"].update(latent_dim=0)),
        r"config.json: model.latent_dim=0: should be greater than 0$",
    ),
    "missing setting": (
        lambda folder: edit_json(folder / "config.json", lambda c: c["model"].pop("latent_dim")),
        r"config.json: .* missing 1 required keyword-only argument: 'latent_dim'$",
    ),
    "likelihood as model": (
        lambda folder: edit_json(
            folder / "config.json",
            lambda c: c.update(
                model={"_target_": "vaelab.likelihoods.Bernoulli"},
                vaelab=c["vaelab"] | {"shapes": {}},
            ),
        ),
        r"config.json: a Bernoulli is no model$",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED_EXPORTS.values(), ids=DAMAGED_EXPORTS)
def test_load_refuses_damaged_export_in_one_line(export_copy, damage, message):
    damage(export_copy)
    with pytest.raises(UserError, match=message) as error:
        vaelab.load(export_copy)
    assert "\n" not in str(error.value)


# Loading runs no code but that of models' parts.

UNSAFE_TARGETS = [
    {"_target_": "os.mkdir", "path": "CANARY"},
    {
        "_target_": "vaelab.commands.run_folder.os.mkdir",
        "path": "CANARY",
    },  # `os`, which a module of vaelab imports
    {"_target_": "vaelab.training.json_files.write_json", "path": "CANARY", "content": {}},
    {"_target_": "vaelab.data.Digits", "folder": "CANARY"},  # of vaelab, but no part of a model
    {"_target_": "torch.optim.optimizer.torch.save", "obj": 1, "f": "CANARY"},
    {"_target_": "vaelab.autoencoder.nn.Identity"},  # harmless, but not of vaelab
    {"_target_": "canary.Encoder", "_partial_": True},  # a module that the test writes
    {"_target_": ["os", "mkdir"], "path": "CANARY"},
    "${oc.create:'{_target_: os.mkdir, path: CANARY}'}",
]


@pytest.mark.parametrize("code", UNSAFE_TARGETS, ids=str)
@pytest.mark.parametrize("nested", [False, True])
def test_load_refuses_config_with_unsafe_target(export_copy, tmp_path, monkeypatch, code, nested):
    (tmp_path / "canary.py").write_text("open('CANARY', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    inner = {"_target_": "vaelab.networks.MLPEncoder", "_partial_": True, "hidden": [16, code]}
    part, node = ("encoder", inner) if nested else ("likelihood", code)
    edit_json(export_copy / "config.json", lambda c: c["model"].update({part: node}))
    with pytest.raises(UserError, match=rf"config.json: model\.{part}[.=]"):
        vaelab.load(export_copy)
    assert not (tmp_path / "CANARY").exists()


def test_load_imports_custom_class_only_with_trust(exported_runs, tmp_path, monkeypatch):
    (tmp_path / "my_vae.py").write_text("from vaelab.models import VAE\n\nclass Mine(VAE): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = shutil.copytree(exported_runs[CONDITIONAL], tmp_path / "run")
    composed = folder / ".hydra" / "config.yaml"
    composed.write_text(composed.read_text().replace("vaelab.models.VAE", "my_vae.Mine"))
    with pytest.raises(UserError, match=r"model._target_=my_vae.Mine is no part .* trust=True"):
        vaelab.load(folder)
    assert "my_vae" not in sys.modules
    assert type(vaelab.load(folder, trust=True)).__name__ == "Mine"
    run_command(export, f"run={folder}", "what=safetensors", f"to={tmp_path}/mine", "trust=true")
    assert type(vaelab.load(tmp_path / "mine", trust=True)).__name__ == "Mine"


# The command `export.py`.


def test_export_of_safetensors_needs_no_onnx_package(exported_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(onnx_files, "find_spec", lambda name: None)
    run_command(
        export, f"run={exported_runs[CONVOLUTIONAL]}", f"to={tmp_path}/it", "what=safetensors"
    )
    assert f"vaelab.load('{tmp_path}/it')" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "it").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    assert "ONNX" not in (tmp_path / "it" / "README.md").read_text()
    said = get_error(capsys, export, f"run={exported_runs[CONVOLUTIONAL]}", f"to={tmp_path}/onnx")
    assert said.endswith('needs onnx: pip install "vaelab[onnx]"; what=safetensors does not')
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "run has no value; give run=..."),
        (["run=nowhere"], "nowhere is no run folder: there is no nowhere/.hydra/config.yaml"),
        (["run=nowhere", "what=jpeg"], "what=jpeg: should be 'all', 'safetensors' or 'onnx'"),
    ],
)
def test_export_refuses_invalid_settings(capsys, overrides, message):
    assert get_error(capsys, export, *overrides) == message
