"""Draw pictures of finished runs: python generate.py run=outputs/... what=class_grid count=8."""

from vaelab.commands.generate import main

if __name__ == "__main__":
    main()
