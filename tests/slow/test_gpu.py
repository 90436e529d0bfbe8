"""Training on a CUDA GPU: every choice of a part, waits for the device, bf16, and resumed bits.

Skipped without such a GPU; `python benchmarks/on_gpu` runs them on one.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback
from support.choices import NEEDED_PARTS, choices_of
from torch.distributions import Distribution

from vaelab.acceleration.compilation import compile_loss
from vaelab.data.columns import Column
from vaelab.data.splits import Splits
from vaelab.training.callbacks import EMA, Annealing, Seeding, Speed
from vaelab.training.schedules import linear

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]
CONTENDERS = Path(__file__).parents[2] / "benchmarks" / "contenders"
GROUPS = ("model", "network", "likelihood", "prior", "posterior", "condition", "optimizer")
CHOICES = choices_of(GROUPS)
SMALL = ["model.encoder.hidden=[64]", "model.decoder.hidden=[64]"]
BATCH = 20
BF16_NATS = 0.1
"""How far the ELBO of one model may be in bf16 from that in float32, in nats per image of 784."""
TRAINED_BF16_NATS = 1.0
"""The same of two models, trained for 100 steps in bf16 and in float32, of the same noise."""


@pytest.fixture(autouse=True)
def as_in_training(monkeypatch):
    """Turns off argument checks, which wait for the device; restores torch's global settings."""
    monkeypatch.setenv(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # Lightning sets it, too, and leaves it
    Distribution.set_default_validate_args(False)
    yield
    torch.cuda.set_sync_debug_mode("default")
    torch.use_deterministic_algorithms(False)


def blobs(count: int = 200) -> Splits:
    """Returns images [1, 28, 28] of a bright blob, always the same, with labels and places."""
    random = torch.Generator().manual_seed(0)
    place = 6 + 16 * torch.rand(count, 2, generator=random)
    across = torch.arange(28)
    squares = (across - place[:, :, None]).square().neg().div(20).exp()  # [count, 2, 28]
    images = (255 * squares[:, 0, :, None] * squares[:, 1, None]).to(torch.uint8)[:, None]
    labels = torch.arange(count) % 10
    columns = {"place": Column(place / 28, place[:0])}
    return Splits(images, labels, images[:0], labels[:0], num_classes=10, columns=columns)


@pytest.fixture
def train(fit, build):
    """(*callbacks, overrides, compiled, options of the trainer) -> (trainer, model), on the GPU.

    Two epochs of 9 batches by default, from the same first weights at every call.
    """

    def train_on_gpu(*callbacks, overrides=(), compiled=False, **options):
        torch.manual_seed(0)
        numbers = {"place": 2} if "condition=continuous" in overrides else None
        columns = {"numbers": True} if numbers else {"columns": ["label"]}
        model = build(*overrides, num_classes=0 if numbers else 10, numbers=numbers)
        if compiled:
            model.loss = compile_loss(model.loss)
        data = {"source": blobs, "batch_size": BATCH, "val_size": 10, "test_size": 10, **columns}
        options = {"accelerator": "gpu", "devices": 1, "log_every_n_steps": 1000} | options
        return fit(
            *(Seeding(0), Speed(), *callbacks),
            model=model,
            data=data | {"pixels": model.pixels},
            **options,
        )

    return train_on_gpu


class NoWaiting(Callback):
    """Makes each wait for the device an error, but for those up to an epoch's first batch's end.

    Allowed are the first batch, for which the order of the images is copied to the device (and
    once the range of its pixels is read), logging steps, of which there are none here, and
    validation.
    """

    def __init__(self) -> None:
        self.watched = 0
        self.devices: set[str] = set()

    def on_train_batch_end(self, trainer, module, *_):
        self.devices |= {p.device.type for p in module.parameters()}  # the CPU after training
        self.watched += torch.cuda.get_sync_debug_mode() == 2
        torch.cuda.set_sync_debug_mode("default" if trainer.is_last_batch else "error")


@pytest.mark.parametrize("choice", CHOICES)
def test_choice_trains_on_gpu_without_waiting_within_an_epoch(train, choice):
    watch = NoWaiting()
    trainer, _ = train(watch, overrides=[choice, *NEEDED_PARTS.get(choice, [])])
    assert trainer.global_step == 18
    assert watch.watched == 16
    assert watch.devices == {"cuda"}
    assert trainer.callback_metrics["val/loss"].isfinite()


@pytest.mark.parametrize(
    "settings", ["annealing and averages", "bf16", "clipping", "clipping in bf16", "compiled"]
)
def test_settings_train_on_gpu_without_waiting_within_an_epoch(train, settings):
    watch = NoWaiting()
    callbacks, overrides, options = {
        "annealing and averages": (
            [Annealing("beta", linear, 1, "epochs"), EMA(0.9)],
            ["model=beta_vae"],
            {},
        ),
        "bf16": ([], [], {"precision": "bf16"}),
        "clipping": ([], [], {"gradient_clip_val": 1.0, "accumulate_grad_batches": 2}),
        "clipping in bf16": ([], [], {"gradient_clip_val": 1.0, "precision": "bf16"}),
        "compiled": ([], [], {"compiled": True}),
    }[settings]
    train(watch, *callbacks, overrides=overrides, **options)
    assert watch.watched == 16


def test_a_wait_within_an_epoch_is_an_error(train):
    class Reads(Callback):
        """Reads the loss of every batch."""

        def on_train_batch_end(self, trainer, module, outputs, *_):
            outputs["loss"].item()

    with pytest.raises(RuntimeError, match="synchroniz"):
        train(Reads(), NoWaiting())


def test_elbo_in_bf16_is_close_to_float32(train):
    """Of one model trained for 100 steps, and of two, each trained in its precision."""
    options = {"overrides": SMALL, "max_epochs": 12}
    trainer, model = train(**options)
    other, _ = train(precision="bf16", **options)
    elbos = [float(t.callback_metrics["val/elbo"]) for t in (trainer, other)]
    assert elbos[0] == pytest.approx(elbos[1], abs=TRAINED_BF16_NATS)

    model = model.cuda().eval()
    x, y = next(iter(trainer.datamodule.batches("train")))
    found = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=enabled):
            found.append(model.terms(x.cuda(), y.cuda(), 20).elbo.mean().item())
    assert found[0] != found[1]
    assert found[0] == pytest.approx(found[1], abs=BF16_NATS)


