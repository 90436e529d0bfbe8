"""Draw pictures of finished runs: python generate.py run=outputs/... what=class_grid count=8."""

from vaelab.commands.main import run

if __name__ == "__main__":
    run("generate")
