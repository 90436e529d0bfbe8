"""Published figures by one command each: python reproduce.py burda2016/iwae_k5 --short."""

from vaelab.commands.main import run

if __name__ == "__main__":
    run("reproduce")
