"""How like an image its reconstruction is."""

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from vaelab.autoencoder import AutoEncoder


@torch.no_grad()
def reconstruction(model: AutoEncoder, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """How like x its reconstruction through the posterior mean is, each of shape [B].

    Of `model(x, y)` as it is, not clamped, against x as the model was shown it: bits where pixels
    are binary, whose noise no reconstruction can foretell. `mse` is a mean over pixels and
    channels; `psnr` = -10 log10(mse), in decibels for pixels in [0, 1], is that of each image, and
    infinite for one that is reconstructed exactly, as is then a mean over images; for `ssim` see
    there.

    Args:
        model: In evaluation mode.
        x: Images [B, C, H, W] as the model was trained on them.
        y: One-hot labels [B, Y].
    """
    images = model(x, y)
    mse = (images - x).square().flatten(1).mean(1)
    return {"mse": mse, "psnr": -10 * mse.log10(), "ssim": ssim(images, x)}


def ssim(images: Tensor, x: Tensor) -> Tensor:
    """Structural similarity (Wang et al., 2004) of images [B, C, H, W] in [0, 1], [B].

    The mean over channels and over all places where a Gaussian window of 11 x 11 pixels, sigma
    1.5, lies within the image. Smaller images have a window as much smaller as fits.
    """
    radius = min(5, (min(x.shape[-2:]) - 1) // 2)
    _, similarity = structural_similarity_index_measure(
        images, x, sigma=0.3 * radius, data_range=1.0, reduction="none", return_full_image=True
    )
    return similarity[..., radius:-radius, radius:-radius].flatten(1).mean(1)
