"""Small models for a release, trained, measured and exported: python benchmarks/pretrained.py out.

Writes a folder for each: `config.json`, `model.safetensors` and a model card with data, command and
test figures; `vaelab.load("out/mnist_cvae")` has the model. `mnist_cvae` is the one that comes with
vaelab, in src/vaelab/pretrained. Runs are in `out/runs`, and the same command goes on with them.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from race import ROOT

MOST = 5e6  # bytes of the weights of a model
DENSE = "model.latent_dim=16 model.encoder.hidden=[400,400] model.decoder.hidden=[400,400]"
CONVOLUTIONS = "network=conv model.encoder.features=128 model.decoder.features=128"
MODELS = {
    "mnist_cvae": "model=cvae data=mnist model.latent_dim=8 model.encoder.hidden=[128,128]"
    " model.decoder.hidden=[128,128] trainer.max_epochs=60",
    "mnist_vae": f"model=vae data=mnist {DENSE} trainer.max_epochs=60",
    "fashion_mnist_vae": f"model=vae data=fashion_mnist {DENSE} trainer.max_epochs=60",
    "fashion_mnist_cvae": f"model=cvae data=fashion_mnist {DENSE} trainer.max_epochs=60",
    "cifar10_vae": f"model=vae data=cifar10 {CONVOLUTIONS} trainer.max_epochs=60",
    "sprites_beta_vae": "model=beta_vae model.beta=4 data=sprites data.source.size=32"
    f" data.source.orientations=10 data.source.positions=16 {CONVOLUTIONS} model.latent_dim=10"
    " trainer.max_epochs=30",
}
ALL = "scheduler=cosine ema=default evaluate=[likelihood,reconstruction,conditional]"
ALL += " metrics.likelihood.num_samples=100"
UNCONDITIONAL = "evaluate=[likelihood,reconstruction]"
SHORT = "data=mnist_5k trainer.max_epochs=1 +trainer.limit_train_batches=2 evaluate=[]"
"""Overrides of a trial: the same models of digits, hardly trained and not measured."""


def overrides(name: str, short: bool) -> list[str]:
    """Returns the overrides of the command that trains a model; later ones count."""
    words = [*ALL.split(), *MODELS[name].split()]
    words += [] if "cvae" in name else [UNCONDITIONAL]
    words += SHORT.split() if short else []
    words = [word for word in words if not (short and word.startswith("data.source."))]
    return [f"{key}={value}" for key, value in dict(word.split("=", 1) for word in words).items()]


def make(name: str, to: Path, short: bool) -> None:
    """Trains a model, or goes on with its run, and exports it; exits if it is too large."""
    words, run, folder = overrides(name, short), to / "runs" / name, to / name
    python("train.py", *words, f"hydra.run.dir={run}")
    python("export.py", f"run={run}", f"to={folder}", "what=safetensors")
    if (size := (folder / "model.safetensors").stat().st_size) > MOST:
        sys.exit(f"{name}: {size:,} bytes, and {MOST:,.0f} are allowed")
    data = next(word.partition("=")[2] for word in words if word.startswith("data="))
    command = shlex.join(["python", "train.py", *words])
    card = (folder / "README.md").read_text(encoding="utf-8").replace('"FOLDER"', f'"{name}"')
    card = f"{card}\n## Training\n\nData: `{data}`. Command:\n\n    {command}\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"{name}: {size:,} bytes in {folder}", flush=True)


def python(*words: str) -> None:
    """Runs a script of this checkout as a process; exits with its code if it fails."""
    if code := subprocess.run([sys.executable, *words], cwd=ROOT).returncode:
        sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("to", type=Path, help="the folder for the release")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MODELS)}; default: all")
    parser.add_argument("--short", action="store_true", help="two steps of each, as a trial")
    options = parser.parse_args()
    if unknown := set(options.names) - MODELS.keys():
        parser.error(f"{min(unknown)}: possible are {', '.join(MODELS)}")
    for name in options.names or MODELS:
        make(name, options.to.absolute(), options.short)


if __name__ == "__main__":
    main()
