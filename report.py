"""One page, figures and tables of a sweep: python report.py sweep=outputs/sweeps/..."""

from vaelab.commands.report import main

if __name__ == "__main__":
    main()
