"""Fit one model and keep what came of it: python train.py model=beta_vae model.beta=4."""

from vaelab.commands.main import run

if __name__ == "__main__":
    run("train")
