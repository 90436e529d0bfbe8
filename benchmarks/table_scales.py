"""Trains VAEs on tables and signals with each scale of the Gaussian, and measures their samples.

    python benchmarks/table_scales.py 30
    python benchmarks/table_scales.py 30 iris   # of those with this in their name

Prints, for each table and scale, the standard deviation of 20,000 samples over that of the training
rows, least and largest of the columns, and the NLL of the test rows, in nats of the standardised
numbers. The models are those of `data=vectors` or `signals`, with the best checkpoint of so many
epochs.
"""

import logging
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_iris, make_moons

import vaelab
from vaelab.errors import UserError
from vaelab.metrics.evidence import evidence_estimates

SCALES = ("learned", "per_pixel", "optimal", "per_column")
SAMPLES = 20_000


def tables() -> dict[str, np.ndarray]:
    """Returns the tables by name, the same at each call."""
    random = np.random.default_rng(0)
    mix, sparse = random.normal(size=(6, 6)), random.random((20, 20)) < 0.3
    correlated = random.normal(size=(300, 6)) @ mix.T + 5
    weights = random.normal(size=(20, 20)) * sparse
    heavy = random.standard_t(3, size=(5000, 20)) @ weights + random.standard_t(3, size=(5000, 20))
    moons, _ = make_moons(300, noise=0.08, random_state=0)
    turns = np.linspace(0, 6, 40) + random.uniform(0, 6, (300, 1, 1))
    waves = np.sin(turns) + 0.1 * random.normal(size=turns.shape)
    return {
        "300 x 6, correlated Gaussian": correlated,
        "300 x 2, two moons": moons,
        "150 x 4, iris": load_iris().data,
        "5000 x 20, heavy tails": heavy,
        "300 signals of 40 steps": waves,
    }


def train(values: np.ndarray, scale: str, epochs: int, folder: Path) -> tuple[float, float, float]:
    """Trains a VAE on rows; returns the least and the largest ratio of widths, and the NLL."""
    np.save(folder / "table.npy", values)
    torch.manual_seed(0)
    model, data, trainer = vaelab.compose(
        f"data={'vectors' if values.ndim == 2 else 'signals'}",
        f"data.source.path={folder / 'table.npy'}",
        "logger=none",
        f"trainer.max_epochs={epochs}",
        f"model.likelihood.scale={scale}",
        f"hydra.run.dir={folder / scale}",
    )
    trainer.callbacks = [c for c in trainer.callbacks if isinstance(c, ModelCheckpoint)]
    trainer.fit(model, data)
    best = max((folder / scale).rglob("best.ckpt"), key=lambda path: path.stat().st_mtime)
    model.load_state_dict(torch.load(best, weights_only=True)["state_dict"])
    model.eval()
    with torch.no_grad():
        y = torch.zeros(SAMPLES, model.y_dim)
        z = model.latent_prior(y).expand((SAMPLES,)).sample()
        drawn = model.image_likelihood(z, y).sample()
        ratio = drawn.std(0) / data.splits.train_images[data.rows["train"]].std(0)
        x, y = (torch.cat(parts) for parts in zip(*data.batches("test"), strict=True))
        nll = evidence_estimates(model, x, y, num_samples=500)["nll"].mean()
    return float(ratio.min()), float(ratio.max()), float(nll)


def main(epochs: int, wanted: str = "") -> None:
    """Prints the table of widths and NLL."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    print(f"| table | {' | '.join(SCALES)} |")
    print(f"| --- |{' --- |' * len(SCALES)}")
    for name, values in tables().items():
        if wanted not in name:
            continue
        cells = []
        for scale in SCALES:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    low, high, nll = train(values, scale, epochs, Path(folder))
                    cells.append(f"{low:.2f} to {high:.2f}; {nll:.2f}")
                except (UserError, ValueError) as error:
                    cells.append(f"fails: {type(error).__name__}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30, *sys.argv[2:3])
