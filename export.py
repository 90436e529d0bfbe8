"""Write a finished run as files for others: python export.py run=outputs/... to=FOLDER."""

from vaelab.commands.export import main

if __name__ == "__main__":
    main()
