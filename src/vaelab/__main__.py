"""`python -m vaelab` is `vaelab`."""

from vaelab.commands.main import main

main()
