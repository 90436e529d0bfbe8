"""Published figures by one command each: python reproduce.py tomczak2018/vae --short."""

from vaelab.commands.main import run

if __name__ == "__main__":
    run("reproduce")
