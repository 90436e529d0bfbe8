"""`EMA`: averages against a loop, where they are used, and of runs that are resumed."""

from itertools import pairwise

import pytest
import torch
from lightning import Callback
from torch import nn
from torch.testing import assert_close

from vaelab.training.callbacks import EMA, Annealing, Checkpoint, Seeding
from vaelab.training.schedules import linear

EXACT = {"rtol": 0, "atol": 0}


class KeepWeights(Callback):
    """Keeps the model's weights after each batch, and in each validation."""

    def __init__(self):
        self.trained, self.validated = [], []

    def copy(self, module):
        return {name: t.detach().clone() for name, t in module.state_dict().items()}

    def on_train_start(self, trainer, module):
        self.trained.append(self.copy(module))

    def on_train_batch_end(self, trainer, module, *_):
        self.trained.append(self.copy(module))

    def on_validation_end(self, trainer, module):
        self.validated.append(self.copy(module))


class SaveAtStep(Checkpoint):
    """Saves a checkpoint after a step, or in the validation after it, too."""

    def __init__(self, path, step, validating=False):
        super().__init__(str(path.parent))
        self.path, self.step, self.validating = path, step, validating

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step and not self.validating:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer, module):
        super().on_validation_end(trainer, module)
        if trainer.global_step == self.step and self.validating:
            trainer.save_checkpoint(self.path)


@pytest.fixture
def train(fit, build):
    """Returns a function that trains a new small model, with the callbacks given."""

    def train_model(*callbacks, model=None, **options):
        torch.manual_seed(0)
        sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
        if model is None:
            model = build("model=beta_vae", *sizes, x_shape=(1, 8, 8), num_classes=3)
        return fit(Seeding(0), *callbacks, model=model, **options)

    return train_model


def averages_by_loop(trained, decay):
    """The averages after each step, from the weights at first and after each step."""
    found = [trained[0]]
    for n, weights in enumerate(trained[1:], 1):
        share = 1 - min(decay, (1 + n) / (10 + n))
        last = found[-1]
        found.append({k: last[k] + share * (w - last[k]) for k, w in weights.items()})
    return found


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_model_has_averages_in_validation_and_at_the_end(train, decay):
    kept = KeepWeights()
    _, model = train(EMA(decay), kept)
    averages = averages_by_loop(kept.trained, decay)
    assert len(kept.validated) == 2
    for found, step in zip(kept.validated, (5, 10), strict=True):
        assert_close(found, averages[step])
    assert_close(dict(model.state_dict()), averages[10])


def test_averaging_does_not_change_training(train):
    plain, averaged = KeepWeights(), KeepWeights()
    train(plain)
    train(EMA(0.9), averaged)
    for one, other in zip(plain.trained, averaged.trained, strict=True):
        assert_close(one, other, **EXACT)


def test_logged_validation_is_of_the_averages(train, build):
    trainer, model = train(EMA(0.9))
    logged = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("val/")}
    (measured,) = trainer.validate(model, trainer.datamodule, verbose=False)
    assert {name: measured[name] for name in logged} == logged
    assert logged["val/loss"] != train()[0].callback_metrics["val/loss"]


def test_accumulated_batches_are_averaged_once_a_step(train):
    kept, ema = KeepWeights(), EMA(0.5)
    _, model = train(ema, kept, accumulate_grad_batches=2)  # 3 steps an epoch of 5 batches
    changed = [b for a, b in pairwise(kept.trained) if any(not torch.equal(a[n], b[n]) for n in a)]
    assert ema.updates == len(changed) == 6
    assert_close(dict(model.state_dict()), averages_by_loop([kept.trained[0], *changed], 0.5)[-1])


def test_checkpoints_have_averages_as_the_weights_of_the_model(train, tmp_path):
    _, model = train(EMA(0.9), kept := KeepWeights(), Checkpoint(str(tmp_path)))
    for name in ("best.ckpt", "last.ckpt"):
        content = torch.load(tmp_path / name, weights_only=True)
        assert_close(dict(content["state_dict"]), dict(model.state_dict()), **EXACT)
        assert_close(content["ema"]["weights"], kept.trained[-1], **EXACT)


