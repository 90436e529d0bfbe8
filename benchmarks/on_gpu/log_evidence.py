"""Log evidence of test images, as evaluate.py measures it, against its decoder alone.

The bare products are those of the decoder's dense layers, for as many latents in chunks of the
same size.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from rows import DEVICE, FOLDER, IS_DRY, seconds_of, tell_row
from torch import nn

import vaelab
from vaelab.data import Images
from vaelab.data.splits import Splits
from vaelab.elbo import ELBO
from vaelab.evaluation import likelihood
from vaelab.evaluation.subject import Subject
from vaelab.metrics.chunking import images_per_chunk

Shape = tuple[int, int, int]
CASES: list[tuple[str, Shape, list[str], int, int]] = [  # images, and samples of each
    (
        "mlp 784-400-20",
        (1, 28, 28),
        ["model.encoder.hidden=[400]", "model.decoder.hidden=[400]", "model.latent_dim=20"],
        2_000,
        5_000,
    ),
    (
        "resnet 3,072-128",
        (3, 32, 32),
        ["network=resnet", "likelihood=bernoulli", "model.latent_dim=128"],
        500,
        100,
    ),
]
AT_ONCE = 100  # test images, in `vaelab.evaluation`


def untracked(steps: Iterable[Any], _: str) -> Iterable[Any]:
    """Returns steps without a progress bar."""
    return steps


def build_subject(shape: Shape, overrides: list[str], images: int) -> Subject:
    """Builds an untrained model on the device, with test images of noise."""
    model = vaelab.build("vae", x_shape=shape, classes=0, overrides=overrides).eval().to(DEVICE)
    noise = torch.randint(256, (images, *shape), dtype=torch.uint8)
    none = torch.zeros(images, dtype=torch.int64)
    data = Images(
        source=lambda: Splits(noise, none, noise, none, num_classes=0),
        batch_size=AT_ONCE,
        val_size=10,
        pixels=model.pixels,
    )
    data.device = torch.device(DEVICE)
    return Subject(model, data, FOLDER, track=untracked)


def chunk_sizes(model: ELBO, images: int, samples: int) -> list[int]:
    """Returns the numbers of latents that the evaluation decodes at a time.

    The images are a multiple of those that it takes at a time, or fewer.
    """
    taken = min(images, AT_ONCE)
    most = max(1, images_per_chunk(model.x_shape, torch.device(DEVICE)) // taken)
    chunks = [min(most, samples - start) for start in range(0, samples, most)]
    return [count * taken for count in chunks] * (images // taken)


def decoding(model: ELBO, sizes: list[int]) -> Callable[[], None]:
    """Returns a function that decodes so many latents in chunks, and does no more."""
    z = torch.randn(max(sizes), model.latent_dim, device=DEVICE)
    y = torch.zeros(len(z), 0, device=DEVICE)

    @torch.no_grad()
    def decode() -> None:
        for size in sizes:
            model.decoder(z[:size], y[:size])

    return decode


def products(model: ELBO, sizes: list[int]) -> Callable[[], None]:
    """Returns a function that does the products of the decoder's dense layers for such chunks."""
    weights = [m.weight.detach().t() for m in model.decoder.modules() if isinstance(m, nn.Linear)]
    inputs = [torch.randn(max(sizes), len(weight), device=DEVICE) for weight in weights]
    outputs = [torch.empty(len(inputs[0]), w.shape[1], device=DEVICE) for w in weights]

    def multiply() -> None:
        for size in sizes:
            for h, weight, out in zip(inputs, weights, outputs, strict=True):
                torch.mm(h[:size], weight, out=out[:size])

    return multiply


def main() -> None:
    for name, shape, overrides, images, samples in CASES:
        if IS_DRY:
            images, samples = 11, 4
        subject = build_subject(shape, overrides, images)
        sizes = chunk_sizes(subject.model, images, samples)
        repeats = 1 if IS_DRY else 3
        seconds = seconds_of(lambda s=subject, k=samples: likelihood(s, num_samples=k), repeats)
        decoder = seconds_of(decoding(subject.model, sizes), repeats)
        cells = {
            "": f"{name}, {samples:,} samples",
            "images/s": images / seconds,
            "latents/s": images * samples / seconds,
            "decoder alone": f"{decoder / seconds:.2f} of the time",
        }
        if name.startswith("mlp"):
            bare = seconds_of(products(subject.model, sizes), repeats)
            cells["products alone"] = f"{bare / seconds:.2f} of the time"
        tell_row("", cells)


if __name__ == "__main__":
    main()
