"""What the log evidence costs, as a multiple of the decoder's bare matrix products.

    python train.py data=mnist model=vae trainer.max_epochs=20 hydra.run.dir=outputs/vae_mnist
    python benchmarks/evidence.py outputs/vae_mnist

Takes the test images of a run with dense layers in portions; each portion is measured with 5,000
samples an image, and then as many rows go through the decoder's weight matrices and nothing else,
in blocks of the size that is fastest for those products on this machine.
"""

import argparse
from time import perf_counter

import torch
from torch import Tensor, nn

from vaelab.elbo import ELBO
from vaelab.metrics.estimates import mean_estimate
from vaelab.metrics.evidence import evidence_estimates
from vaelab.runs import finished

BLOCKS = (256, 512, 1024, 2048, 4096, 8192)  # rows


class Products:
    """The weight matrices of a decoder, and inputs of the right widths."""

    def __init__(self, model: ELBO) -> None:
        layers = [layer for layer in model.decoder.modules() if isinstance(layer, nn.Linear)]
        self.weights = [layer.weight.detach().t().contiguous() for layer in layers]
        self.block = min(BLOCKS, key=lambda block: min(self.seconds(8192, block) for _ in range(5)))

    def seconds(self, rows: int, block: int) -> float:
        """How long `rows` rows take."""
        inputs = [torch.randn(block, len(weight)) for weight in self.weights]
        began = perf_counter()
        for _ in range(rows // block):
            for h, weight in zip(inputs, self.weights, strict=True):
                h @ weight
        return perf_counter() - began


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=5_000)
    options = parser.parse_args()
    torch.distributions.Distribution.set_default_validate_args(False)
    model, data = finished.load_run(options.run)
    data.batch_size = 100
    products = Products(model)

    measured = bare = 0.0
    nll: list[Tensor] = []
    for x, y in data.batches("test"):
        began = perf_counter()
        nll.append(evidence_estimates(model, x, y, options.samples)["nll"])
        measured += perf_counter() - began
        bare += products.seconds(len(x) * options.samples, products.block)
        images = sum(map(len, nll))
        if images >= options.images or images % 1000 == 0:
            print(
                f"{images:,} images, {torch.get_num_threads()} threads: {measured:.1f} s, bare "
                f"products {bare:.1f} s (blocks of {products.block}), {measured / bare:.2f} times",
                flush=True,
            )
        if images >= options.images:
            break
    found = mean_estimate(torch.cat(nll))
    print(f"NLL_{options.samples} {found['value']:.3f} +- {found['se']:.3f} nats")


if __name__ == "__main__":
    main()
