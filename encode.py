"""Write latents and scores of images, a row for each: python encode.py run=... images=photos."""

from vaelab.commands.main import run

if __name__ == "__main__":
    run("encode")
