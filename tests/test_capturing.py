"""A captured step trains as the step itself, by graphs that are lists of operations on a CPU."""

from types import SimpleNamespace

import pytest
import torch
from conftest import splits
from lightning import Callback
from recording import Recording, on_the_cpu
from test_configs import CHOICES, NEEDS
from test_stepping import ours
from torch.distributions import Distribution
from torch.testing import assert_close

from vaelab.acceleration import capturing
from vaelab.data import Images
from vaelab.data.sprites import Sprites
from vaelab.errors import UserError
from vaelab.models import VAE
from vaelab.training.callbacks import Checkpoint

KINDS = ("model", "network", "likelihood", "posterior", "prior", "condition", "optimizer")


@pytest.fixture
def graphs(monkeypatch):
    """Those that are captured."""
    Distribution.set_default_validate_args(False)  # as train.py; the checks wait for the device
    return on_the_cpu(monkeypatch)


def small(build, *overrides, graph=True):
    torch.manual_seed(0)
    sizes = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
    model = build("model=beta_vae", *sizes, *overrides, x_shape=(1, 8, 8), num_classes=3)
    model.graph = graph
    return model


@pytest.mark.parametrize("precision", [32, "bf16"])
def test_training_comes_to_the_same_bits(fit, build, graphs, precision):
    """With a weight that is annealed, and in all that is logged."""
    options = {"precision": precision, "log_every_n_steps": 2, "max_epochs": 4}
    one, expected = fit(*ours(), model=small(build, graph=False), **options)
    other, found = fit(*ours(), model=small(build), **options)
    (graph,) = graphs
    assert graph.replays == other.global_step - capturing.WARM_UP == 17
    assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
    speed = "train/images_per_second"
    logged, wanted = dict(other.callback_metrics), dict(one.callback_metrics)
    assert {"train/loss", "val/elbo"} < logged.keys()
    del logged[speed], wanted[speed]
    assert logged == wanted


@pytest.mark.parametrize("kind", [c for c in CHOICES if c.partition("=")[0] in KINDS])
def test_every_part_can_be_captured(build, graphs, kind):
    """So none waits for the device in a step, or brings it numbers."""
    expected, found = (trained(build, kind, captured) for captured in (False, True))
    assert len(graphs) == 1
    assert_close(found, expected, rtol=0, atol=0)


def trained(build, choice, captured):
    """The weights after eight batches."""
    torch.manual_seed(0)
    y_is = {"num_classes": 3}
    if choice == "condition=continuous":
        y_is = {"num_classes": 0, "numbers": {"size": 3}}
    model = build(choice, *NEEDS.get(choice, []), x_shape=(1, 16, 16), **y_is)
    model.num_images = 80  # for beta-TCVAE
    model._trainer = SimpleNamespace(optimizers=[model.configure_optimizers()])
    step = capturing.Captured(model.learn, model.trainer.optimizers[0]) if captured else model.learn
    for batch in range(8):
        torch.manual_seed(batch)
        x = torch.rand(10, 1, 16, 16)
        x = x.round() if model.pixels == "binary" else (x * 255).round() / 255
        row = step(x, torch.eye(3)[torch.randint(3, (10,))])
        assert row[0, 2].isfinite()  # the loss; the rate of a deterministic code is not
    return model.state_dict()


@pytest.mark.parametrize("pixels", ["dequantized", "grey"])  # binary ones are not drawn so on a GPU
@pytest.mark.parametrize("source", [splits, Sprites(16, 2, 3, 3)])
def test_drawing_batches_waits_for_nothing(pixels, source):
    data = Images(source=source, batch_size=10, val_size=20, test_size=20, pixels=pixels)
    data.setup("fit")
    order = data.train.order()  # once an epoch, on the host
    with Recording() as recording:
        for x, y in data.train.make(order, 0):
            assert len(x) == len(y)
    assert recording.done


def test_other_options_are_another_graph(build, graphs):
    """And so is a batch of another shape; the weights are those of the step itself."""
    found = {}
    for captured in (False, True):
        model = small(build)
        model._trainer = SimpleNamespace(optimizers=[model.configure_optimizers()])
        (optimizer,) = model.trainer.optimizers
        step = capturing.Captured(model.learn, optimizer) if captured else model.learn
        y = torch.eye(3)[torch.arange(12) % 3]
        for batch in range(12):
            torch.manual_seed(batch)
            optimizer.param_groups[0]["lr"] = 1e-3 if batch < 6 else 1e-2
            count = 10 if batch < 9 else 12
            step(torch.rand(count, 1, 8, 8).round(), y[:count])
        found[captured] = model.state_dict()
    assert [graph.replays for graph in graphs] == [3, 3, 3]
    assert not any(group["capturable"] for group in optimizer.param_groups)
    assert_close(found[True], found[False], rtol=0, atol=0)


def test_either_goes_on_from_a_checkpoint_of_the_other(fit, build, graphs, tmp_path):
    _, expected = fit(*ours(), model=small(build), max_epochs=4)
    for first in (False, True):
        folder = tmp_path / str(first)
        fit(*ours(), Checkpoint(str(folder)), model=small(build, graph=first), max_epochs=2)
        rest = small(build, graph=not first)
        trainer, found = fit(*ours(), model=rest, max_epochs=4, ckpt_path=folder / "last.ckpt")
        assert trainer.global_step == 20
        assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


def test_a_fit_leaves_no_graph_behind(fit, build, graphs):
    model = small(build)
    before = set(vars(model))
    for count in (1, 2):
        fit(*ours(), model=model)
        assert len(graphs) == count
    assert "captured" not in set(vars(model)) - before


class Watcher(Callback):
    """Wants to see every batch."""

    def on_train_batch_end(self, *_):
        pass


@pytest.mark.parametrize(
    ("wanted", "callbacks", "optimizer"),
    [
        ({"gradient_clip_val": 1.0}, [], []),
        ({}, [Watcher()], []),
        ({}, [], ["model.optimizer.fused=false"]),
        ({}, [], ["model.optimizer._target_=torch.optim.SGD"]),
    ],
)
def test_one_is_told_where_it_has_no_effect(fit, build, graphs, wanted, callbacks, optimizer):
    model = small(build, *optimizer)
    with pytest.warns(UserWarning, match="graph=true has no effect: a captured step takes a fused"):
        trainer, _ = fit(*ours(), *callbacks, model=model, **wanted)
    assert trainer.global_step == 10
    assert not graphs


def test_a_step_that_waits_for_the_device_is_refused(fit, build, graphs):
    class Waits(VAE):
        __module__ = "vaelab.models.waits"  # or it would be watched

        def objective(self, terms):
            return super().objective(terms) * (2 if terms.rate.mean() > 0 else 1)

    model = small(build)
    model.__class__ = Waits
    with pytest.raises(UserError, match=r"graph=true: this .* is no CUDA graph: aten\._l"):
        fit(*ours(), model=model)
