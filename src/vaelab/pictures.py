"""Pictures of a model, each a grid [3, H', W'] with values in [0, 1].

`x` and `y` are images and one-hot labels to draw from; where there are too few, they come again.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.utils import make_grid

from vaelab.elbo import ELBO
from vaelab.randomness import stream

Picture = Callable[[ELBO, Tensor, Tensor], Tensor]


def of(model: ELBO) -> dict[str, Picture]:
    """The pictures that make sense for a model, by name."""
    pictures: dict[str, Picture] = {
        "reconstructions": reconstructions,
        "samples": samples,
        "traversals": traversals,
        "interpolations": interpolations,
    }
    if model.context_dim:
        pictures["classes"] = classes
    if model.latent_dim == 2:
        pictures["manifold"] = manifold
    return pictures


@torch.no_grad()
def draw(picture: Picture, model: ELBO, x: Tensor, y: Tensor) -> Tensor:
    """One picture, on the CPU, with the same random numbers at each call.

    Images of neither one nor three channels are shown by their first one, or first three.
    """
    devices = [x.device] if x.device.type == "cuda" else []
    training = model.training
    with torch.random.fork_rng(devices):
        torch.manual_seed(stream("pictures"))
        grid = picture(model.eval(), x, y)
    model.train(training)
    shown = grid[:3] if len(grid) >= 3 else grid[:1].expand(3, -1, -1)
    return shown.float().clamp(0, 1).cpu()


def cycled(rows: Tensor, count: int) -> Tensor:
    """The first `count` rows, from the start again where there are fewer."""
    return rows[torch.arange(count, device=rows.device) % len(rows)]


def enlarged(grid: Tensor, pixels: int = 640) -> Tensor:
    """The grid with each pixel repeated until it is about `pixels` wide, for files and screens."""
    factor = max(1, round(pixels / grid.shape[-1]))
    return interpolate(grid[None], scale_factor=factor)[0]


def reconstructions(model: ELBO, x: Tensor, y: Tensor, count: int = 32) -> Tensor:
    """Rows of images, each above the row of their reconstructions through the posterior mean."""
    x, y = cycled(x, count), cycled(y, count)
    pairs = zip(x.split(8), model(x, y).split(8), strict=True)
    return make_grid(torch.cat([row for pair in pairs for row in pair]), nrow=8, pad_value=0.5)


def samples(model: ELBO, x: Tensor, y: Tensor, count: int = 64) -> Tensor:
    """One sample from the prior for each label."""
    return make_grid(model.sample(cycled(y, count)), nrow=8, pad_value=0.5)


def traversals(model: ELBO, x: Tensor, y: Tensor, limit: float = 3.0, columns: int = 11) -> Tensor:
    """The first image with one latent (a row each, highest rate first) moved over +-limit."""
    order = model.rate_per_latent.argsort(descending=True).to(x.device)
    rows = model.latent_dim
    z = model.encode(x[:1], y[:1]).mean.repeat(rows, columns, 1)  # [rows, columns, D]
    index = (order if len(order) == rows else torch.arange(rows)).tolist()
    for row, latent in enumerate(index):
        z[row, :, latent] = torch.linspace(-limit, limit, columns)
    images = model.decode(z.flatten(0, 1), y[:1].expand(rows * columns, -1)).mean
    return make_grid(images, nrow=columns, pad_value=0.5)


def interpolations(model: ELBO, x: Tensor, y: Tensor, rows: int = 6, columns: int = 11) -> Tensor:
    """From one image (left) to another (right) along a line in latent space, label and all."""
    x, y = cycled(x, 2 * rows), cycled(y, 2 * rows)
    ends = torch.cat([model.encode(x, y).mean, y], 1)  # [2 * rows, D + Y]
    along = torch.linspace(0, 1, columns, device=x.device)[:, None]
    lines = [torch.lerp(start, end, along) for start, end in ends.split(2)]
    z, y = torch.cat(lines).split([model.latent_dim, y.shape[1]], 1)
    return make_grid(model.decode(z, y).mean, nrow=columns, pad_value=0.5)


def classes(model: ELBO, x: Tensor, y: Tensor, columns: int = 10) -> Tensor:
    """A row for each class (at most 20), every column from the same random numbers."""
    count = min(model.num_classes, 20)
    y = torch.eye(model.num_classes, device=x.device)[:count].repeat_interleave(columns, 0)
    prior = model.latent_prior(y).expand(y.shape[:1]).base_dist
    noise = torch.randn(columns, model.latent_dim, device=x.device).repeat(count, 1)
    z = prior.mean + prior.stddev * noise
    return make_grid(model.decode(z, y).mean, nrow=columns, pad_value=0.5)


def manifold(model: ELBO, x: Tensor, y: Tensor, side: int = 20) -> Tensor:
    """The plane of a two-dimensional latent, at the quantiles of a standard normal."""
    quantiles = torch.linspace(0.5 / side, 1 - 0.5 / side, side, device=x.device)
    steps = torch.special.ndtri(quantiles)
    z = torch.cartesian_prod(-steps, steps).flip(1)
    return make_grid(model.decode(z, y[:1].expand(len(z), -1)).mean, nrow=side, padding=0)
