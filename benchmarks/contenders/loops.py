"""The hand-written loops: python loops.py by_hand, in a race."""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from gradient import write_gradient
from networks import bound, network, stored_images
from torch import Tensor, nn
from turns import SETTINGS, Turns


class ByHand:
    """What a careful user would write: data in memory, one fused optimizer, nothing logged."""

    adam: dict[str, Any] = {"fused": True}  # noqa: RUF012

    def __init__(self, settings: dict[str, Any]) -> None:
        self.batch_size = settings["batch_size"]
        self.device = torch.device(settings["device"])
        images = torch.from_numpy(stored_images(settings))
        encoder, decoder = network(settings, tuple(images.shape[1:]))
        self.encoder, self.decoder = encoder.to(self.device), decoder.to(self.device)
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3, **self.adam)
        self.batches = self.stream(images)

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        """Binarised batches without end."""
        images = images.to(self.device)
        for rows in self.rows(len(images)):
            yield binarised(images.index_select(0, rows))

    def rows(self, count: int) -> Iterator[Tensor]:
        while True:
            order = torch.randperm(count, device=self.device)
            yield from order[: count - count % self.batch_size].split(self.batch_size)

    def step(self) -> None:
        self.update(next(self.batches))

    def update(self, x: Tensor) -> None:
        self.optimizer.zero_grad()
        self.loss(x).backward()
        self.optimizer.step()

    def loss(self, x: Tensor) -> Tensor:
        distortion, rate = bound(self.encoder, self.decoder, x)
        return distortion + rate


class Foreach(ByHand):
    adam = {"foreach": True}  # noqa: RUF012


class Default(ByHand):
    adam = {}  # noqa: RUF012


class Compiled(ByHand):
    """Its loss is one graph; the optimizer is as by hand."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.loss = torch.compile(super().loss)  # type: ignore[method-assign]


class FromLoader(ByHand):
    """The same over torchvision's data set and a DataLoader, as tutorials have it."""

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        from pictures import loader

        batches = loader(images.numpy(), self.batch_size)
        while True:
            for grey, _ in batches:
                yield torch.bernoulli(grey.to(self.device))


class WrittenOut(ByHand):
    """No autograd: the gradient is written out, for a network of dense layers."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.layers = dense_layers(self.encoder, self.decoder)
        self.latents = settings["latents"]
        for parameter in self.optimizer.param_groups[0]["params"]:
            parameter.grad = torch.zeros_like(parameter)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        noise = torch.randn(len(x), self.latents, device=self.device)
        write_gradient(self.layers, x.flatten(1), noise)
        self.optimizer.step()


class Products(ByHand):
    """The bare matrix products of a step, forward and the two of backward; nothing is trained."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.products: list[tuple[Tensor, Tensor, Tensor]] = []  # factors, and where it goes
        layers = dense_layers(self.encoder, self.decoder)
        for layer in layers:
            weight = layer.weight.detach()
            h = torch.randn(self.batch_size, layer.in_features, device=self.device)
            out = torch.randn(self.batch_size, layer.out_features, device=self.device)
            self.products += [
                (h, weight.t(), torch.empty_like(out)),
                (out.t(), h, torch.empty_like(weight)),
            ]
            if layer is not layers[0]:  # the images need no gradient
                self.products.append((out, weight, torch.empty_like(h)))

    def step(self) -> None:
        for one, other, result in self.products:
            torch.mm(one, other, out=result)


class CudaGraph(ByHand):
    """The whole step, from the rows of the images on, as one captured graph."""

    adam = {"fused": True, "capturable": True}  # noqa: RUF012

    def stream(self, images: Tensor) -> Iterator[Tensor]:
        """Rows instead of images; the graph looks them up."""
        self.images = images.to(self.device)
        return self.rows(len(images))

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.chosen = next(self.batches).clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what is made at the first steps must not be in the graph
            for _ in range(3):
                self.captured_step()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad()  # so that the graph has gradients of its own
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.captured_step()

    def captured_step(self) -> None:
        self.update(binarised(self.images.index_select(0, self.chosen)))

    def step(self) -> None:
        self.chosen.copy_(next(self.batches))
        self.graph.replay()


def binarised(grey: Tensor) -> Tensor:
    """Coin flips with probability k / 255 exactly: an integer drawn from 0..254 is below k."""
    return (torch.empty_like(grey).random_(0, 255) < grey).float()


def dense_layers(encoder: nn.Module, decoder: nn.Module) -> Any:
    modules = [*encoder.modules(), *decoder.modules()]
    return tuple(module for module in modules if isinstance(module, nn.Linear))


LOOPS = {
    "products": Products,
    "written_out": WrittenOut,
    "compiled": Compiled,
    "by_hand": ByHand,
    "by_hand_foreach": Foreach,
    "by_hand_default": Default,
    "dataloader": FromLoader,
    "cuda_graph": CudaGraph,
}


def main(name: str) -> None:
    turns = Turns()
    loop = LOOPS[name](SETTINGS)
    while True:
        loop.step()
        turns.step_taken()


if __name__ == "__main__":
    main(sys.argv[1])
