"""One page, figures and tables of a sweep: python report.py sweep=outputs/sweeps/..."""

from vaelab.commands.main import run

if __name__ == "__main__":
    run("report")
