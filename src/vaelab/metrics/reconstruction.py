"""Metrics of how similar a reconstruction is to its image: MSE, PSNR and SSIM."""

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from vaelab.autoencoder import AutoEncoder

SMALLEST = 3
"""Pixels of the least side of an image that SSIM is defined for."""


@torch.no_grad()
def reconstruction_quality(model: AutoEncoder, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Returns `mse`, `psnr` and `ssim` of each image and its reconstruction, [B] each.

    The reconstruction is that of the posterior mean, without clamping. x is the image as the model
    sees it: bits where pixels are binary, whose noise no reconstruction can predict. `mse` is a
    mean over pixels and channels. `psnr` = -10 log10(mse), in decibels for pixels in [0, 1], is
    infinite for an image that is reconstructed exactly, and so is then a mean over images. For
    `ssim` see `ssim`; images with a side below `SMALLEST` pixels have none. Signals and vectors
    have `mse` alone. No gradients.

    Args:
        model: In evaluation mode.
        x: Images [B, C, H, W] in the form the model was trained on.
        y: One-hot labels [B, Y].
    """
    images = model.mean_reconstruction(x, y)
    mse = (images - x).square().flatten(1).mean(1)
    if x.dim() != 4:
        return {"mse": mse}
    found = {"mse": mse, "psnr": -10 * mse.log10()}
    return found | {"ssim": ssim(images, x)} if min(x.shape[-2:]) >= SMALLEST else found


def ssim(images: Tensor, x: Tensor) -> Tensor:
    """Returns the structural similarity (Wang et al., 2004) of images [B, C, H, W] in [0, 1]: [B].

    The mean over channels and over all places where a Gaussian window of 11 x 11 pixels, sigma 1.5,
    lies within the image. For images of fewer than 11 pixels the window is the largest that fits,
    and sigma is smaller in proportion. Sides need at least `SMALLEST` pixels.
    """
    radius = min(5, (min(x.shape[-2:]) - 1) // 2)
    wide = torch.float64 if x.device.type != "mps" else x.dtype  # it has variances by differences
    _, similarity = structural_similarity_index_measure(
        images.to(wide),
        x.to(wide),
        sigma=0.3 * radius,
        data_range=1.0,
        reduction="none",
        return_full_image=True,
    )
    return similarity[..., radius:-radius, radius:-radius].flatten(1).mean(1).to(x.dtype)
