"""Tests of the configurations in conf/: every choice is valid and trains for a step.

Also tests `check_node` against a signature, and the order of defaults and overrides.
"""

import sys
from pathlib import Path

import hydra
import pytest
from hydra import initialize_config_dir
from hydra.utils import instantiate
from support.choices import NEEDED_PARTS, choices_of

from vaelab.commands import evaluate, generate, train
from vaelab.commands.config_folders import CONF
from vaelab.errors import UserError
from vaelab.runs import validation
from vaelab.runs.targets import import_target

REQUIRED = {
    "data=arrays": ["data.source.path=mine.npz"],
    "data=dataset": ["data.source._target_=torchvision.datasets.FakeData"],
    "data=folder": ["data.source.path=photos"],
    "data=huggingface": ["data.source.name=ylecun/mnist"],
    "data=torchvision": ["data.source.name=SVHN"],
    "data=signals": ["data.source.path=mine.npy"],
    "data=vectors": ["data.source.path=mine.csv"],
    **NEEDED_PARTS,
}
GROUPS = {path.parent.name for path in CONF.glob("*/*.yaml")} - {"sampler", "reproduce"}
"""All but those of other commands."""
CHOICES = choices_of(sorted(GROUPS))
FIXED_PRIOR_MODELS = ("ae", "beta_tcvae", "rae", "vq_vae")  # none, factorised, or of codes
MODELS = [choice.partition("=")[2] for choice in CHOICES if choice.startswith("model=")]


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
def test_check_config_accepts_every_choice(compose, choice):
    cfg = compose(choice, *REQUIRED.get(choice, []))
    if choice.startswith("logger="):
        cfg.logger = None  # its folder is an interpolation that needs Hydra's runtime
    validation.check_config(cfg, train.settings_schema)


@pytest.mark.parametrize("sampler", ["prior", "gmm", "flow"])
@pytest.mark.parametrize(("name", "command"), [("evaluate", evaluate), ("generate", generate)])
def test_check_config_accepts_every_sampler(name, command, sampler):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose(name, [f"sampler={sampler}", "run=outputs"])
    validation.check_config(cfg, command.settings_schema)


TRAINED_GROUPS = ("model", "network", "likelihood", "prior", "posterior", "condition", "optimizer")
SMALL_SPRITES = ["data=sprites", "data.source.size=16", "data.source.positions=3"]
SMALL_SPRITES += ["data.val_size=100", "data.test_size=100"]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "parts",
    [
        "network=conv likelihood=gaussian condition=one_hot",
        "network=gated_mlp likelihood=discretized_logistic condition=embedding",
    ],
)
def test_every_model_trains_with_other_networks_and_likelihoods(train_one_step, model, parts):
    prior = [] if model in FIXED_PRIOR_MODELS else ["prior=conditional_normal"]
    train_one_step(f"model={model}", *parts.split(), *prior)


@pytest.mark.slow
@pytest.mark.parametrize("choice", [c for c in CHOICES if c.partition("=")[0] in TRAINED_GROUPS])
def test_every_choice_trains(train_one_step, choice):
    more = REQUIRED.get(choice, []) + (SMALL_SPRITES if choice == "condition=continuous" else [])
    train_one_step(choice, *more)


