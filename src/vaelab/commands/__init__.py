"""Commands of vaelab: command-line parsing by Hydra, checks, help and output."""
