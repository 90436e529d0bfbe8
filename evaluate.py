"""Measure finished runs on their test images: python evaluate.py run=outputs/..."""

from vaelab.commands.main import run

if __name__ == "__main__":
    run("evaluate")
