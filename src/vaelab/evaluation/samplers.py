"""Samplers: densities fitted to a trained model's codes, to draw latents from for new images.

A sampler is called with a trained model and its data and returns the model with another p(z | y).
Codes are samples of q(z | x, y), one for each training image, so of the aggregate posterior. A
regularised auto-encoder has no prior for it, and the prior of any other model may not match it
(Ghosh et al., 2020, arXiv:1903.12436, section 4). The ELBO still uses the model's own prior.

Shapes: N images, D latents, Y width of the labels, M components.
"""

import copy
from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.conditions import is_one_hot_label
from vaelab.data import Images
from vaelab.distributions.flows import Pushforward, followed_by_affine
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.posteriors import CholeskyNormal
from vaelab.priors.flow import CouplingFlow
from vaelab.priors.mixture import Mixture
from vaelab.randomness import stream_seed

Sampler = Callable[[ELBO, Images], ELBO]
"""(model, data) -> the model, or a copy of it with another prior; a `name` heads its metrics."""

LEAST = 2
"""Fewest codes that scikit-learn fits a mixture to."""


class Own:
    """The sampler that keeps the model's own prior, and fits nothing."""

    name: ClassVar = "prior"

    def __call__(self, model: ELBO, data: Images) -> ELBO:
        """Returns the model itself."""
        return model


class GMM:
    """The sampler that fits a Gaussian mixture with full covariances, by scikit-learn.

    An unconditional model gets one mixture, a conditional model one for each class of its label.

    Args:
        components: M, of each mixture; of 1 the metrics are named `gaussian_...`.
        images: The most training images to fit to.

    Raises:
        UserError: When called, if y is not one label with condition=one_hot, or a class has fewer
            than M images, or than two.
    """

    def __init__(self, components: PositiveInt, images: PositiveInt) -> None:
        self.components, self.images = components, images
        self.name = "gmm" if components > 1 else "gaussian"

    def __call__(self, model: ELBO, data: Images) -> ELBO:
        """Returns a model copy with a GMM of codes as prior; UserError if y is no class label."""
        from sklearn.mixture import GaussianMixture  # slow to import

        if model.context_dim and not is_one_hot_label(model.condition, model.classes):
            raise UserError(
                "sampler=gmm of a conditional model takes one label and condition=one_hot; "
                "sampler=flow takes any"
            )
        z, y = sample_codes(model, data, self.images)
        labels = y.argmax(1) if model.context_dim else torch.zeros(len(z)).long()
        found = []
        for label in range(max(1, model.context_dim)):
            of_label = z[labels == label]
            if len(of_label) < max(LEAST, self.components):
                which = f" of label {label}" if model.context_dim else ""
                raise UserError(
                    f"sampler.components={self.components}: the number of images{which} is "
                    f"{len(of_label)}, and at least {max(LEAST, self.components)} are needed"
                )
            fit = GaussianMixture(self.components, random_state=0).fit(of_label.double().numpy())
            found.append(
                [torch.from_numpy(a) for a in (fit.weights_, fit.means_, fit.covariances_)]
            )
        return with_prior(model, FittedMixture(*map(torch.stack, zip(*found, strict=True))))


class FittedMixture(nn.Module):
    """The fixed prior p(z | y) of `GMM`: one Gaussian mixture per class, or one for all y.

    Args:
        weights: [Y, M], or [1, M] for a mixture that ignores y.
        means: [Y, M, D].
        covariances: [Y, M, D, D].
    """

    means: Tensor
    weights: Tensor
    scale_tril: Tensor

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        super().__init__()
        self.conditional = len(weights) > 1
        self.register_buffer("weights", torch.block_diag(*weights[:, None]).float())  # [Y, Y * M]
        self.register_buffer("means", means.flatten(0, 1).float())
        lower = torch.linalg.cholesky(covariances.double())
        self.register_buffer("scale_tril", lower.flatten(0, 1).float())

    def forward(self, y: Tensor) -> Distribution:
        """Returns p(z | y) of one-hot y [B, Y], batch [B]; batch [] if the mixture ignores y."""
        weights = y @ self.weights if self.conditional else self.weights[0]

        def select(which: Tensor) -> Distribution:
            """Returns the components of given indices; `Mixture` calls it to draw from them."""
            return CholeskyNormal(self.means[which], scale_tril=self.scale_tril[which])

        components = CholeskyNormal(self.means, scale_tril=self.scale_tril)
        return Mixture(weights.log(), components, select)


