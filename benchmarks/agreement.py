"""How often a classifier sees the digit that a conditional VAE was asked for.

    python train.py data=mnist model=cvae trainer.max_epochs=20 hydra.run.dir=outputs/cvae_mnist
    python benchmarks/agreement.py outputs/cvae_mnist

Trains a small convolutional classifier on the run's training images, says how good it is on
the official test images, and shows it 2,000 generated ones, 200 of each class. Also: what it
costs to call a test image by a wrong label.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from vaelab import runs
from vaelab.randomness import generator


def classifier() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10)),
    )


def fit(images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """A classifier of grey images uint8 [N, 1, 28, 28]."""
    torch.manual_seed(0)
    model = classifier()
    steps = len(images) // 128
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * steps)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator("order", epoch))
        for rows in order[: steps * 128].split(128):
            loss = cross_entropy(model(images[rows].float() / 255), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--epochs", type=int, default=4, help="of the classifier")
    options = parser.parse_args()
    model, data = runs.load(options.run)
    splits, rows = data.splits, data.rows["train"]
    with torch.enable_grad():
        judge = fit(splits.train_images[rows], splits.train_labels[rows], options.epochs)

    images, labels = splits.test_images, splits.test_labels
    right = [judge(x.float() / 255).argmax(1) for x in images.split(1000)]
    print(
        f"classifier on {len(images):,} real test images: {accuracy(torch.cat(right), labels):.2%}"
    )

    torch.manual_seed(0)
    wanted = torch.arange(10).repeat_interleave(200)
    seen = judge(model.sample(one_hot(wanted, 10).float())).argmax(1)
    print(f"agreement on {len(wanted):,} generated images: {accuracy(seen, wanted):.2%}")
    print(
        "by class:",
        " ".join(f"{accuracy(seen[wanted == k], wanted[wanted == k]):.1%}" for k in range(10)),
    )

    x, y = next(iter(data.batches("test")))
    own = model.terms(x, y, 20).elbo.mean()
    wrong = torch.stack([model.terms(x, y.roll(k, 1), 20).elbo.mean() for k in range(1, 10)])
    print(f"a wrong label costs {own - wrong.mean():.1f} nats of the ELBO ({len(x)} test images)")


def accuracy(found: Tensor, truth: Tensor) -> float:
    return (found == truth).float().mean().item()


if __name__ == "__main__":
    main()
