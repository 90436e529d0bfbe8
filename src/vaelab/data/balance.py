"""Draw of a training epoch in which classes occur equally often."""

import torch
from torch import Tensor


def balanced_draw(classes: Tensor, generator: torch.Generator) -> Tensor:
    """Draws n of n images, int64 [n], so that the classes that occur are equally often among them.

    Where n is no multiple of their number, random classes occur once more than others. The images
    of a class are drawn equally often as well: each of them as often as any other, or once more.
    The draw is in passes: first images in their order, each at most once, then those that are
    drawn a second time, and so on.

    Args:
        classes: The class of each image, int64 [n].
        generator: Of the CPU.
    """
    count = len(classes)
    sizes = classes.unique(return_counts=True)[1]
    wanted = torch.full_like(sizes, count // len(sizes))
    wanted[torch.randperm(len(sizes), generator=generator)[: count % len(sizes)]] += 1
    drawn = []
    for images, times in zip(
        classes.argsort(stable=True).split(sizes.tolist()), wanted.tolist(), strict=True
    ):
        passes = torch.arange(-(-times // len(images)))[:, None]
        keys = (passes * count + images).flatten()  # a pass, and the image in it
        last = torch.randperm(len(images), generator=generator)[: len(keys) - times]
        keys[len(keys) - len(images) :][last] = -1  # left out in the last pass
        drawn.append(keys)
    keys = torch.cat(drawn)
    return keys[keys >= 0].sort().values % count
