"""Pictures and figures of every variant for docs/gallery: python benchmarks/gallery.py.

Trains and measures each as a run of `vaelab train`, and keeps record.json, curves and pictures in
results/gallery/VARIANT. Runs are in outputs/gallery, and the same command goes on with them. The
short form, two steps on 5,000 digits, keeps them in results/gallery/VARIANT_short. With --to FOLDER
outputs and results are in that folder.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from race import ROOT

from vaelab.commands.config_folders import CONF
from vaelab.reproductions.records import Origin, keep_run

VARIANTS = sorted(path.stem for path in CONF.glob("model/[!_]*.yaml"))
ALL = "data=mnist trainer.max_epochs=10 logger=csv metrics.likelihood.num_samples=100"
ALL += " evaluate=[likelihood,reconstruction,latents,samples]"
OWN = {
    "beta_tcvae": "data.batch_size=256",
    "capacity_vae": "model.gamma=100 annealing=linear annealing.duration=0.8",
    "factor_vae": "data.batch_size=256",
    "ladder_vae": "annealing=linear",
}
"""Further overrides of some variants, as the comments of their files advise."""
SHORT = "data=mnist_5k data.batch_size=128 trainer.max_epochs=1 +trainer.limit_train_batches=2"
SHORT += " evaluate=[reconstruction]"


def overrides(variant: str, short: bool) -> list[str]:
    """Returns the overrides of the command that trains a variant; later ones count."""
    words = [f"model={variant}", *ALL.split(), *OWN.get(variant, "").split()]
    words += SHORT.split() if short else []
    return [f"{key}={value}" for key, value in dict(word.split("=", 1) for word in words).items()]


def make(variant: str, short: bool, to: Path) -> None:
    """Trains a variant, or goes on with its run, and keeps its record; exits if it fails."""
    form = "short" if short else "full"
    words, run = overrides(variant, short), to / "outputs" / "gallery" / form / variant
    argv = [sys.executable, "train.py", *words, f"hydra.run.dir={run}"]
    if code := subprocess.run(argv, cwd=ROOT).returncode:
        sys.exit(code)
    command = shlex.join(["python", "train.py", *words])
    origin = Origin(command, words)
    kept = keep_run(to / "results", "gallery", variant, form, origin, {0: run})
    print(f"{variant}: {kept.relative_to(to)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", help="default: all")
    parser.add_argument("--short", action="store_true", help="two steps of each, as a trial")
    parser.add_argument("--to", type=Path, default=ROOT, help="default: the repository")
    options = parser.parse_args()
    if unknown := set(options.variants) - {*VARIANTS}:
        parser.error(f"{min(unknown)}: possible are {', '.join(VARIANTS)}")
    for variant in options.variants or VARIANTS:
        make(variant, options.short, options.to.resolve())


if __name__ == "__main__":
    main()
