"""Measure finished runs on their test images: python evaluate.py run=outputs/..."""

from vaelab.commands.evaluate import main

if __name__ == "__main__":
    main()