@pytest.fixture
def train_one_step(monkeypatch, tmp_path_factory):
    """(*overrides): trains for one batch of each loop, with trainer=fast.

    Fails if that leaves any file but the configuration and the log.
    """

    def train_fast(*overrides):
        folder, data = tmp_path_factory.mktemp("run"), tmp_path_factory.getbasetemp() / "digits"
        given = ["trainer=fast", f"hydra.run.dir={folder}", f"paths.data={data}", *overrides]
        monkeypatch.setattr(sys, "argv", ["train.py", *given])
        train.main()
        left = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"]
        assert {path.parent.name for path in left} == {".hydra"}

    return train_fast


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adamw", "annealing=cyclical", "model.num_samples=3"],
        ["precision=bf16", "annealing=cosine"],
        ["trainer=cpu", "trainer.gradient_clip_val=1", "trainer.accumulate_grad_batches=4"],
        ["logger=csv", "annealing=sigmoid", "annealing.unit=epochs", "annealing.duration=1"],
        ["model=beta_vae", "model.beta=0"],
        ["model=beta_vae", "model.beta=0.5"],
        ["likelihood=gaussian", "model.likelihood.scale=0.5", "data.pixels=grey"],
        ["model.optimizer._target_=torch.optim.SGD", "~model.optimizer.fused"],
    ],
)
def test_train_with_common_settings_writes_checkpoint(monkeypatch, tmp_path_factory, overrides):
    folder, data = tmp_path_factory.mktemp("run"), tmp_path_factory.getbasetemp() / "digits"
    small = ["model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "trainer.max_epochs=2"]
    paths = [f"hydra.run.dir={folder}", f"paths.data={data}", "callbacks.board=null"]
    monkeypatch.setattr(sys, "argv", ["train.py", *small, *paths, *overrides])
    train.main()
    assert (folder / "checkpoints" / "best.ckpt").exists()


def test_overrides_take_precedence_over_data_set_defaults(compose):
    cfg = compose("data=cifar10")
    assert cfg.model.likelihood._target_.endswith("Gaussian")
    assert cfg.model.encoder._target_.endswith("ConvEncoder")
    cfg = compose("data=cifar10", "likelihood=bernoulli", "network=mlp", "model.latent_dim=3")
    assert cfg.model.likelihood._target_.endswith("Bernoulli")
    assert cfg.data.pixels == "binary"
    assert cfg.model.encoder._target_.endswith("MLPEncoder")
    assert cfg.model.latent_dim == 3


def test_overrides_reach_model_and_optimizer(compose):
    cfg = compose("model=beta_vae", "model.beta=2.5", "model.latent_dim=3", "optimizer=adamw")
    model = instantiate(cfg.model, x_shape=(1, 8, 8), classes={}, numbers={}, pixels="binary")
    assert float(model.beta) == 2.5
    assert model.posterior.params.out_features == 6
    assert model.configure_optimizers().defaults["weight_decay"] == 0.01


def parts(*, count: int, name: str = "x", ratio: float | None = None) -> None:
    """A `_target_` whose signature is the schema of its settings."""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 1}, None),
        ({"count": 1, "ratio": 2}, None),
        ({"count": 1, "ratio": None}, None),
        ({"count": "1"}, "part.count=1: should be a valid integer"),
        ({"count": True}, "part.count=true: should be a valid integer"),
        ({"count": 1.0}, "part.count=1.0: should be a valid integer"),
        ({"count": 1, "ratio": "half"}, "part.ratio=half"),
        ({"count": 1, "nome": "y"}, "part.nome=y: parts has no such setting; did you mean name?"),
    ],
)
def test_check_node_validates_settings_by_signature_of_target(settings, message):
    node = {"_target_": f"{__name__}.parts", **settings}
    if message is None:
        validation.check_node(node, "part")
    else:
        with pytest.raises(UserError) as refused:
            validation.check_node(node, "part")
        assert message in str(refused.value)


def test_every_vaelab_target_in_conf_can_be_imported():
    for path in CONF.rglob("*.yaml"):
        for line in path.read_text().splitlines():
            if "_target_: vaelab." in line:
                assert import_target(line.split()[-1]), Path(path)


@pytest.mark.parametrize("trainer", ["gpu", "ddp"])
def test_gpu_trainers_default_to_compile_and_bf16(compose, trainer):
    cfg = compose(f"trainer={trainer}")
    assert (cfg.compile, cfg.precision, cfg.trainer.accelerator) == (True, "bf16", "gpu")
    cfg = compose(f"trainer={trainer}", "compile=false", "precision=32")
    assert (cfg.compile, cfg.trainer.precision) == (False, 32)