class Flow:
    """The sampler that trains a coupling flow, see `vaelab.priors.CouplingFlow`.

    It takes any condition.

    Args:
        transforms: The number of coupling transforms.
        hidden: Widths of the layers of each transform's network.
        images: The most training images to fit to.
        steps: The number of Adam steps, with a learning rate that decays to zero by a cosine.
        batch_size: Codes in a step.
        lr: The initial learning rate.
    """

    name: ClassVar = "flow"

    def __init__(
        self,
        transforms: PositiveInt,
        hidden: list[PositiveInt],
        images: PositiveInt,
        steps: PositiveInt,
        batch_size: PositiveInt,
        lr: PositiveFloat,
    ) -> None:
        self.transforms, self.hidden, self.images = transforms, hidden, images
        self.steps, self.batch_size, self.lr = steps, batch_size, lr

    def __call__(self, model: ELBO, data: Images) -> ELBO:
        """Trains a flow on training codes; returns a copy of the model with it as its prior.

        The seed is fixed, and the global random state is restored.
        """
        z, y = sample_codes(model, data, self.images)
        z, y = z.to(model.device), y.to(model.device)
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(stream_seed("sampler"))
            fitted = FittedFlow(
                z, model.context_dim, transforms=self.transforms, hidden=self.hidden
            )
            self.fit(fitted.to(z.device), z, model.context(y).detach())
        return with_prior(model, fitted)

    def fit(self, fitted: "FittedFlow", z: Tensor, context: Tensor) -> None:
        """Trains the flow, in place, to maximise the likelihood of codes z [N, D] given context.

        Draws its batches from torch's global random state.
        """
        optimizer = torch.optim.Adam(fitted.parameters(), self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        for _ in range(self.steps):
            rows = torch.randint(len(z), (self.batch_size,)).to(z.device)
            loss = -fitted(context[rows]).log_prob(z[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


class FittedFlow(nn.Module):
    """The prior p(z | y) of `Flow`: a coupling flow of standardised codes, untrained when built.

    Args:
        z: The codes [N, D], for mean and scale only; see `Flow.fit` for training.
        context_dim: Width of the context.
        transforms: The number of coupling transforms.
        hidden: Widths of the layers of each transform's network.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, z: Tensor, context_dim: int, *, transforms: int, hidden: list[int]) -> None:
        super().__init__()
        self.register_buffer("mean", z.mean(0))
        self.register_buffer("scale", z.std(0).clamp(min=1e-6))
        self.flow = CouplingFlow(z.shape[1], context_dim, transforms=transforms, hidden=hidden)

    def forward(self, y: Tensor) -> Distribution:
        """Returns p(z | y) of a context [B, context_dim], with z in the units of the codes."""
        inner = self.flow(y)
        return Pushforward(followed_by_affine(inner.transform, self.mean, self.scale), inner.base)


@torch.no_grad()
def sample_codes(model: ELBO, data: Images, count: int) -> tuple[Tensor, Tensor]:
    """Returns z [N, D], sampled by a fixed seed from q(z | x, y), and y of `count` images at most.

    The images are the first training images in the order of the first epoch, neither balanced nor
    moved; or all, in their order, where an epoch would drop some of them. The global random state
    is restored. Both tensors, y being [N, Y], are on the CPU.
    """
    found: list[tuple[Tensor, Tensor]] = []
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed("codes"))
        batches = data.batches("train")
        batches.classes = batches.augment = None  # the images as they are
        batches.shuffle = count <= len(batches) * batches.batch_size  # else all, to the last
        for x, y in batches:
            found.append((model.latent_posterior(x, y).sample().cpu(), y.cpu()))
            if sum(len(z) for z, _ in found) >= count:
                break
    z, y = (torch.cat(part)[:count] for part in zip(*found, strict=True))
    return z, y


def with_prior(model: ELBO, prior: nn.Module) -> ELBO:
    """Returns a copy with `prior`, moved and set to eval in place, that shares all other parts.

    It is the prior of the latents of all levels, where a model has several.
    """
    shared = {id(part): part for part in model.children()}
    other = copy.deepcopy(model, shared)
    other.prior = prior.to(model.device).eval()
    other.latent_prior = lambda y: other.prior(other.context(y))  # type: ignore[method-assign]
    return other
