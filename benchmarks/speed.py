"""Images per second of `python train.py`, everything on, against a hand-written loop.

    python benchmarks/speed.py            # MNIST, the default MLP, batch 128, one thread
    python benchmarks/speed.py --threads 2 data.batch_size=512

Both train the same network in one process, in turn: a callback lets the framework take 100 steps,
then takes 100 steps of its own with nothing but PyTorch and fused Adam. The figure is the
median of the ratios block by block, so that a machine whose speed drifts does no harm.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

ROOT = Path(__file__).parents[1]


class HandWritten:
    """What a careful user would write: data in memory, one fused optimizer, nothing logged."""

    def __init__(self, images: Tensor, batch_size: int, hidden: list[int], latent_dim: int) -> None:
        pixels = images[0].numel()
        self.images = images.flatten(1)
        self.batch_size = batch_size
        self.encoder = dense([pixels, *hidden], 2 * latent_dim)
        self.decoder = dense([latent_dim, *reversed(hidden)], pixels)
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
        self.order = torch.randperm(len(images))
        self.at = 0

    def train(self, steps: int) -> None:
        for _ in range(steps):
            if self.at + self.batch_size > len(self.order):
                self.order, self.at = torch.randperm(len(self.images)), 0
            rows = self.order[self.at : self.at + self.batch_size]
            self.at += self.batch_size
            grey = self.images.index_select(0, rows)
            x = (torch.empty_like(grey).random_(0, 255) < grey).float()
            mean, log_scale = self.encoder(x).chunk(2, dim=-1)
            scale = log_scale.exp()
            logits = self.decoder(mean + scale * torch.randn_like(mean))
            distortion = binary_cross_entropy_with_logits(logits, x, reduction="sum")
            rate = 0.5 * (mean.square() + scale.square() - 1 - 2 * log_scale).sum()
            loss = (distortion + rate) / len(x)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def dense(sizes: list[int], out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], out))


class Rival(Callback):
    """Takes turns with the training that it watches, and writes down both times of each block.

    Args:
        path: Where the times go.
        steps: Training steps in a block.
    """

    def __init__(self, path: str, steps: int = 100) -> None:
        self.path = Path(path)
        self.steps = steps
        self.blocks: list[dict[str, float]] = []
        self.since: tuple[int, float, float] | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        data: Any = trainer.datamodule
        images = data.splits.train_images[data.rows["train"]]
        hidden = [layer.out_features for layer in module.encoder.layers.layers]
        self.hand = HandWritten(images, data.batch_size, hidden, module.latent_dim)
        self.hand.train(self.steps)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        step, cpu, wall = trainer.global_step, process_time(), perf_counter()
        if self.since is None:
            self.since = step, process_time(), perf_counter()
        elif step - self.since[0] == self.steps:
            block = {"ours_cpu": cpu - self.since[1], "ours_wall": wall - self.since[2]}
            self.hand.train(self.steps)
            block["hand_cpu"] = process_time() - cpu
            block["hand_wall"] = perf_counter() - wall
            self.blocks.append(block)
            self.since = step, process_time(), perf_counter()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.since = None  # no block contains a validation

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.path.write_text(json.dumps(self.blocks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=6)
    options, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times.json"
        command = [
            *(sys.executable, "train.py", "data=mnist", "model=beta_vae", "model.beta=1"),
            *("annealing=linear", f"trainer.max_epochs={options.epochs}"),
            *("+callbacks.rival._target_=speed.Rival", f"+callbacks.rival.path={times}"),
            *(f"hydra.run.dir={folder}/run", *overrides),
        ]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(options.threads),
            "PYTHONPATH": str(Path(__file__).parent),
        }
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        blocks = json.loads(times.read_text())
        batch_size = json.loads((Path(folder) / "run" / "results.json").read_text())["config"][
            "data"
        ]["batch_size"]
    print(
        f"{len(blocks)} paired blocks of 100 steps, batch {batch_size}, {options.threads} thread(s)"
    )
    for clock in ("cpu", "wall"):
        ratios = sorted(b[f"hand_{clock}"] / b[f"ours_{clock}"] for b in blocks)
        speed = median(100 * batch_size / b[f"ours_{clock}"] for b in blocks)
        hand = median(100 * batch_size / b[f"hand_{clock}"] for b in blocks)
        print(
            f"{clock:>4} time: train.py {speed:,.0f} images/s, by hand {hand:,.0f}; "
            f"ratio {median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


if __name__ == "__main__":
    main()
