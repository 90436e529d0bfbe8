"""The pictures, each of a model in evaluation mode and a `Request`.

Their arrays: `images`, the latents `z` and the labels `y` that these were decoded from; `x`, the
images at the start; and what else a picture says.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from vaelab.chunking import portion
from vaelab.elbo import ELBO
from vaelab.metrics import neighbours
from vaelab.pictures.codes import decoded, encoded, prior_of, sampled
from vaelab.pictures.picture import Grid, Picture, fitting
from vaelab.pictures.request import Request
from vaelab.pictures.scatter import Scatter
from vaelab.training.totals import ACTIVE

STEPS = 21  # along a line; every second one is in the grid, and all are in the film
REACH = 3.0  # standard deviations of the prior
DRAWN = 2000  # points among which to look for those that are far from codes
TINY = 1e-6  # variance that a latent has at least
ROWS = 16  # of a traversal
FAINT = 0.05  # nats, less than which moves nothing that is seen
RATED = 512  # images over which the rate of each latent is averaged


def reconstructions(model: ELBO, request: Request) -> Picture:
    """Images, each above its reconstruction through the posterior mean."""
    x, y = request.images(request.count or 32)
    arrays = decoded(model, encoded(model, x, y), y) | {"x": x}
    return pairs(arrays, {"input": x, "reconstruction": arrays["images"]})


def samples(model: ELBO, request: Request) -> Picture:
    """Samples of the prior."""
    y = request.conditions(request.count or 64)
    arrays = decoded(model, sampled(model, y, request.temperature), y)
    captions: list[str] = []
    if model.context_dim and model.num_classes:
        captions = [model.label_names[label] for label in y[:, : model.num_classes].argmax(1)]
    first, note = conditions(model, y[0]), ""
    if model.context_dim and len(first) > 1:
        note = f"conditions of the images in turn, the first: {', '.join(first)}"
    return Grid(arrays, arrays["images"], captions=captions, note=note)


def nearest(model: ELBO, request: Request) -> Picture:
    """Samples of the prior, each above the training image that is nearest to it in pixels."""
    assert request.training is not None
    y = request.conditions(request.count or 32)
    arrays = decoded(model, sampled(model, y, request.temperature), y)
    found = neighbours.nearest(arrays["images"], request.training())
    arrays |= {"nearest": found.images, "distances": found.distances}
    return pairs(arrays, {"sample": arrays["images"], "nearest": found.images})


def gaps(model: ELBO, request: Request) -> Picture:
    """Points where there are no codes, decoded, each above the decoded code that is nearest.

    They are drawn from the Gaussian of all codes' mean and covariance, and shown are those that
    are farthest, in standard deviations, from any code: off the data's codes, and among them.
    """
    z = encoded(model, request.x, request.y)
    covariance = z.T.cov() + TINY * torch.eye(z.shape[1]).to(z)
    factor = torch.linalg.cholesky_ex(covariance).L
    drawn = z.mean(0) + torch.randn(DRAWN, z.shape[1]).to(z) @ factor.mT
    distances, codes = torch.cdist(drawn / z.std(0), z / z.std(0)).min(1)
    far = distances.topk(request.count or 32).indices
    y = request.y[codes[far]]
    arrays = decoded(model, drawn[far], y) | {"distances": distances[far]}
    arrays["nearest"] = decoded(model, z[codes[far]], y)["images"]
    return pairs(arrays, {"gap": arrays["images"], "nearest code": arrays["nearest"]})


def pairs(arrays: dict[str, Tensor], named: dict[str, Tensor]) -> Picture:
    """Images [N, C, H, W], each above another one, by what they are."""
    above, below = named.values()
    line = torch.ones_like(above[:, :, :1])
    rows = -(-len(above) // fitting(len(above)))
    return Grid(arrays, torch.cat([above, line, below], 2), [*named] * rows, gap=3)


def class_grid(model: ELBO, request: Request) -> Picture:
    """Samples in a row for each class, all rows from the same random numbers."""
    labels = [*request.labels] or [*range(min(model.num_classes, 20))]
    y = torch.stack([request.conditions(request.count or 10, [label]) for label in labels])
    rows = []
    for row in y:
        torch.manual_seed(torch.initial_seed())
        rows.append(sampled(model, row, request.temperature))
    arrays = decoded(model, torch.stack(rows), y) | {"labels": torch.tensor(labels)}
    several = len(model.classes) + len(model.numbers) > 1
    heads = ["\n".join(conditions(model, one)[1:4]) for one in y[0]] if several else []
    return Grid(arrays, arrays["images"], [conditions(model, row[0])[0] for row in y], heads)


def traversal(model: ELBO, request: Request) -> Picture:
    """One image with one latent moved, a row for each latent, that of the highest rate first.

    It moves from the lower end of the prior to the posterior mean, in the middle, and on to the
    upper end. Latents that carry next to nothing are only named, unless rows are counted.
    """
    x, y = request.images(1)
    mean, prior = encoded(model, x, y), prior_of(model, y)
    low, high = prior.mean - REACH * prior.stddev, prior.mean + REACH * prior.stddev
    t = torch.linspace(-1, 1, STEPS, device=x.device)[:, None]
    path = torch.where(t < 0, torch.lerp(mean, low, -t), torch.lerp(mean, high, t))  # [T, D]

    rated = slice(min(RATED, portion(model.x_shape, model.device)))
    rates = model.terms(request.x[rated], request.y[rated], 1).rate_per_latent.mean(0)
    split = len(rates) == model.latent_dim and bool(rates.isfinite().all())
    if split:
        order, faint, why = rates.argsort(descending=True), rates < FAINT, f"below {FAINT:g} nats"
    else:
        variances = encoded(model, request.x, request.y).var(0, correction=0)
        order, faint, why = torch.arange(model.latent_dim), variances <= ACTIVE, "inactive"
    shown = order if request.count or faint.all() else order[~faint[order]]
    shown = shown[: request.count or (1 if faint.all() else ROWS)].to(x.device)
    moved = functional.one_hot(shown, model.latent_dim).bool()[:, None]  # [R, 1, D]
    z = torch.where(moved, path, mean)
    arrays = decoded(model, z, y.expand(*z.shape[:2], -1)) | {"x": x, "latents": shown}

    names = labels = latent_names(shown)
    if split:
        arrays["rates"] = rates[shown]
        names = [f"{n}: {r:.2f} nats" for n, r in zip(names, rates[shown].tolist(), strict=True)]
    between = [""] * (STEPS // 4 - 1)
    heads = [f"-{REACH:g} sd", *between, "mean", *between, f"+{REACH:g} sd"]
    images, left = arrays["images"], ~torch.isin(order, shown.cpu())
    notes = {why: order[left & faint[order]], "not shown": order[left & ~faint[order]]}
    note = "; ".join(
        f"{w}: {', '.join(latent_names(z.sort().values))}" for w, z in notes.items() if len(z)
    )
    film = images.transpose(0, 1)
    return Grid(arrays, images[:, ::2], names, heads, note=note, film=film, labels=labels)


def latent_names(latents: Tensor) -> list[str]:
    return [f"z{latent}" for latent in latents.tolist()]


def interpolation(model: ELBO, request: Request) -> Picture:
    """From one image to another along a line between their posterior means, label and all."""
    if request.ends is None:
        x, y = request.images(2 * (request.count or 6))
    else:
        x, y = request.ends, request.conditions(2)
    z = encoded(model, x, y)
    rows: list[str] = []
    if model.num_classes and request.ends is None:
        names = [model.label_names[label] for label in y[:, : model.num_classes].argmax(1)]
        rows = [f"{start} to {end}" for start, end in zip(names[::2], names[1::2], strict=True)]
    return lines(model, x.unflatten(0, (-1, 2)), (z[::2], z[1::2]), (y[::2], y[1::2]), rows)


def arithmetic(model: ELBO, request: Request) -> Picture:
    """Images moved by the difference between the mean latents of two classes, label and all."""
    source, target = request.labels or request.present[:2]
    x, y = replace(request, labels=(source,)).images(request.count or 6)
    rows = [request.rows(label) for label in (source, target)]
    means = [encoded(model, request.x[r], request.y[r]).mean(0) for r in rows]
    z = encoded(model, x, y)
    y_end = request.relabelled(y, [target] * len(y))
    names = [model.label_names[label] for label in (source, target)]
    moved = lines(model, x[:, None], (z, z + means[1] - means[0]), (y, y_end))
    note = (
        f"images of {names[0]}, with the mean latents of {names[1]} minus those of {names[0]} added"
    )
    return replace(moved, note=note)


def lines(
    model: ELBO,
    x: Tensor,
    z: tuple[Tensor, Tensor],
    y: tuple[Tensor, Tensor],
    rows: Sequence[str] = (),
) -> Grid:
    """Images along lines, a row for each.

    Args:
        model: The model.
        x: Images [R, 1 or 2, C, H, W] to show before, and after, each row.
        z: Latents [R, D] at the start and at the end.
        y: Labels [R, Y] at the start and at the end.
        rows: A name for each row, or none.
    """
    t = torch.linspace(0, 1, STEPS, device=x.device)[:, None]
    z_line, y_line = (torch.lerp(start[:, None], end[:, None], t) for start, end in (z, y))
    arrays = decoded(model, z_line, y_line) | {"x": x}
    heads = ["image", *(f"{step:.1f}" for step in t[::2, 0]), *["image"] * (x.shape[1] - 1)]
    images = arrays["images"]
    cells = torch.cat([x[:, :1], images[:, ::2], x[:, 1:]], 1)
    return Grid(arrays, cells, rows, heads, film=images.transpose(0, 1), labels=rows)


def manifold(model: ELBO, request: Request) -> Picture:
    """The plane of two latents, at the quantiles of the prior."""
    side = request.count or 20
    y = request.conditions(1)
    steps = torch.special.ndtri((torch.arange(side, device=y.device) + 0.5) / side)
    plane = torch.stack(torch.meshgrid(steps, -steps, indexing="xy"), -1)
    prior = prior_of(model, y)
    arrays = decoded(model, prior.mean + prior.stddev * plane, y.expand(side, side, -1))
    ticks = [f"{step:.2f}" for step in steps.tolist()]
    note = "z0 to the right and z1 upwards, in standard deviations from the mean of the prior"
    if model.context_dim:
        note = f"{note}; given {', '.join(conditions(model, y[0]))}"
    return Grid(arrays, arrays["images"], ticks[::-1], ticks, note=note, gap=0)


def conditions(model: ELBO, y: Tensor) -> list[str]:
    """What one y [Y] says, in words: the class, or numbers, of each column.

    Of an only column its name is left out.
    """
    only = len(model.classes) + len(model.numbers) == 1
    words, start = [], 0
    for name, width in (model.classes | model.numbers).items():
        values = y[start : start + width]
        if name in model.classes:
            text = model.class_names[name][int(values.argmax())]
        else:
            text = ", ".join(f"{value:.3g}" for value in values.tolist())
        words.append(text if only else f"{name} {text}")
        start += width
    return words


def latents(model: ELBO, request: Request) -> Picture:
    """Posterior means of images: both latents, or the first two principal components."""
    z = encoded(model, request.x, request.y).double().cpu()
    points, names = z, ["z0", "z1"]
    if model.latent_dim > 2:
        from sklearn.decomposition import PCA  # slow to import

        components = PCA(2).fit(z)
        points = torch.from_numpy(components.transform(z))
        shares = enumerate(components.explained_variance_ratio_, start=1)
        names = [
            f"principal component {i} of z, {share:.0%} of its variance" for i, share in shares
        ]
    classes = request.one_hot.cpu()
    labels = classes.argmax(1) if classes.shape[1] else torch.zeros(len(z)).long()
    rows = torch.isin(labels, torch.tensor(request.labels)) if request.labels else slice(None)
    arrays = {"z": z[rows].float(), "points": points[rows].float(), "labels": labels[rows]}
    across, up = names
    return Scatter(arrays, across, up, model.label_names)
