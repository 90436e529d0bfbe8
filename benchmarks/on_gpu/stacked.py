"""An experiment: models of one architecture trained together, by torch.func's stacked modules.

They differ in their first weights, their noise and the order of their images, as the jobs of a
sweep over seeds do; Adam treats all weights alike, so it is Adam for each of them. It becomes a
launcher of sweeps only if it takes a quarter of the time of one by one.
"""

from typing import Any

import torch
from courses import prepare_images
from loops import ByHand, CudaGraph
from networks import bound, network, stored_images
from rows import DEVICE, IS_DRY, seconds_of, tell_note, tell_row
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

COUNTS = (2,) if IS_DRY else (8, 64)
REPEATS, STEPS = (1, 2) if IS_DRY else (7, 30)


class Bound(nn.Module):
    """An encoder and a decoder, called for the loss [] of binary images [B, C, H, W]."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> Tensor:
        distortion, rate = bound(self.encoder, self.decoder, x)
        return distortion + rate


class Stacked(ByHand):
    """M models of one architecture in one step; each has its own weights, images and noise.

    Args:
        settings: Of the race; `batch_size` is that of one model.
        count: M.
    """

    def __init__(self, settings: dict[str, Any], count: int) -> None:
        super().__init__(settings | {"batch_size": count * settings["batch_size"]})
        shape = tuple(stored_images(settings).shape[1:])
        models = [Bound(*network(settings, shape)).to(self.device) for _ in range(count)]
        self.count = count
        self.weights, _ = stack_module_state(models)
        self.model = models[0].to("meta")
        self.optimizer = torch.optim.Adam(self.weights.values(), lr=1e-3, **self.adam)

    def losses(self, x: Tensor) -> Tensor:
        """Returns the loss [M] of each model on its part of images [M B, C, H, W]."""

        def loss_of_one(weights: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.model, weights, (x,))

        every = vmap(loss_of_one, randomness="different")
        return every(self.weights, x.unflatten(0, (self.count, -1)))

    def loss(self, x: Tensor) -> Tensor:
        return self.losses(x).sum()


def peak_memory() -> float:
    """Returns the most MB of tensors since the last call; 0 on a CPU."""
    if DEVICE == "cpu":
        return 0.0
    most = torch.cuda.max_memory_allocated() / 1e6
    torch.cuda.reset_peak_memory_stats()
    return most


def step_seconds(loop: ByHand) -> float:
    """Returns the seconds of a step of a loop, the median of blocks of steps."""

    def block() -> None:
        for _ in range(STEPS):
            loop.step()

    return seconds_of(block, REPEATS) / STEPS


def main() -> None:
    course = prepare_images("mlp")
    settings = {"network": "mlp", "hidden": course.hidden, "latents": course.latents}
    settings |= {"batch_size": 8 if IS_DRY else 128}
    settings |= {"device": DEVICE, "images": str(course.images)}
    alone = step_seconds(ByHand(settings))
    captured = step_seconds(CudaGraph(settings)) if DEVICE == "cuda" else 0.0
    for count in COUNTS:
        peak_memory()
        together = step_seconds(Stacked(settings, count))
        cells = {
            "": f"{count} models",
            "step of all, ms": 1e3 * together,
            "of one alone, ms": 1e3 * alone,
            "times one by one": count * alone / together,
        }
        if captured:
            cells["times one by one, CUDA graphs"] = count * captured / together
            cells["memory, MB"] = peak_memory()
        tell_row("", cells)
    tell_note("An mlp 784-400-20 in batches of 128; not compiled. A launcher of it needs 4 times.")


if __name__ == "__main__":
    main()