@pytest.mark.parametrize(
    ("overrides", "options"),
    [
        (SMALL, {}),
        (SMALL, {"precision": "bf16"}),
        (SMALL, {"compiled": True}),
        (["network=conv"], {}),
        (["network=resnet"], {"precision": "bf16"}),
        (["model=vq_vae"], {}),
    ],
    ids=["mlp", "mlp bf16", "mlp compiled", "conv", "resnet bf16", "vq_vae"],
)
def test_resume_mid_epoch_on_gpu_is_bit_exact_with_deterministic(
    train, tmp_path, overrides, options
):
    class SaveAtStep13(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 13:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    options = {"overrides": overrides, "deterministic": True, **options}
    whole, expected = train(SaveAtStep13(), **options)
    resumed, found = train(ckpt_path=tmp_path / "mid.ckpt", **options)
    assert whole.global_step == resumed.global_step == 18
    for name, weight in expected.state_dict().items():
        assert torch.equal(weight, found.state_dict()[name]), name
    assert torch.equal(*(t.callback_metrics["val/elbo"] for t in (whole, resumed)))


def test_cuda_graph_contender_trains_as_by_hand_does(tmp_path, monkeypatch):
    """The noise in its graph is new, and its gradients are not added up, from step to step."""
    monkeypatch.syspath_prepend(str(CONTENDERS))
    from loops import ByHand, CudaGraph

    np.savez(tmp_path / "x.npz", train_images=blobs(200).train_images.numpy())
    settings = {"network": "mlp", "hidden": 64, "latents": 5, "batch_size": BATCH}
    settings |= {"device": "cuda", "images": str(tmp_path / "x.npz")}
    losses = []
    for kind in (ByHand, CudaGraph):
        torch.manual_seed(0)
        loop = kind(settings)
        for _ in range(300):
            loop.step()
        images = blobs(200).train_images.cuda()
        with torch.no_grad():
            losses.append(loop.loss((images > 127).float()).item())
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
