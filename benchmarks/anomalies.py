"""How well each anomaly score of `encode` tells other images from a run's own test images.

    python train.py data=mnist model=vae trainer.max_epochs=20 hydra.run.dir=outputs/mnist_vae
    python benchmarks/anomalies.py outputs/mnist_vae clothes.npz

The area under the ROC curve (0.5 is chance, below it the others look more usual than its own), and
where in the run's validation images the median of each set lies. A row of two tails takes the
distance of the quantile from a half, so that images that are too likely count as strange.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from tables import show

from vaelab.evaluation import encoding
from vaelab.evaluation.given_images import read_given_arrays
from vaelab.runs import finished
from vaelab.training.progress_bar import track


def main() -> None:
    """Encodes the test images of a run and those of a file, and prints a table of the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("others", type=Path, help="an .npz, .npy or .safetensors file of images")
    parser.add_argument("--array", help="the name of the others' array")
    parser.add_argument("--images", type=int, default=1000, help="others, from the first")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    torch.distributions.Distribution.set_default_validate_args(False)
    model, data = finished.load_run(options.run)
    given = read_given_arrays(options.others, options.array)
    drawn = {"num_samples": options.samples, "seed": 0, "track": track}
    own = encoding.encode_part(model, data, "test", **drawn)
    others = encoding.encode_images(model, given.images[: options.images], **drawn)
    reference = encoding.encode_reference(model, data, 1000, **drawn)
    truth = np.repeat([0, 1], [len(own["index"]), len(others["index"])])
    rows = []
    for score in (name for name in encoding.SCORES if name in own):
        compared = encoding.anomaly_scores(reference, score)
        scores = [encoding.anomaly_scores(found, score) for found in (own, others)]
        places = [encoding.quantiles(values, compared) for values in scores]
        medians = [f"{np.median(place):.3f}" for place in places]
        rows.append([score, f"{roc_auc_score(truth, np.concatenate(scores)):.3f}", *medians])
        tails = np.abs(np.concatenate(places) - 0.5)
        rows.append([f"{score}, two tails", f"{roc_auc_score(truth, tails):.3f}", "", ""])
    columns = ["score", "AUROC", "median quantile, own", "median quantile, others"]
    title = f"{truth.sum():,} of {options.others.name} among the test images of {options.run.name}"
    show(title, columns, rows, "", options.markdown)


if __name__ == "__main__":
    main()