@pytest.mark.parametrize("first", [True, False])  # of the callbacks
@pytest.mark.parametrize(
    ("step", "validating", "options"),
    [
        (7, False, {}),
        (5, True, {"val_check_interval": 5}),
        (4, True, {"val_check_interval": 2}),
        (4, True, {"accumulate_grad_batches": 2, "val_check_interval": 3}),
    ],
)
def test_resumed_weights_and_averages_are_bit_exact(
    train, tmp_path, first, step, validating, options
):
    path, whole, resumed = tmp_path / "mid.ckpt", KeepWeights(), KeepWeights()
    save = SaveAtStep(path, step, validating)
    if first:  # Lightning calls what saves checkpoints last, but not this
        save = Callback()
        save.on_train_batch_end = SaveAtStep(path, step, validating).on_train_batch_end
        save.on_validation_end = lambda trainer, _: (
            trainer.save_checkpoint(path) if validating and trainer.global_step == step else None
        )
    ema = EMA(0.9)
    _, expected = train(save, ema, whole, **options)
    again = EMA(0.9)
    _, found = train(again, resumed, ckpt_path=path, **options)
    assert 1 < len(resumed.trained) < len(whole.trained)
    assert_close(resumed.trained[-1], whole.trained[-1], **EXACT)
    assert_close(dict(found.state_dict()), dict(expected.state_dict()), **EXACT)
    assert again.updates == ema.updates


def test_run_that_is_resumed_after_its_last_step_has_the_averages(train, tmp_path):
    _, expected = train(EMA(0.9), Checkpoint(str(tmp_path)))
    _, found = train(EMA(0.9), Checkpoint(str(tmp_path)), ckpt_path=tmp_path / "last.ckpt")
    assert_close(dict(found.state_dict()), dict(expected.state_dict()), **EXACT)


def test_second_fit_goes_on_with_the_trained_weights(train):
    plain, averaged = KeepWeights(), KeepWeights()
    for callbacks in ([plain], [EMA(0.9), averaged]):
        trainer, model = train(*callbacks, max_epochs=1)
        trainer.fit_loop.max_epochs = 2
        trainer.fit(model, trainer.datamodule)
    assert len(plain.trained) == 12  # with those at the two starts
    assert_close(averaged.trained[-1], plain.trained[-1], **EXACT)


def test_averages_of_a_run_without_them_begin_with_its_weights(train, tmp_path):
    path = tmp_path / "mid.ckpt"
    train(SaveAtStep(path, 5))
    _, found = train(EMA(0.5), kept := KeepWeights(), ckpt_path=path)
    assert_close(dict(found.state_dict()), averages_by_loop(kept.trained, 0.5)[-1])


def test_annealed_weight_stays_as_configured(train):
    seen = []

    class KeepBeta(Callback):
        def on_validation_start(self, trainer, module):
            seen.append(float(module.beta))

    _, model = train(EMA(0.9), Annealing("beta", linear, 1, "fraction"), KeepBeta())
    assert {*seen, float(model.beta)} == {4.0}


def test_statistics_of_a_batch_norm_are_averaged_and_integers_copied(train, build):
    sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
    model = build("model=vae", *sizes, x_shape=(1, 8, 8), num_classes=3)
    model.posterior = nn.Sequential(nn.BatchNorm1d(8), model.posterior)
    _, model = train(EMA(0.5), kept := KeepWeights(), model=model)
    averages = averages_by_loop(kept.trained, 0.5)[-1]
    for name in ("posterior.0.running_mean", "posterior.0.running_var"):
        assert_close(model.state_dict()[name], averages[name])
    assert model.posterior[0].num_batches_tracked == 10


def test_data_of_the_first_training_are_in_the_averages(train, build):
    """Pseudo-inputs are set from images after callbacks were set up."""
    sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
    model = build("prior=vamp", *sizes, x_shape=(1, 8, 8), num_classes=3)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    train(EMA(0.9), kept := KeepWeights(), model=model, max_steps=1)
    changed = [n for n in before if not torch.equal(before[n], kept.trained[0][n])]
    assert changed
    averages = averages_by_loop(kept.trained, 0.9)[-1]
    assert_close({n: model.state_dict()[n] for n in changed}, {n: averages[n] for n in changed})
