"""Write a finished run as files for others: python export.py run=outputs/... to=FOLDER."""

from vaelab.commands.main import run

if __name__ == "__main__":
    run("export")
