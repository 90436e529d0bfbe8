"""The kinds of pictures: each function draws one from a model in evaluation mode and a `Request`.

The arrays of a picture are `images`, the latents `z` and labels `y` that they were decoded from,
`x`, the images at the start, and further numbers. Random numbers are from torch's global state.

Shapes: N images, D latents, Y width of the labels, R rows, T steps along a line.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from vaelab.elbo import ELBO
from vaelab.metrics import neighbours
from vaelab.metrics.chunking import images_per_chunk
from vaelab.pictures.codes import batched_prior, decode_means, encode_means, sample_prior
from vaelab.pictures.picture import Grid, Picture, column_count
from vaelab.pictures.plots import DRAWN, PairPlot, Plots
from vaelab.pictures.request import Request
from vaelab.pictures.scatter import Scatter
from vaelab.training.totals import ACTIVE

STEPS = 21  # T; every second step is in the grid, and all are in the film
REACH = 3.0  # half the range of a traversal, in standard deviations of the prior
CANDIDATES = 2000  # points drawn to find those that are farthest from codes
TINY = 1e-6  # added to the variances, so that a constant latent gives no singular matrix
ROWS = 16  # most rows of a traversal
FAINT = 0.05  # nats; latents of a lower rate change nothing visible
RATED = 512  # images over which the rate of each latent is averaged


def reconstructions(model: ELBO, request: Request) -> Picture:
    """Draws images (default 32), each above its reconstruction through the posterior mean."""
    x, y = request.images(request.count or 32)
    arrays = decode_means(model, encode_means(model, x, y), y) | {"x": x}
    return pair_grid(model, arrays, {"input": x, "reconstruction": arrays["images"]})


def samples(model: ELBO, request: Request) -> Picture:
    """Draws decoder means of prior samples (default 64), captioned by class if conditional.

    Vectors (default 1,000) are drawn from p(x | z, y), with its noise, and shown beside the data.
    """
    vectors = len(model.x_shape) == 1
    y = request.conditions(request.count or (DRAWN if vectors else 64))
    arrays = decode_means(model, sample_prior(model, y, request.temperature), y)
    captions: list[str] = []
    if model.context_dim and model.num_classes:
        captions = [model.label_names[label] for label in y[:, : model.num_classes].argmax(1)]
    first, note = condition_texts(model, y[0]), ""
    if model.context_dim and len(first) > 1:
        note = f"conditions of the images in turn, the first: {', '.join(first)}"
    if vectors and model.units:
        drawn = model.decode(arrays["z"], y).sample()
        arrays |= {"means": arrays["images"], "images": drawn, "x": request.x}
        told = condition_columns(model, y) if model.context_dim else {}
        return PairPlot(arrays=arrays, units=model.units, axes=1, told=told, note=note)
    return Grid(arrays, arrays["images"], captions=captions, note=note)


def nearest(model: ELBO, request: Request) -> Picture:
    """Draws samples (default 32), each above the training image that is nearest in pixels."""
    assert request.training is not None
    y = request.conditions(request.count or 32)
    arrays = decode_means(model, sample_prior(model, y, request.temperature), y)
    found = neighbours.nearest_images(arrays["images"], request.training())
    arrays |= {"nearest": found.images, "distances": found.distances}
    return pair_grid(model, arrays, {"sample": arrays["images"], "nearest": found.images})


def gaps(model: ELBO, request: Request) -> Picture:
    """Draws decoded points far from all codes (default 32), each above the nearest code, decoded.

    The points are drawn from the Gaussian of the codes' mean and covariance. Shown are those that
    are farthest from any code, in standard deviations of each latent.
    """
    z = encode_means(model, request.x, request.y)
    covariance = z.T.cov() + TINY * torch.eye(z.shape[1]).to(z)
    factor = torch.linalg.cholesky_ex(covariance).L
    drawn = z.mean(0) + torch.randn(CANDIDATES, z.shape[1]).to(z) @ factor.mT
    mean, scale = z.mean(0), z.std(0)
    distances, codes = torch.cdist((drawn - mean) / scale, (z - mean) / scale).min(1)
    far = distances.topk(request.count or 32).indices
    y = request.y[codes[far]]
    arrays = decode_means(model, drawn[far], y) | {"distances": distances[far]}
    arrays["nearest"] = decode_means(model, z[codes[far]], y)["images"]
    return pair_grid(model, arrays, {"gap": arrays["images"], "nearest code": arrays["nearest"]})


def pair_grid(model: ELBO, arrays: dict[str, Tensor], named: dict[str, Tensor]) -> Picture:
    """Returns a grid of images [N, C, H, W], each above its partner; plots are over each other.

    Args:
        model: The model.
        arrays: Arrays of the picture.
        named: The upper and then the lower images, by their names.
    """
    above, below = named.values()
    if model.units:
        cells = torch.stack([above, below], 1)
        axes = len(model.x_shape)
        return Plots(arrays=arrays, units=model.units, axes=axes, cells=cells, series=[*named])
    line = torch.ones_like(above[:, :, :1])
    rows = -(-len(above) // column_count(len(above)))
    return Grid(arrays, torch.cat([above, line, below], 2), [*named] * rows, gap=3)


def class_grid(model: ELBO, request: Request) -> Picture:
    """Draws a row of samples for each class (default the first 20), reseeding torch before each.

    So all rows have the same random numbers. A row has 10 samples by default.
    """
    labels = [*request.labels] or [*range(min(model.num_classes, 20))]
    y = torch.stack([request.conditions(request.count or 10, [label]) for label in labels])
    rows = []
    for row in y:
        torch.manual_seed(torch.initial_seed())
        rows.append(sample_prior(model, row, request.temperature))
    arrays = decode_means(model, torch.stack(rows), y) | {"labels": torch.tensor(labels)}
    several = len(model.classes) + len(model.numbers) > 1
    heads = ["\n".join(condition_texts(model, one)[1:4]) for one in y[0]] if several else []
    return Grid(arrays, arrays["images"], [condition_texts(model, row[0])[0] for row in y], heads)


def traversal(model: ELBO, request: Request) -> Picture:
    """Draws one image with one latent moved in each row, by decreasing rate; omits faint latents.

    There are `count` rows, by default at most 16. Latents that carry next to nothing are only
    named, unless the request has a count. A latent moves from `REACH` standard deviations below the
    prior's mean to the posterior mean, in the middle, and on to as many above. Without a rate for
    each latent, the rows are in the order of the latents.
    """
    x, y = request.images(1)
    mean, prior = encode_means(model, x, y), batched_prior(model, y)
    low, high = prior.mean - REACH * prior.stddev, prior.mean + REACH * prior.stddev
    t = torch.linspace(-1, 1, STEPS, device=x.device)[:, None]
    path = torch.where(t < 0, torch.lerp(mean, low, -t), torch.lerp(mean, high, t))  # [T, D]

    rated = slice(min(RATED, images_per_chunk(model.x_shape, model.device)))
    rates = model.terms(request.x[rated], request.y[rated], 1).rate_per_latent.mean(0)
    split = len(rates) == model.latent_dim and bool(rates.isfinite().all())
    if split:
        order, faint, why = rates.argsort(descending=True), rates < FAINT, f"below {FAINT:g} nats"
    else:
        variances = encode_means(model, request.x, request.y).var(0, correction=0)
        order, faint, why = torch.arange(model.latent_dim), variances <= ACTIVE, "inactive"
    shown = order if request.count or faint.all() else order[~faint[order]]
    shown = shown[: request.count or (1 if faint.all() else ROWS)].to(x.device)
    moved = functional.one_hot(shown, model.latent_dim).bool()[:, None]  # [R, 1, D]
    z = torch.where(moved, path, mean)
    arrays = decode_means(model, z, y.expand(*z.shape[:2], -1)) | {"x": x, "latents": shown}

    names = labels = latent_names(shown)
    if split:
        arrays["rates"] = rates[shown]
        names = [f"{n}: {r:.2f} nats" for n, r in zip(names, rates[shown].tolist(), strict=True)]
    between = [""] * (STEPS // 4 - 1)
    heads = [f"-{REACH:g} sd", *between, "mean", *between, f"+{REACH:g} sd"]
    images, left = arrays["images"], ~torch.isin(order, shown.cpu())
    why = f"all {why}; the largest is shown" if faint.all() and not request.count else why
    notes = {why: order[left & faint[order]], "not shown": order[left & ~faint[order]]}
    note = "; ".join(
        f"{w}: {', '.join(latent_names(z.sort().values))}" for w, z in notes.items() if len(z)
    )
    film = images.transpose(0, 1)
    return Grid(arrays, images[:, ::2], names, heads, note=note, film=film, labels=labels)


def latent_names(latents: Tensor) -> list[str]:
    """Returns `z3` and the like for indices of latents."""
    return [f"z{latent}" for latent in latents.tolist()]


def interpolation(model: ELBO, request: Request) -> Picture:
    """Draws rows (default 6) from one image to another, interpolating posterior means and y."""
    if request.ends is None:
        x, y = request.images(2 * (request.count or 6))
    else:
        x, y = request.ends, request.conditions(2)
    z = encode_means(model, x, y)
    rows: list[str] = []
    if model.num_classes and request.ends is None:
        names = [model.label_names[label] for label in y[:, : model.num_classes].argmax(1)]
        rows = [f"{start} to {end}" for start, end in zip(names[::2], names[1::2], strict=True)]
    return line_grid(model, x.unflatten(0, (-1, 2)), (z[::2], z[1::2]), (y[::2], y[1::2]), rows)


def arithmetic(model: ELBO, request: Request) -> Picture:
    """Draws images of a class (default 6) moved by another class's mean latents minus its own.

    The y moves from the first class to the second too.
    """
    source, target = request.labels or request.present[:2]
    x, y = replace(request, labels=(source,)).images(request.count or 6)
    rows = [request.rows(label) for label in (source, target)]
    means = [encode_means(model, request.x[r], request.y[r]).mean(0) for r in rows]
    z = encode_means(model, x, y)
    y_end = request.relabelled(y, [target] * len(y))
    names = [model.label_names[label] for label in (source, target)]
    moved = line_grid(model, x[:, None], (z, z + means[1] - means[0]), (y, y_end))
    note = (
        f"images of {names[0]}, with the mean latents of {names[1]} minus those of {names[0]} added"
    )
    return replace(moved, note=note)


def line_grid(
    model: ELBO,
    x: Tensor,
    z: tuple[Tensor, Tensor],
    y: tuple[Tensor, Tensor],
    rows: Sequence[str] = (),
) -> Grid:
    """Decodes straight lines in z and y, and returns them as a grid with a row for each, and film.

    Args:
        model: The model.
        x: Images [R, 1 or 2, C, H, W] to show before each row, and after it if there are two.
        z: Latents [R, D] at the start and at the end.
        y: Labels [R, Y] at the start and at the end.
        rows: A name for each row, or none.
    """
    t = torch.linspace(0, 1, STEPS, device=x.device)[:, None]
    z_line, y_line = (torch.lerp(start[:, None], end[:, None], t) for start, end in (z, y))
    arrays = decode_means(model, z_line, y_line) | {"x": x}
    heads = ["image", *(f"{step:.1f}" for step in t[::2, 0]), *["image"] * (x.shape[1] - 1)]
    images = arrays["images"]
    cells = torch.cat([x[:, :1], images[:, ::2], x[:, 1:]], 1)
    return Grid(arrays, cells, rows, heads, film=images.transpose(0, 1), labels=rows)


def manifold(model: ELBO, request: Request) -> Picture:
    """Draws the plane of two latents at quantiles of the prior, default 20 x 20; for D = 2 only."""
    side = request.count or 20
    y = request.conditions(1)
    steps = torch.special.ndtri((torch.arange(side, device=y.device) + 0.5) / side)
    plane = torch.stack(torch.meshgrid(steps, -steps, indexing="xy"), -1)
    prior = batched_prior(model, y)
    arrays = decode_means(model, prior.mean + prior.stddev * plane, y.expand(side, side, -1))
    ticks = [f"{step:.2f}" for step in steps.tolist()]
    note = "z0 to the right and z1 upwards, in standard deviations from the mean of the prior"
    if model.context_dim:
        note = f"{note}; given {', '.join(condition_texts(model, y[0]))}"
    return Grid(arrays, arrays["images"], ticks[::-1], ticks, note=note, gap=0)


def condition_texts(model: ELBO, y: Tensor) -> list[str]:
    """Returns one y [Y] as a text per column, class or numbers; with its name if there are several.

    The name of an only column is omitted.
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


def condition_columns(model: ELBO, y: Tensor) -> dict[str, list[str]]:
    """Returns y [N, Y] as texts [N] by column: names of classes, and numbers, each its column."""
    columns, start = {}, 0
    for name, width in (model.classes | model.numbers).items():
        values = y[:, start : start + width]
        if name in model.classes:
            names = model.class_names[name]
            columns[name] = [names[index] for index in values.argmax(1).tolist()]
        else:
            for i, numbers in enumerate(values.T.tolist()):
                columns[name if width == 1 else f"{name}_{i}"] = [f"{v:.7g}" for v in numbers]
        start += width
    return columns


def latents(model: ELBO, request: Request) -> Picture:
    """Draws a scatter plot of posterior means: both latents, or for D > 2 two principal components.

    The components are of all images; points are shown of the classes in `labels` only.
    """
    z = encode_means(model, request.x, request.y).double().cpu()
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
